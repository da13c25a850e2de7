/* mkhct: compresses a model into a bundle.  See mkhct.1. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "codec/units.h"
#include "writer/carry.h"
#include "writer/compress.h"
#include "writer/interrupt.h"
#include "writer/model.h"
#include "writer/options.h"
#include "writer/output.h"
#include "writer/progress.h"
#include "writer/report.h"
#include "writer/shards.h"

#define BAGGAGE (1u << 20) /* bytes that are worth a warning */

struct run {
	struct mkhct_options options;
	struct mkhct_source source;
	struct mkhct_output *output;
	struct mkhct_compressor *compressor;
	struct mkhct_report *report;
	struct mkhct_progress progress;
	int begun;
	struct hct_diag diag;
};

/* Before anything is written: every header is valid, and every file can be read. */
static hct_error check_files(struct run *r)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < r->source.count; i++) {
		const struct mkhct_entry *entry = &r->source.entries[i];
		struct mkhct_model model;

		if (entry->kind == MKHCT_MODEL) {
			err = mkhct_model_open(entry, &model, &r->diag);
			if (!err)
				mkhct_model_close(&model);
		} else if (entry->kind == MKHCT_CARRIED &&
			   faccessat(AT_FDCWD, entry->path, R_OK, AT_EACCESS) != 0) {
			err = hct_fail_errno(&r->diag, errno, "%s: cannot be opened", entry->path);
		}
		if (!err)
			err = mkhct_interrupt_check(&r->diag);
	}
	return err;
}

/* Few models shrink to less than two thirds; less room than that is worth a word. */
static void warn_of_small_space(struct run *r)
{
	uint64_t space = mkhct_output_space(r->output);
	uint64_t most = r->source.carried_bytes + r->source.model_bytes;
	uint64_t least = most - r->source.model_bytes / 3;
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
static hct_error report_model(struct run *r, const struct mkhct_entry *entry, int fd,
			      const char *name)
{
	hct_reader *reader;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	hct_error err;

	if (copy < 0)
		return hct_fail_errno(&r->diag, errno, "%s: cannot be read back", name);
	err = hct_reader_open_fd(copy, name, &reader, &r->diag);
	if (err)
		return err;
	err = mkhct_report_add(r->report, entry, reader, 0, &r->diag);
	mkhct_progress_file(&r->progress, entry->name, entry->size, reader);
	hct_reader_close(reader);
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
		err = mkhct_compress(r->compressor, &model, NULL, NULL, fd, name, &r->progress.meter,
				     mkhct_progress_tick, &r->progress, &r->diag);
	mkhct_model_close(&model);
	if (!err && fchmod(fd, entry->mode) != 0)
		err = hct_fail_errno(&r->diag, errno, "%s: cannot be given its mode", name);
	return err ? err : report_model(r, entry, fd, name);
}

static hct_error write_carried(struct run *r, const struct mkhct_entry *entry, int fd,
			       const char *name)
{
	uint64_t checksum;
	hct_error err = mkhct_carry(entry, fd, name, &r->progress.meter, mkhct_progress_tick,
				    &r->progress, &checksum, &r->diag);

	if (err)
		return err;
	mkhct_progress_file(&r->progress, entry->name, entry->size, NULL);
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

static hct_error print_result(struct run *r, double seconds)
{
	hct_error err = HCT_OK;

	if (r->options.json)
		err = mkhct_report_print_json(r->report, stdout, &r->diag);
	else if (!r->options.quiet)
		mkhct_report_print_table(r->report, seconds, stdout);
	errno = 0;
	if (!err && (fflush(stdout) != 0 || ferror(stdout)))
		err = hct_fail_errno(
			&r->diag, errno ? errno : EIO,
			"the bundle is written, but not the report to standard output");
	return err;
}

static hct_error run(struct run *r)
{
	const struct mkhct_options *o = &r->options;
	struct mkhct_source *source = &r->source;
	double seconds;
	hct_error err;

	err = mkhct_source_scan(o->source, source, &r->diag);
	if (!err)
		err = mkhct_output_open(o->out, source, o->force, &r->output, &r->diag);
	if (!err)
		err = mkhct_shards_check(source, &r->diag);
	if (!err)
		err = check_files(r);
	if (!err)
		err = mkhct_compressor_create(o->jobs, &r->compressor, &r->diag);
	if (!err)
		err = mkhct_report_create(source, &r->report, &r->diag);
	if (err)
		return err;
	r->begun = 1;
	err = mkhct_output_begin(r->output, &r->diag);
	if (err)
		return err;
	mkhct_progress_start(&r->progress, stderr, o->quiet, o->verbose,
			     source->model_bytes + source->carried_bytes);
	warn_of_environment(r);
	warn_of_small_space(r);
	warn_of_baggage(r);
	for (size_t i = 0; !err && i < source->count; i++)
		err = write_entry(r, &source->entries[i]);
	mkhct_progress_clear(&r->progress);
	seconds = hct_meter_now() - r->progress.meter.start;
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
	mkhct_compressor_free(r.compressor);
	mkhct_report_free(r.report);
	clean = mkhct_output_close(r.output);
	if (err && r.begun && clean)
		fprintf(stderr, "mkhct: %s; %s is as it was before\n", r.diag.text, r.options.out);
	else if (err)
		fprintf(stderr, "mkhct: %s\n", r.diag.text);
	if (!clean)
		fprintf(stderr, "mkhct: %s: part files of this run could not be removed\n",
			r.options.out);
	mkhct_source_free(&r.source);
	return hct_error_exit_code(err);
}
