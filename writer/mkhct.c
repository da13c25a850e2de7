/* mkhct: compresses a model into a bundle.  See mkhct.1. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "codec/units.h"
#include "writer/budget.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/goals.h"
#include "writer/interrupt.h"
#include "writer/model.h"
#include "writer/options.h"
#include "writer/output.h"
#include "writer/preview.h"
#include "writer/progress.h"
#include "writer/recipe.h"
#include "writer/report.h"
#include "writer/shards.h"
#include "writer/survey.h"
#include "writer/verify.h"

#define BAGGAGE (1u << 20) /* bytes that are worth a warning */

struct run {
	struct mkhct_options options;
	struct mkhct_source source;
	struct mkhct_goals goals;
	char *recipe; /* the options as JSON */
	int lossless; /* they leave nothing else */
	struct mkhct_output *output;
	struct mkhct_compressor *compressor;
	struct mkhct_report *report;
	struct mkhct_progress progress;
	int begun;
	struct hct_diag diag;
};

/* Before anything is written: every file can be read. */
static hct_error check_carried(struct run *r)
{
	for (size_t i = 0; i < r->source.count; i++) {
		const struct mkhct_entry *entry = &r->source.entries[i];

		if (entry->kind == MKHCT_CARRIED &&
		    faccessat(AT_FDCWD, entry->path, R_OK, AT_EACCESS) != 0)
			return hct_fail_errno(&r->diag, errno, "%s: cannot be opened", entry->path);
	}
	return HCT_OK;
}

/* Few models shrink to less than two thirds without loss; with loss few tensors take more
 * than a quarter.  Less room than that is worth a word. */
static void warn_of_small_space(struct run *r)
{
	uint64_t space = mkhct_output_space(r->output);
	uint64_t most = r->source.carried_bytes + r->source.model_bytes;
	uint64_t least =
		most - (r->lossless ? r->source.model_bytes / 3 : r->source.model_bytes / 16 * 15);
	char a[HCT_UNITS_MAX], b[HCT_UNITS_MAX], c[HCT_UNITS_MAX];

	if (space < least)
		mkhct_progress_note(&r->progress,
				    "mkhct: warning: %s has %s free, and the bundle will probably "
				    "take %s to %s; make room, or choose another disk",
				    r->options.out, hct_units_size(space, a),
				    hct_units_size(least, b), hct_units_size(most, c));
}

/* What git and the Hugging Face client keep beside a model may be as large as the model. */
static void warn_of_baggage(struct run *r)
{
	static const char *const folders[] = {".git", ".cache/huggingface"};
	char size[HCT_UNITS_MAX];

	for (size_t f = 0; f < sizeof(folders) / sizeof(*folders); f++) {
		size_t n = strlen(folders[f]);
		uint64_t bytes = 0;

		for (size_t i = 0; i < r->source.count; i++) {
			const char *name = r->source.entries[i].name;

			if (strncmp(name, folders[f], n) == 0 && name[n] == '/')
				bytes += r->source.entries[i].size;
		}
		if (bytes > BAGGAGE)
			mkhct_progress_note(&r->progress,
					    "mkhct: warning: the bundle takes along %s/%s (%s); "
					    "if it is not wanted, move it away first",
					    r->options.source, folders[f],
					    hct_units_size(bytes, size));
	}
}

static void warn_of_environment(struct run *r)
{
	struct hct_diag diag;

	if (hct_simd_check_environment(&diag) != HCT_OK)
		mkhct_progress_note(&r->progress, "mkhct: warning: %s", diag.text);
}

/* The reader checks the structure of what was written and knows what each tensor takes. */
static hct_error report_model(struct run *r, const struct mkhct_model *model, int fd,
			      const char *name, const struct mkhct_model_goals *goals,
			      struct mkhct_result *results)
{
	const struct mkhct_options *o = &r->options;
	struct mkhct_written written = {.goals = goals, .results = results};
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	hct_reader *reader;
	hct_error err;

	if (copy < 0)
		return hct_fail_errno(&r->diag, errno, "%s: cannot be read back", name);
	err = hct_reader_open_fd(copy, name, &reader, &r->diag);
	if (err)
		return err;
	if (!r->lossless || o->sample_given)
		err = mkhct_verify(r->compressor, model, reader, o->quality_sample, results,
				   mkhct_progress_tick, &r->progress, &r->diag);
	written.reader = reader;
	if (!err)
		err = mkhct_report_add(r->report, model->entry, &written, 0, &r->diag);
	if (!err)
		mkhct_progress_file(&r->progress, model->entry->name, model->entry->size, reader,
				    results);
	hct_reader_close(reader);
	return err;
}

static const struct mkhct_model_goals *goals_of(const struct run *r,
						const struct mkhct_entry *entry)
{
	for (size_t i = 0; i < r->goals.count; i++)
		if (r->goals.models[i].entry == entry)
			return &r->goals.models[i];
	return NULL;
}

static hct_error write_mapped(struct run *r, const struct mkhct_model *model, int fd,
			      const char *name)
{
	const struct mkhct_model_goals *goals = goals_of(r, model->entry);
	struct mkhct_task task = {.options = r->recipe};
	hct_error err;

	if (!goals || goals->count != model->st.count)
		return hct_fail(
			&r->diag, HCT_ERR_CHANGED,
			"%s: changed while it was read; run again when nothing writes to it",
			model->entry->path);
	task.goals = r->lossless ? NULL : goals->goals;
	task.results = calloc(goals->count + 1, sizeof(*task.results));
	if (!task.results)
		return hct_fail(&r->diag, HCT_ERR_NOMEM, "%s: out of memory", model->entry->path);
	err = mkhct_compress(r->compressor, model, &task, fd, name, &r->progress.meter,
			     mkhct_progress_tick, &r->progress, &r->diag);
	if (!err && fchmod(fd, model->entry->mode) != 0)
		err = hct_fail_errno(&r->diag, errno, "%s: cannot be given its mode", name);
	if (!err)
		err = report_model(r, model, fd, name, goals, task.results);
	free(task.results);
	return err;
}

static hct_error write_model(struct run *r, const struct mkhct_entry *entry, int fd,
			     const char *name)
{
	struct mkhct_model model;
	hct_error err = mkhct_model_open(entry, &model, &r->diag);

	if (err)
		return err;
	err = mkhct_model_map(&model, &r->diag);
	if (!err)
		err = write_mapped(r, &model, fd, name);
	mkhct_model_close(&model);
	return err;
}

static hct_error write_carried(struct run *r, const struct mkhct_entry *entry, int fd,
			       const char *name)
{
	uint64_t checksum;
	hct_error err = mkhct_carry(entry, fd, name, &r->progress.meter, mkhct_progress_tick,
				    &r->progress, &checksum, &r->diag);

	if (err)
		return err;
	mkhct_progress_file(&r->progress, entry->name, entry->size, NULL, NULL);
	return mkhct_report_add(r->report, entry, NULL, checksum, &r->diag);
}

static hct_error write_entry(struct run *r, const struct mkhct_entry *entry)
{
	const char *name;
	hct_error err;
	int fd;

	if (entry->kind == MKHCT_FOLDER)
		return mkhct_report_add(r->report, entry, NULL, 0, &r->diag);
	err = mkhct_output_create(r->output, entry, &fd, &name, &r->diag);
	if (err)
		return err;
	err = entry->kind == MKHCT_MODEL ? write_model(r, entry, fd, name)
					 : write_carried(r, entry, fd, name);
	if (err) {
		close(fd);
		return err;
	}
	err = mkhct_output_sync(fd, name, &r->diag);
	return err ? err : mkhct_interrupt_check(&r->diag);
}

static hct_error write_report(struct run *r, double seconds)
{
	char *text = mkhct_report_full(r->report, seconds);
	const char *name;
	hct_error err;
	int fd;

	if (!text)
		return hct_fail(&r->diag, HCT_ERR_NOMEM, "out of memory for the report");
	err = mkhct_output_create(r->output, NULL, &fd, &name, &r->diag);
	if (err)
		goto out;
	err = hct_write_all(fd, name, text, strlen(text), &r->diag);
	if (!err && fchmod(fd, 0644) != 0)
		err = hct_fail_errno(&r->diag, errno, "%s: cannot be given its mode", name);
	if (err)
		close(fd);
	else
		err = mkhct_output_sync(fd, name, &r->diag);
out:
	cJSON_free(text);
	return err;
}

/* Standard output has it, or it was in vain. */
static hct_error flush_output(struct run *r, const char *what)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return HCT_OK;
	return hct_fail_errno(&r->diag, errno ? errno : EIO, "%s", what);
}

static hct_error print_result(struct run *r, double seconds)
{
	hct_error err = HCT_OK;

	if (r->options.json)
		err = mkhct_report_print_json(r->report, stdout, &r->diag);
	else if (!r->options.quiet)
		mkhct_report_print_table(r->report, seconds, stdout);
	return err ? err
		   : flush_output(r,
				  "the bundle is written, but not the report to standard output");
}

/* What there is to do, all of it checked; nothing is written. */
static hct_error prepare(struct run *r)
{
	const struct mkhct_options *o = &r->options;
	struct hct_diag note;
	hct_error err;

	err = mkhct_source_scan(o->source, &r->source, &r->diag);
	if (!err && o->out)
		err = mkhct_output_open(o->out, &r->source, o->force, &r->output, &r->diag);
	if (!err)
		err = mkhct_shards_check(&r->source, &r->diag);
	if (!err)
		err = check_carried(r);
	if (!err)
		err = mkhct_goals_create(&r->source, o, &r->goals, &r->diag);
	if (!err)
		err = mkhct_compressor_create(o->jobs, &r->compressor, &r->diag);
	if (err)
		return err;
	r->lossless = mkhct_recipe_is_lossless(o);
	r->recipe = mkhct_recipe_text(o, mkhct_policy_importance_checksum(r->goals.policy));
	if (!r->recipe)
		return hct_fail(&r->diag, HCT_ERR_NOMEM, "out of memory for the options");
	mkhct_progress_start(&r->progress, stderr, o->quiet, o->verbose,
			     r->source.model_bytes + r->source.carried_bytes);
	for (unsigned i = 0; i < MKHCT_OPTIONS_NOTES && o->notes[i]; i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", o->notes[i]);
	for (unsigned i = 0; mkhct_policy_note(r->goals.policy, i, &note); i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
	return HCT_OK;
}

static void measuring(void *progress, const char *what)
{
	char text[512];

	snprintf(text, sizeof(text), "measuring %s", what);
	mkhct_progress_tick(progress, text);
}

/* --policy adaptive. */
static hct_error measure_spectra(struct run *r)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < r->goals.count; i++) {
		struct mkhct_model_goals *goals = &r->goals.models[i];
		struct mkhct_model model;

		err = mkhct_model_open(goals->entry, &model, &r->diag);
		if (err)
			return err;
		err = goals->count == model.st.count
			      ? mkhct_model_map(&model, &r->diag)
			      : hct_fail(&r->diag, HCT_ERR_CHANGED, "%s: changed meanwhile",
					 goals->entry->path);
		if (!err)
			err = mkhct_survey_spectra(r->compressor, &model, goals, measuring,
						   &r->progress, &r->diag);
		mkhct_model_close(&model);
	}
	return err;
}

/* Turns targets into errors, and for a dry run forecasts all tensors. */
static hct_error resolve(struct run *r, double *model_bytes)
{
	const struct mkhct_wish *wish = &r->options.policy.wish;
	struct mkhct_budget budget = {.wish = wish,
				      .source = &r->source,
				      .options = r->recipe,
				      .tick = measuring,
				      .tick_arg = &r->progress};
	struct hct_diag note = {""};
	hct_error err = HCT_OK;

	if (wish->kind == MKHCT_WISH_SIZE)
		budget.rest = (double)r->source.carried_bytes +
			      mkhct_report_forecast(&r->source, &r->goals, r->recipe);
	if (mkhct_wish_is_budget(wish))
		err = mkhct_budget_meet(&budget, r->compressor, &r->goals, &note, &r->diag);
	else if (r->goals.open)
		err = measure_spectra(r);
	if (!err && r->options.dry_run && !mkhct_wish_is_budget(wish))
		err = mkhct_budget_forecast(&budget, r->compressor, &r->goals, &r->diag);
	if (!err && r->options.dry_run)
		err = mkhct_budget_bytes(&budget, &r->goals, model_bytes, &r->diag);
	mkhct_progress_clear(&r->progress);
	if (!err && *note.text)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
	return err;
}

static hct_error print_preview(struct run *r, double model_bytes)
{
	struct mkhct_preview preview = {.source = &r->source,
					.goals = &r->goals,
					.options = r->recipe,
					.model_bytes = model_bytes};
	hct_error err = HCT_OK;

	if (r->options.json)
		err = mkhct_preview_print_json(&preview, stdout, &r->diag);
	else if (!r->options.quiet)
		err = mkhct_preview_print(&preview, stdout, &r->diag);
	return err ? err : flush_output(r, "standard output cannot be written");
}

static hct_error write_bundle(struct run *r, double started)
{
	const struct mkhct_source *source = &r->source;
	double seconds;
	hct_error err;

	err = mkhct_report_create(source, r->recipe, r->lossless, &r->report, &r->diag);
	if (err)
		return err;
	r->begun = 1;
	err = mkhct_output_begin(r->output, &r->diag);
	if (err)
		return err;
	hct_meter_start(&r->progress.meter, source->model_bytes + source->carried_bytes);
	warn_of_environment(r);
	warn_of_small_space(r);
	warn_of_baggage(r);
	for (size_t i = 0; !err && i < source->count; i++)
		err = write_entry(r, &source->entries[i]);
	mkhct_progress_clear(&r->progress);
	seconds = hct_meter_now() - started;
	if (!err)
		err = write_report(r, seconds);
	if (!err)
		err = mkhct_interrupt_check(&r->diag);
	if (!err) {
		err = mkhct_output_commit(r->output, &r->diag);
		r->begun = mkhct_output_can_go_back(r->output);
	}
	return err ? err : print_result(r, seconds);
}

static hct_error run(struct run *r)
{
	double started = hct_meter_now(), model_bytes = 0;
	hct_error err = prepare(r);

	if (!err)
		err = resolve(r, &model_bytes);
	if (err)
		return err;
	return r->options.dry_run ? print_preview(r, model_bytes) : write_bundle(r, started);
}

static void free_run(struct run *r)
{
	mkhct_compressor_free(r->compressor);
	mkhct_report_free(r->report);
	mkhct_goals_free(&r->goals);
	cJSON_free(r->recipe);
	mkhct_source_free(&r->source);
	mkhct_options_free(&r->options);
}

int main(int argc, char **argv)
{
	struct run r = {.begun = 0};
	hct_error err;
	int clean;

	if (hct_open_standard_descriptors() < 0)
		return HCT_EXIT_SYSTEM;
	err = mkhct_options_parse(argc, argv, &r.options, &r.diag);
	if (err) {
		fprintf(stderr, "mkhct: %s; try 'mkhct --help'\n", r.diag.text);
		return HCT_EXIT_USAGE;
	}
	if (r.options.action != MKHCT_RUN) {
		if (r.options.action == MKHCT_HELP)
			fputs(mkhct_options_help, stdout);
		else
			puts("mkhct " HCT_VERSION);
		return fflush(stdout) == 0 ? HCT_EXIT_OK : HCT_EXIT_SYSTEM;
	}
	mkhct_interrupt_install();
	mkhct_model_catch_faults();
	err = run(&r);
	clean = mkhct_output_close(r.output);
	if (err && r.begun && clean)
		fprintf(stderr, "mkhct: %s; %s is as it was before\n", r.diag.text, r.options.out);
	else if (err)
		fprintf(stderr, "mkhct: %s\n", r.diag.text);
	if (!clean)
		fprintf(stderr, "mkhct: %s: part files of this run could not be removed\n",
			r.options.out);
	free_run(&r);
	return hct_error_exit_code(err);
}
