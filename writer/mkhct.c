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
#include "writer/baggage.h"
#include "writer/budget.h"
#include "writer/bundle.h"
#include "writer/checkpoint.h"
#include "writer/compress.h"
#include "writer/finish.h"
#include "writer/finished.h"
#include "writer/goals.h"
#include "writer/interrupt.h"
#include "writer/measured.h"
#include "writer/model.h"
#include "writer/options.h"
#include "writer/output.h"
#include "writer/preview.h"
#include "writer/progress.h"
#include "writer/recipe.h"
#include "writer/report.h"
#include "writer/shards.h"
#include "writer/survey.h"
#include "writer/work.h"

struct run {
	struct mkhct_options options;
	struct mkhct_source source;
	struct mkhct_goals goals;
	char *recipe; /* the options as JSON */
	int lossless; /* they leave nothing else */
	struct mkhct_output *output;
	hct_accelerator *gpu; /* or NULL */
	struct mkhct_compressor *compressor;
	struct mkhct_report *report;
	struct mkhct_progress progress;
	struct mkhct_events *events; /* NULL when nobody listens */
	char **adopted; /* the command line with the options of an unfinished bundle, or NULL */
	size_t adopted_count; /* words that were put in behind the first */
	int begun;
	struct hct_diag shards_note; /* what the index of shards does not agree with, or "" */
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

/* What is worth knowing before hours of work. */
static void note_source(struct run *r)
{
	struct hct_diag note;

	if (*r->shards_note.text)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", r->shards_note.text);
	for (unsigned i = 0; mkhct_source_note(&r->source, i, &note); i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
	for (unsigned i = 0; mkhct_baggage_note(&r->source, i, &note); i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
}

static void warn_of_environment(struct run *r)
{
	struct hct_diag diag;

	if (hct_simd_check_environment(&diag) != HCT_OK)
		mkhct_progress_note(&r->progress, "mkhct: warning: %s", diag.text);
}

static struct mkhct_output_mode mode_of(const struct mkhct_options *o)
{
	return (struct mkhct_output_mode){
		.force = o->force, .restart = o->restart, .part = o->part, .parts = o->parts};
}

/* The checkpoint of OUT, or NULL. */
static hct_error peek(const struct mkhct_options *o, struct mkhct_checkpoint **out,
		      struct hct_diag *diag)
{
	struct mkhct_output_mode mode = mode_of(o);
	char name[MKHCT_STATE_NAME];
	int root = o->out ? open(o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	hct_error err;

	*out = NULL;
	if (root < 0)
		return HCT_OK; /* whatever is wrong with it is said later */
	err = mkhct_checkpoint_read(root, mkhct_output_state_name(&mode, name), o->out, out, diag);
	close(root);
	return err;
}

/* An unfinished bundle is gone on with as it was begun: parses the command line again, with the
 * options that decide about its bytes in front. */
static hct_error adopt_options(struct run *r, int argc, char **argv)
{
	const char *const *words, *out = r->options.out;
	struct mkhct_checkpoint *c;
	size_t count;
	hct_error err;

	if (r->options.action != MKHCT_RUN || r->options.restart || r->options.dry_run ||
	    r->options.recipe_word_count)
		return HCT_OK;
	err = peek(&r->options, &c, &r->diag);
	if (err || !c)
		return err;
	count = mkhct_checkpoint_words(c, &words);
	r->adopted = calloc((size_t)argc + count + 1, sizeof(char *));
	r->adopted_count = count;
	for (size_t i = 0; r->adopted && i < count && !err; i++) {
		r->adopted[1 + i] = strdup(words[i]); /* PATTERN=TARGET is cut in two */
		if (!r->adopted[1 + i])
			err = HCT_ERR_NOMEM;
	}
	if (!r->adopted || err) {
		err = hct_fail(&r->diag, HCT_ERR_NOMEM, "out of memory for the options");
	} else {
		r->adopted[0] = argv[0];
		memcpy(r->adopted + 1 + count, argv + 1, (size_t)(argc - 1) * sizeof(char *));
		mkhct_options_free(&r->options);
		err = mkhct_options_parse(argc + (int)count, r->adopted, &r->options, &r->diag);
		/* Nothing but what decides about bytes. */
		if (err == HCT_ERR_ARGUMENT ||
		    (!err && (r->options.action != MKHCT_RUN || r->options.out != out ||
			      r->options.recipe_word_count != count)))
			err = hct_fail(&r->diag, HCT_ERR_CORRUPT,
				       "%s: the options in its checkpoint are damaged; give "
				       "--restart to begin anew",
				       out);
	}
	mkhct_checkpoint_free(c);
	return err;
}

static struct mkhct_checkpoint_of checkpoint_of(const struct run *r)
{
	return (struct mkhct_checkpoint_of){.source = &r->source,
					    .goals = &r->goals,
					    .options = r->recipe,
					    .words = r->options.recipe_words,
					    .word_count = r->options.recipe_word_count,
					    .part = r->options.part,
					    .parts = r->options.parts};
}

/* Before anything is measured: a checkpoint that does not fit is refused. */
static hct_error match(struct run *r)
{
	struct mkhct_checkpoint_of of = checkpoint_of(r);
	const struct mkhct_checkpoint *c = r->output ? mkhct_output_checkpoint(r->output) : NULL;
	hct_error err;

	if (r->output && !r->options.dry_run && mkhct_output_is_finished(r->output))
		return mkhct_finished_match(r->options.out, &r->source, r->recipe, &r->diag);
	if (!c || r->options.dry_run)
		return HCT_OK;
	err = mkhct_checkpoint_match(c, &of, r->options.out, &r->diag);
	if (!err)
		mkhct_progress_note(&r->progress,
				    "mkhct: note: going on with %s, which is unfinished",
				    r->options.out);
	return err;
}

/* From any thread. */
static void warn_of_gpu(void *arg, const char *text)
{
	struct run *r = arg;
	char *line = NULL;

	if (asprintf(&line, "mkhct: warning: %s", text) >= 0)
		mkhct_progress_post(&r->progress, line);
	free(line);
}

/* Threads, memory, and the GPU, which takes its share of that. */
static hct_error make_compressor(struct run *r, struct mkhct_memory *memory)
{
	const struct mkhct_options *o = &r->options;
	uint64_t before = mkhct_memory_resident(), after, left = o->memory;
	hct_error err = HCT_OK;

	if (!r->lossless)
		err = hct_accelerator_open(o->gpu, warn_of_gpu, r, &r->gpu, &r->diag);
	if (err)
		return err;
	after = mkhct_memory_resident();
	if (r->gpu && after > before)
		left -= after - before < left ? after - before : left;
	*memory =
		mkhct_memory_share(left > MKHCT_MEMORY_LEAST ? left : MKHCT_MEMORY_LEAST, o->jobs);
	err = mkhct_compressor_create(memory, &r->compressor, &r->diag);
	if (!err)
		mkhct_compressor_accelerate(r->compressor, r->gpu);
	return err;
}

/* What there is to do, all of it checked; nothing is written. */
static hct_error prepare(struct run *r)
{
	const struct mkhct_options *o = &r->options;
	struct mkhct_output_mode mode = mode_of(o);
	struct mkhct_memory memory = mkhct_memory_share(o->memory, o->jobs);
	struct hct_diag note;
	hct_error err;

	err = mkhct_source_scan(o->source, o->selections, o->selection_count, &r->source, &r->diag);
	if (!err)
		err = mkhct_source_decode_at(&r->source, o->out, memory.threads, &r->diag);
	if (!err && o->out)
		err = mkhct_output_open(o->out, &r->source, &mode, &r->output, &r->diag);
	if (!err)
		err = mkhct_shards_check(&r->source, &r->shards_note, &r->diag);
	if (!err)
		err = check_carried(r);
	if (!err)
		err = mkhct_goals_create(&r->source, o, &r->goals, &r->diag);
	if (err)
		return err;
	r->lossless = mkhct_recipe_is_lossless(o);
	mkhct_progress_start(&r->progress, stderr, o->quiet, o->verbose,
			     r->source.model_bytes + r->source.carried_bytes);
	err = make_compressor(r, &memory);
	if (err)
		return err;
	r->recipe = mkhct_recipe_text(o, mkhct_policy_importance_checksum(r->goals.policy));
	if (!r->recipe)
		return hct_fail(&r->diag, HCT_ERR_NOMEM, "out of memory for the options");
	mkhct_progress_listen(&r->progress, r->events);
	if (!o->dry_run)
		mkhct_events_start(r->events, &r->source, o->out, r->recipe, o->jobs);
	note_source(r);
	for (unsigned i = 0; i < MKHCT_OPTIONS_NOTES && o->notes[i]; i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", o->notes[i]);
	for (unsigned i = 0; mkhct_policy_note(r->goals.policy, i, &note); i++)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
	if (r->gpu && o->verbose)
		mkhct_progress_note(&r->progress, "mkhct: note: encoding with %s",
				    hct_accelerator_name(r->gpu));
	if (memory.threads < o->jobs)
		mkhct_progress_note(&r->progress,
				    "mkhct: note: --memory is enough for %u of %u threads",
				    memory.threads, o->jobs);
	return match(r);
}

/* Errors that an earlier run has measured; 1 when they are there. */
static int recall_errors(struct run *r)
{
	const struct mkhct_checkpoint *c = r->output ? mkhct_output_checkpoint(r->output) : NULL;

	if (!c || r->options.dry_run || mkhct_checkpoint_entries(c) != r->source.count)
		return 0;
	/* All of them, or none. */
	for (size_t i = 0; i < 2 * r->goals.count; i++) {
		struct mkhct_model_goals *m = &r->goals.models[i % r->goals.count];
		size_t entry = (size_t)(m->entry - r->source.entries);
		int take = i >= r->goals.count;

		if (!mkhct_checkpoint_errors(c, entry, take ? m->goals : NULL, m->decisions,
					     m->count))
			return 0;
	}
	return 1;
}

/* Keeps what took a long time to measure. */
static hct_error keep_errors(struct run *r)
{
	struct mkhct_checkpoint *c = mkhct_output_checkpoint(r->output);
	hct_error err;
	int rc = 0;

	if (!r->goals.open)
		return HCT_OK;
	for (size_t i = 0; !rc && i < r->goals.count; i++) {
		const struct mkhct_model_goals *m = &r->goals.models[i];

		rc = mkhct_checkpoint_set_errors(c, (size_t)(m->entry - r->source.entries),
						 m->goals, m->decisions, m->count);
	}
	if (rc)
		return hct_fail(&r->diag, HCT_ERR_NOMEM, "out of memory for the checkpoint");
	err = mkhct_output_save(r->output, &r->diag);
	if (err)
		return err;
	mkhct_output_keep(r->output);
	return mkhct_output_drop_measured(r->output, &r->diag);
}

/* What earlier runs have measured, and where to note what this one does. */
static hct_error begin_measured(struct run *r, struct mkhct_measured **out)
{
	const struct mkhct_measured_pace pace = {.every = (unsigned)r->options.interval_tensors,
						 .seconds = r->options.interval_seconds};
	struct mkhct_checkpoint_of of = checkpoint_of(r);
	hct_error err;

	if (r->options.dry_run || !r->goals.open)
		return HCT_OK;
	err = mkhct_measured_begin(r->output, r->options.out, &of, &pace, out, &r->diag);
	if (!err && mkhct_measured_count(*out))
		mkhct_progress_note(&r->progress,
				    "mkhct: note: %zu measurements of an earlier run are kept",
				    mkhct_measured_count(*out));
	return err;
}

/* Turns targets into errors, and for a dry run forecasts all tensors. */
static hct_error resolve(struct run *r, double *model_bytes)
{
	const struct mkhct_wish *wish = &r->options.policy.wish;
	struct mkhct_budget budget = {
		.wish = wish, .source = &r->source, .options = r->recipe, .progress = &r->progress};
	struct hct_diag note = {""};
	hct_error err;

	if (recall_errors(r))
		return HCT_OK;
	err = begin_measured(r, &budget.measured);
	if (wish->kind == MKHCT_WISH_SIZE)
		budget.rest = (double)r->source.carried_bytes +
			      mkhct_report_forecast(&r->source, &r->goals, r->recipe);
	if (!err && mkhct_wish_is_budget(wish))
		err = mkhct_budget_meet(&budget, r->compressor, &r->goals, &note, &r->diag);
	else if (!err && r->goals.open)
		err = mkhct_budget_adapt(&budget, r->compressor, &r->goals, &r->diag);
	if (!err && r->options.dry_run && !mkhct_wish_is_budget(wish))
		err = mkhct_budget_forecast(&budget, r->compressor, &r->goals, &r->diag);
	if (!err && r->options.dry_run)
		err = mkhct_budget_bytes(&budget, &r->goals, model_bytes, &r->diag);
	mkhct_progress_clear(&r->progress);
	if (!err && *note.text)
		mkhct_progress_note(&r->progress, "mkhct: note: %s", note.text);
	mkhct_measured_end(budget.measured, r->output, err);
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
	return err ? err : mkhct_flush_output("standard output cannot be written", &r->diag);
}

static struct mkhct_bundle bundle_of(struct run *r, double started)
{
	return (struct mkhct_bundle){.options = &r->options,
				     .source = &r->source,
				     .goals = &r->goals,
				     .recipe = r->recipe,
				     .lossless = r->lossless,
				     .output = r->output,
				     .compressor = r->compressor,
				     .report = r->report,
				     .progress = &r->progress,
				     .started = started};
}

/* A part is done, and says what is left to do. */
static void say_part(struct run *r)
{
	if (!r->options.quiet && !r->options.json)
		printf("part %u of %u of %s is done; when all are: mkhct --finish %s\n",
		       r->options.part, r->options.parts, r->options.out, r->options.out);
}

/* What earlier runs have done of an entry: bytes of the source, and whole tensors. */
static hct_error count_done(const struct mkhct_entry *entry, const struct mkhct_state *state,
			    uint64_t *bytes, uint64_t *tensors, struct hct_diag *diag)
{
	struct mkhct_model model;
	hct_error err;

	if (state->status == MKHCT_COMPLETED) {
		const cJSON *count = cJSON_GetObjectItemCaseSensitive(state->report, "tensors");

		*bytes += entry->size;
		*tensors += cJSON_IsNumber(count) && count->valuedouble > 0
				    ? (uint64_t)count->valuedouble
				    : 0;
	}
	if (state->status != MKHCT_IN_PROGRESS || entry->kind != MKHCT_MODEL || !state->tensors)
		return HCT_OK;
	err = mkhct_model_open(entry, &model, diag);
	if (err)
		return err;
	for (size_t i = 0; i < state->tensors && i < model.st.count; i++, ++*tensors)
		*bytes += hct_tensor_bytes(&model.st.tensors[i]);
	mkhct_model_close(&model);
	return HCT_OK;
}

/* Tells how much there is to do, and how much of it is done. */
static hct_error begin_progress(struct run *r)
{
	const struct mkhct_checkpoint *c = mkhct_output_checkpoint(r->output);
	uint64_t total = 0, done = 0, tensors = 0;

	for (size_t i = 0; i < r->source.count; i++) {
		struct mkhct_state state;
		hct_error err;

		mkhct_checkpoint_state(c, i, &state);
		if (state.status == MKHCT_SKIPPED)
			continue;
		total += r->source.entries[i].size;
		err = count_done(&r->source.entries[i], &state, &done, &tensors, &r->diag);
		if (err)
			return err;
	}
	mkhct_progress_work(&r->progress, total);
	if (done || tensors)
		mkhct_events_resume(r->events, done, tensors);
	return HCT_OK;
}

/* Others see from now on, while this one measures, that OUT is being made. */
static hct_error begin_output(struct run *r)
{
	struct mkhct_checkpoint_of of = checkpoint_of(r);
	hct_error err = mkhct_output_begin(r->output, &of, &r->diag);

	r->begun = err != HCT_ERR_EXISTS;
	return err;
}

static hct_error say_finished(struct run *r)
{
	if (!r->options.quiet && !r->options.json)
		printf("%s is finished already\n", r->options.out);
	return mkhct_flush_output("standard output cannot be written", &r->diag);
}

static hct_error write_bundle(struct run *r, double started)
{
	struct mkhct_bundle b;
	double seconds;
	hct_error err;

	err = mkhct_report_create(&r->source, r->recipe, r->lossless, &r->report, &r->diag);
	if (!err)
		err = keep_errors(r);
	if (err)
		return err;
	err = begin_progress(r);
	if (!err)
		err = mkhct_work_expect(
			&r->progress.meter, &r->source, mkhct_output_checkpoint(r->output),
			r->lossless ? NULL : &r->goals,
			!r->lossless || r->options.sample_given ? r->options.quality_sample : 0,
			&r->diag);
	if (err)
		return err;
	warn_of_environment(r);
	warn_of_small_space(r);
	b = bundle_of(r, started);
	err = mkhct_bundle_write(&b, &r->diag);
	if (!err && r->options.parts) {
		mkhct_output_keep(r->output);
		err = mkhct_output_save(r->output, &r->diag);
		if (!err)
			say_part(r);
		return err ? err
			   : mkhct_flush_output("standard output cannot be written", &r->diag);
	}
	if (!err)
		err = mkhct_bundle_finish(&b, &seconds, &r->diag);
	if (err)
		return err;
	r->begun = 0; /* it is finished, whatever becomes of the report */
	return mkhct_bundle_print(&b, seconds, &r->diag);
}

/* The log cannot be written any more. */
static void warn(void *arg, const char *text)
{
	struct run *r = arg;

	mkhct_progress_note(&r->progress, "mkhct: warning: %s", text);
}

static hct_error run(struct run *r)
{
	const struct mkhct_options *o = &r->options;
	double started = hct_meter_now(), model_bytes = 0;
	hct_error err = HCT_OK;

	if ((o->json && !o->dry_run) || o->log)
		err = mkhct_events_open(o->json && !o->dry_run ? stdout : NULL, o->log, warn, r,
					&r->events, &r->diag);
	if (!err && o->action == MKHCT_FINISH)
		return mkhct_finish(o, r->events, &r->diag);
	if (!err)
		err = prepare(r);
	if (!err && !o->dry_run && mkhct_output_is_finished(r->output))
		return say_finished(r);
	if (!err && !o->dry_run)
		err = begin_output(r);
	if (!err)
		err = resolve(r, &model_bytes);
	if (err)
		return err;
	return r->options.dry_run ? print_preview(r, model_bytes) : write_bundle(r, started);
}

static void free_run(struct run *r)
{
	mkhct_compressor_free(r->compressor);
	hct_accelerator_close(r->gpu);
	mkhct_report_free(r->report);
	mkhct_goals_free(&r->goals);
	cJSON_free(r->recipe);
	mkhct_source_free(&r->source);
	mkhct_options_free(&r->options);
	for (size_t i = 1; r->adopted && i <= r->adopted_count; i++)
		free(r->adopted[i]);
	free(r->adopted);
}

/* How it ended, for people. */
static void say_end(const struct run *r, int kept, int clean)
{
	const char *text = r->diag.text, *out = r->options.out;

	if (kept)
		fprintf(stderr, "mkhct: %s; what is done is kept: run the same command again %s\n",
			text,
			r->options.restart ? "without --restart to go on"
					   : "to go on, or with --restart to begin anew");
	else if (r->begun && clean)
		fprintf(stderr, "mkhct: %s; %s is as it was before\n", text, out);
	else
		fprintf(stderr, "mkhct: %s\n", text);
	if (!clean)
		fprintf(stderr, "mkhct: %s: part files of this run could not be removed\n", out);
}

int main(int argc, char **argv)
{
	struct run r = {.begun = 0};
	hct_error err;
	int kept, clean;

	if (hct_open_standard_descriptors() < 0)
		return HCT_EXIT_SYSTEM;
	err = mkhct_options_parse(argc, argv, &r.options, &r.diag);
	if (err) {
		fprintf(stderr, "mkhct: %s; try 'mkhct --help'\n", r.diag.text);
		return HCT_EXIT_USAGE;
	}
	if (r.options.action == MKHCT_HELP || r.options.action == MKHCT_VERSION) {
		if (r.options.action == MKHCT_HELP)
			fputs(mkhct_options_help, stdout);
		else
			puts("mkhct " HCT_VERSION);
		return fflush(stdout) == 0 ? HCT_EXIT_OK : HCT_EXIT_SYSTEM;
	}
	mkhct_interrupt_install();
	mkhct_model_catch_faults();
	err = adopt_options(&r, argc, argv);
	if (!err)
		err = run(&r);
	mkhct_progress_clear(&r.progress);
	kept = r.begun && mkhct_output_is_kept(r.output);
	clean = mkhct_output_close(r.output);
	if (err)
		say_end(&r, kept, clean);
	if (err)
		mkhct_events_error(r.events, r.diag.text, hct_error_exit_code(err));
	mkhct_events_close(r.events);
	free_run(&r);
	return hct_error_exit_code(err);
}
