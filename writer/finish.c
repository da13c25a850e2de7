#include "finish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "writer/bundle.h"
#include "writer/json.h"
#include "writer/names.h"

#define MAX_PARTS 99999u

struct finish {
	const struct mkhct_options *options;
	const char *out;
	int root;
	unsigned parts;
	struct mkhct_source source;
	char *recipe;
	int lossless;
	struct mkhct_output *output;
	struct mkhct_report *report;
	struct mkhct_progress progress;
	int has_report;
	int done; /* it is finished, whatever becomes of the report */
	struct hct_diag *diag;
};

/* How many parts there are to be, by the first checkpoint that is found. */
static hct_error find_parts(struct finish *f)
{
	int fd = openat(f->root, MKHCT_META_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC), plain = 0;
	unsigned other = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return hct_fail(f->diag, HCT_ERR_NOT_FOUND, "%s: no bundle that is being made",
				f->out);
	}
	while ((d = readdir(dir)) != NULL) {
		unsigned part, parts;
		int end = 0;

		plain |= strcmp(d->d_name, "checkpoint.json") == 0;
		f->has_report |= strcmp(d->d_name, mkhct_name_base(MKHCT_REPORT_NAME)) == 0;
		if (sscanf(d->d_name, "checkpoint-%5u-of-%5u.json%n", &part, &parts, &end) == 2 &&
		    end && !d->d_name[end] && part >= 1 && part <= parts && parts <= MAX_PARTS) {
			if (f->parts && f->parts != parts)
				other = parts;
			else
				f->parts = parts;
		}
	}
	closedir(dir);
	if (other || (f->parts && plain)) {
		unsigned parts = f->parts;

		f->parts = 0; /* of which nothing is known */
		if (!other)
			return hct_fail(f->diag, HCT_ERR_EXISTS,
					"%s: has checkpoints of %u parts and of one run; remove "
					"those that are not of this bundle",
					f->out, parts);
		return hct_fail(f->diag, HCT_ERR_EXISTS,
				"%s: has checkpoints of %u parts and of %u; remove those that are "
				"not of this bundle",
				f->out, parts < other ? parts : other,
				parts < other ? other : parts);
	}
	if (!f->parts && !plain && f->has_report)
		f->done = 1;
	if (f->parts || f->done)
		return HCT_OK;
	return hct_fail(f->diag, HCT_ERR_EXISTS,
			plain ? "%s: is not made in parts; run mkhct SRC OUT again to go on with it"
			      : "%s: no parts of a bundle are there; nothing to finish",
			f->out);
}

/* may_be_gone: *out is NULL then. */
static hct_error read_part(struct finish *f, unsigned part, int may_be_gone,
			   struct mkhct_checkpoint **out)
{
	struct mkhct_output_mode mode = {.part = part, .parts = f->parts};
	char name[MKHCT_STATE_NAME];
	hct_error err;

	err = mkhct_checkpoint_read(f->root, mkhct_output_state_name(&mode, name), f->out, out,
				    f->diag);
	if (err == HCT_ERR_CORRUPT)
		hct_fail(f->diag, err,
			 "%s: the checkpoint of part %u of %u is damaged; run mkhct --shards %u/%u "
			 "with --restart",
			 f->out, part, f->parts, part, f->parts);
	if (!err && !*out && !may_be_gone)
		err = hct_fail(f->diag, HCT_ERR_NOT_FOUND,
			       "%s: part %u of %u is missing; run mkhct --shards %u/%u", f->out,
			       part, f->parts, part, f->parts);
	return err;
}

/* HCT_OK when the part has done all that is its own. */
static hct_error check_done(const struct finish *f, const struct mkhct_checkpoint *c, unsigned part)
{
	for (size_t i = 0; i < mkhct_checkpoint_entries(c); i++) {
		struct mkhct_state state;

		mkhct_checkpoint_state(c, i, &state);
		if (state.status == MKHCT_PENDING || state.status == MKHCT_IN_PROGRESS)
			return hct_fail(
				f->diag, HCT_ERR_NOT_FOUND,
				"%s: part %u of %u is not done; run mkhct --shards %u/%u again",
				f->out, part, f->parts, part, f->parts);
	}
	return HCT_OK;
}

/* The first part says what the bundle is; its output takes over what the others say. */
static hct_error open_first(struct finish *f)
{
	struct mkhct_output_mode mode = {.part = 1, .parts = f->parts, .finish = 1};
	struct mkhct_checkpoint *first;
	hct_error err = read_part(f, 1, 0, &first);

	if (err)
		return err;
	err = check_done(f, first, 1);
	if (!err) {
		err = mkhct_checkpoint_source(first, &f->source, f->diag);
		if (err)
			hct_fail(f->diag, err,
				 "%s: its checkpoint is damaged; make part 1 again, with --restart",
				 f->out);
	}
	if (!err) {
		const cJSON *options = cJSON_GetObjectItemCaseSensitive(
			mkhct_checkpoint_document(first), "options");

		f->recipe = cJSON_PrintUnformatted(options);
		f->lossless = strcmp(mkhct_json_text(options, "mode"), "lossless") == 0;
		if (!f->recipe)
			err = hct_fail(f->diag, HCT_ERR_NOMEM, "out of memory for the options");
	}
	mkhct_checkpoint_free(first);
	return err ? err : mkhct_output_open(f->out, &f->source, &mode, &f->output, f->diag);
}

static hct_error merge(struct finish *f)
{
	/* Once names are given the first part has it all, and the others may be gone. */
	int naming = mkhct_checkpoint_is_naming(mkhct_output_checkpoint(f->output));
	hct_error err = HCT_OK;

	for (unsigned part = 2; !err && part <= f->parts; part++) {
		struct mkhct_checkpoint *c;

		err = read_part(f, part, naming, &c);
		if (err)
			return err;
		if (!c)
			continue;
		err = check_done(f, c, part);
		if (!err)
			err = mkhct_output_merge(f->output, c, part, f->diag);
		mkhct_checkpoint_free(c);
	}
	return err;
}

/* Each .hct file opens, and so has its end and its index. */
static hct_error check_files(struct finish *f)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < f->source.count; i++) {
		const char *name;
		hct_reader *reader;
		int fd;

		if (f->source.entries[i].kind == MKHCT_FOLDER)
			continue;
		err = mkhct_output_reopen(f->output, i, &fd, &name, f->diag);
		if (err)
			return err;
		if (f->source.entries[i].kind == MKHCT_CARRIED) {
			close(fd);
			continue;
		}
		err = hct_reader_open_fd(fd, name, &reader, f->diag);
		if (!err)
			hct_reader_close(reader);
		else if (err != HCT_ERR_IO && err != HCT_ERR_NOMEM)
			hct_fail(f->diag, err, "%s; make its part again, with --restart",
				 f->diag->text);
	}
	return err;
}

static hct_error write_bundle(struct finish *f)
{
	struct mkhct_bundle b = {.options = f->options,
				 .source = &f->source,
				 .recipe = f->recipe,
				 .lossless = f->lossless,
				 .output = f->output,
				 .progress = &f->progress,
				 .started = hct_meter_now()};
	double seconds = 0;
	hct_error err;

	err = mkhct_report_create(&f->source, f->recipe, b.lossless, &f->report, f->diag);
	if (err)
		return err;
	b.report = f->report;
	err = mkhct_output_begin(f->output, NULL, f->diag);
	if (!err)
		err = mkhct_bundle_write(&b, f->diag);
	if (!err)
		err = mkhct_bundle_finish(&b, &seconds, f->diag);
	if (err)
		return err;
	f->done = 1;
	return mkhct_bundle_print(&b, seconds, f->diag);
}

/* Nothing that the parts did is lost, and how to go on, where the line does not say so yet. */
static void say_kept(const struct finish *f, hct_error err)
{
	int may_pass = err == HCT_ERR_IO || err == HCT_ERR_NO_SPACE || err == HCT_ERR_NOMEM ||
		       err == HCT_ERR_INTERRUPTED;

	if (may_pass)
		hct_fail(f->diag, err,
			 "%s; what is done is kept: run mkhct --finish %s again to go on",
			 f->diag->text, f->out);
	else
		hct_fail(f->diag, err, "%s; what is done is kept", f->diag->text);
}

/* To be asked twice, or to be killed behind the last act, is no failure. */
static hct_error say_finished(const struct finish *f)
{
	if (!f->options->quiet && !f->options->json)
		printf("%s is finished already\n", f->out);
	return mkhct_flush_output("standard output cannot be written", f->diag);
}

hct_error mkhct_finish(const struct mkhct_options *options, struct mkhct_events *events,
		       struct hct_diag *diag)
{
	struct finish f = {.options = options, .out = options->out, .root = -1, .diag = diag};
	hct_error err = HCT_OK;

	f.root = open(f.out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f.root < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", f.out);
	mkhct_progress_start(&f.progress, stderr, options->quiet, options->verbose, 0);
	mkhct_progress_listen(&f.progress, events);
	err = find_parts(&f);
	if (!err && f.done) {
		err = say_finished(&f);
		goto out;
	}
	if (!err)
		err = open_first(&f);
	if (!err)
		err = merge(&f);
	if (!err)
		err = check_files(&f);
	if (!err)
		err = write_bundle(&f);
	if (err && f.parts && !f.done)
		say_kept(&f, err);
out:
	mkhct_output_close(f.output);
	mkhct_report_free(f.report);
	cJSON_free(f.recipe);
	mkhct_source_free(&f.source);
	close(f.root);
	return err;
}
