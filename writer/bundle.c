#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/carry.h"
#include "writer/interrupt.h"
#include "writer/ledger.h"
#include "writer/model.h"
#include "writer/names.h"
#include "writer/page.h"
#include "writer/tensors.h"
#include "writer/verify.h"
#include "writer/work.h"

#define VERIFIED "verified" /* of a completed entry in the checkpoint */

/* A checkpoint of many tensors takes long to save: then saves are to take a tenth of the time. */
#define BIG     (64u << 10) /* bytes */
#define BETWEEN 9           /* times what a save took */

/* One model that is being written. */
struct work {
	struct mkhct_bundle *b;
	size_t entry;
	const struct mkhct_model *model;
	const struct mkhct_model_goals *goals;
	struct mkhct_result *results;
	uint64_t *stored; /* bytes of each tensor, once it is whole */
	struct mkhct_ledger *ledger;
	int fd;
	const char *name;
	double not_before; /* monotonic seconds: until then no save is due */
	struct hct_diag *diag;
};

static hct_error no_memory(struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the checkpoint");
}

static struct mkhct_checkpoint *checkpoint_of(const struct mkhct_bundle *b)
{
	return mkhct_output_checkpoint(b->output);
}

/* A struct mkhct_task's save. */
static hct_error save(void *arg, const struct mkhct_standing *standing, struct hct_diag *diag)
{
	struct work *w = arg;
	struct mkhct_checkpoint *c = checkpoint_of(w->b);
	double start = hct_meter_now(), end;
	char *list = mkhct_tensors_list(&w->model->st, w->results, w->stored, standing);
	int rc = list ? 0 : -1;
	hct_error err;

	if (!rc)
		rc = mkhct_checkpoint_set_progress(c, w->entry, standing);
	if (!rc)
		rc = mkhct_checkpoint_set_tensors(c, w->entry, list);
	free(list);
	err = rc ? no_memory(diag) : mkhct_output_save(w->b->output, diag);
	if (err)
		return err;
	end = hct_meter_now();
	if (mkhct_output_saved_bytes(w->b->output) >= BIG)
		w->not_before = end + BETWEEN * (end - start);
	mkhct_events_checkpoint(w->b->progress->events, w->model->entry->name, standing->tensors,
				standing->bytes);
	return mkhct_events_check(w->b->progress->events, diag);
}

static void tensor_done(void *arg, size_t tensor, uint64_t stored_bytes)
{
	struct work *w = arg;

	w->stored[tensor] = stored_bytes;
	mkhct_progress_tensor(w->b->progress, &w->model->st.tensors[tensor], &w->results[tensor],
			      stored_bytes);
}

/* A struct mkhct_task's warn. */
static void warn(void *arg, const char *line)
{
	const struct work *w = arg;
	char shown[2048];

	mkhct_progress_note(w->b->progress, "mkhct: warning: %s",
			    mkhct_name_printable(line, shown, sizeof(shown)));
}

/* Models -------------------------------------------------------------------------------- */

/* A sample of it is measured, from the file. */
static hct_error verify(struct work *w, const hct_reader *reader)
{
	const struct mkhct_options *o = w->b->options;
	double start = hct_meter_now();
	uint64_t bytes = 0;
	hct_error err;

	if (w->b->lossless && !o->sample_given)
		return HCT_OK;
	err = mkhct_verify(w->b->compressor, w->model, reader, w->fd, w->name, o->quality_sample,
			   w->results, mkhct_progress_tick, w->b->progress, w->diag);
	for (size_t i = 0; i < w->model->st.count; i++)
		if (w->results[i].verified)
			bytes += hct_tensor_bytes(&w->model->st.tensors[i]);
	mkhct_work_verified(&w->b->progress->meter, bytes, hct_meter_now() - start);
	return err;
}

static void coding_of(const void *reader, size_t i, struct hct_coding *out)
{
	hct_reader_coding(reader, i, out);
}

/* The reader checks the structure of what was written and knows what each tensor takes. */
static hct_error report_model(struct work *w, uint64_t *bytes)
{
	struct mkhct_written written = {
		.st = &w->model->st, .coding = coding_of, .goals = w->goals, .results = w->results};
	int copy = fcntl(w->fd, F_DUPFD_CLOEXEC, 0);
	hct_reader *reader;
	hct_error err;

	if (copy < 0)
		return hct_fail_errno(w->diag, errno, "%s: cannot be read back", w->name);
	err = hct_reader_open_fd(copy, w->name, &reader, w->diag);
	if (err)
		return err;
	err = verify(w, reader);
	written.arg = reader;
	written.sha256 = hct_reader_source(reader)->sha256;
	*bytes = written.file_bytes = hct_reader_file_bytes(reader);
	if (!err)
		err = mkhct_report_add(w->b->report, w->model->entry, &written, 0, w->diag);
	if (!err)
		mkhct_progress_file(w->b->progress, w->model->entry->name, w->model->entry->size,
				    reader, w->results);
	hct_reader_close(reader);
	return err;
}

/* Notes whether --verify has seen all of the entry. */
static int note_verified(const struct mkhct_bundle *b, size_t entry)
{
	cJSON *item = mkhct_checkpoint_entry(checkpoint_of(b), entry);

	cJSON_DeleteItemFromObjectCaseSensitive(item, VERIFIED);
	return b->options->verify && !cJSON_AddTrueToObject(item, VERIFIED) ? -1 : 0;
}

/* The entry is written. */
static hct_error complete(struct mkhct_bundle *b, size_t entry, int fd, uint64_t bytes,
			  struct hct_diag *diag)
{
	char *node = mkhct_report_node(b->report);
	hct_error err = HCT_ERR_NOMEM;

	if (node && note_verified(b, entry) == 0)
		err = mkhct_output_complete(b->output, entry, fd, bytes, node, diag);
	else
		no_memory(diag);
	cJSON_free(node);
	return err;
}

/* What was written is not what is read back. */
static int is_bad_data(hct_error err)
{
	return err == HCT_ERR_CHECKSUM || err == HCT_ERR_DIGEST || err == HCT_ERR_CORRUPT ||
	       err == HCT_ERR_UNFINISHED || err == HCT_ERR_NOT_HCT;
}

/* To look at the same bytes again would help nobody: the file is to be made again. */
static hct_error drop_file(struct work *w, hct_error err)
{
	const char *name = w->model->entry->name;

	if (mkhct_checkpoint_set_pending(checkpoint_of(w->b), w->entry) != 0 ||
	    mkhct_output_save(w->b->output, NULL) != HCT_OK)
		return hct_fail(w->diag, err, "%s; %s cannot be made again without --restart",
				w->diag->text, name);
	return hct_fail(w->diag, err, "%s; the next run makes %s again", w->diag->text, name);
}

static hct_error write_mapped(struct work *w)
{
	const struct mkhct_options *o = w->b->options;
	struct mkhct_progress *progress = w->b->progress;
	struct mkhct_task task = {.options = w->b->recipe,
				  .goals = w->b->lossless ? NULL : w->goals->goals,
				  .verify = o->verify,
				  .results = w->results,
				  .ledger = w->ledger,
				  .save = save,
				  .tensor_done = tensor_done,
				  .warn = warn,
				  .arg = w,
				  .every_tensors = (unsigned)o->interval_tensors,
				  .every_seconds = o->interval_seconds,
				  .not_before = &w->not_before};
	uint64_t bytes = 0;
	hct_error err;

	for (size_t i = 0; i < mkhct_ledger_count(w->ledger); i++) {
		struct hct_appended t;
		struct mkhct_result unused;

		mkhct_ledger_tensor(w->ledger, i, &t, &unused);
		w->stored[i] = hct_appended_bytes(&t);
	}
	mkhct_progress_model(progress, w->model->entry->name, w->model->entry->size);
	err = mkhct_compress(w->b->compressor, w->model, &task, w->fd, w->name, &progress->meter,
			     mkhct_progress_tick, progress, w->diag);
	if (!err && fchmod(w->fd, w->model->entry->mode) != 0)
		err = hct_fail_errno(w->diag, errno, "%s: cannot be given its mode", w->name);
	if (!err) {
		err = report_model(w, &bytes);
		if (is_bad_data(err)) /* what mkhct_compress finds it takes back itself */
			return drop_file(w, err);
	}
	return err ? err : complete(w->b, w->entry, w->fd, bytes, w->diag);
}

static const struct mkhct_model_goals *goals_of(const struct mkhct_bundle *b,
						const struct mkhct_entry *entry)
{
	for (size_t i = 0; i < b->goals->count; i++)
		if (b->goals->models[i].entry == entry)
			return &b->goals->models[i];
	return NULL;
}

/* What an earlier run has done of an entry is of no use, and why. */
static hct_error begin_anew(struct mkhct_bundle *b, size_t i, const char *why,
			    struct hct_diag *diag)
{
	mkhct_progress_note(
		b->progress,
		"mkhct: warning: %s was written by an earlier run and %s; it is written "
		"again",
		b->source->entries[i].name, why);
	if (mkhct_checkpoint_set_pending(checkpoint_of(b), i) != 0)
		return no_memory(diag);
	return mkhct_output_save(b->output, diag); /* before anything of it is written over */
}

/* With the ledger's file, of which `bytes` count.  To run again would not help where these are
 * damaged: then the model is begun anew. */
static hct_error open_ledger(struct work *w, int fd, uint64_t bytes)
{
	hct_error err = mkhct_ledger_open(fd, w->name, bytes, &w->ledger, w->diag);

	if (!err && mkhct_ledger_count(w->ledger) > w->model->st.count) {
		mkhct_ledger_free(w->ledger);
		w->ledger = NULL;
		err = HCT_ERR_CORRUPT;
	}
	if (err != HCT_ERR_CORRUPT)
		return err;
	err = begin_anew(w->b, w->entry, "its ledger is damaged", w->diag);
	return err ? err : mkhct_ledger_open(fd, w->name, 0, &w->ledger, w->diag);
}

/* With the model mapped and its part file open. */
static hct_error write_open(struct work *w)
{
	struct mkhct_state state;
	size_t count;
	int ledger = -1;
	hct_error err;

	w->goals = goals_of(w->b, w->model->entry);
	if (!w->goals || w->goals->count != w->model->st.count)
		return hct_fail(
			w->diag, HCT_ERR_CHANGED,
			"%s: changed while it was read; run again when nothing writes to it",
			w->model->entry->path);
	count = w->goals->count + 1;
	mkhct_checkpoint_state(checkpoint_of(w->b), w->entry, &state);
	w->results = calloc(count, sizeof(*w->results));
	w->stored = calloc(count, sizeof(*w->stored));
	if (w->results && w->stored)
		err = mkhct_output_ledger(w->b->output, w->entry, &ledger, w->diag);
	else
		err = hct_fail(w->diag, HCT_ERR_NOMEM, "%s: out of memory", w->model->entry->path);
	if (!err)
		err = open_ledger(w, ledger, state.ledger_bytes);
	if (!err)
		err = write_mapped(w);
	mkhct_ledger_free(w->ledger);
	if (ledger >= 0)
		close(ledger);
	free(w->results);
	free(w->stored);
	return err;
}

static hct_error write_model(struct mkhct_bundle *b, size_t i, int fd, const char *name,
			     struct hct_diag *diag)
{
	struct mkhct_model model;
	struct work w = {.b = b, .entry = i, .model = &model, .fd = fd, .name = name, .diag = diag};
	hct_error err = mkhct_model_open(&b->source->entries[i], &model, diag);

	if (err)
		return err;
	err = mkhct_model_map(&model, diag);
	if (!err)
		err = write_open(&w);
	mkhct_model_close(&model);
	return err;
}

/* All entries --------------------------------------------------------------------------- */

/* One other file that is being copied. */
struct copy_work {
	struct mkhct_bundle *b;
	size_t entry;
};

/* A struct mkhct_carry_log's save. */
static hct_error save_copy(void *arg, uint64_t bytes, uint64_t checksum, struct hct_diag *diag)
{
	const struct copy_work *w = arg;
	hct_error err;

	if (mkhct_checkpoint_set_copied(checkpoint_of(w->b), w->entry, bytes, checksum) != 0)
		return no_memory(diag);
	err = mkhct_output_save(w->b->output, diag);
	if (err)
		return err;
	mkhct_events_checkpoint(w->b->progress->events, w->b->source->entries[w->entry].name, 0,
				bytes);
	return mkhct_events_check(w->b->progress->events, diag);
}

static hct_error write_carried(struct mkhct_bundle *b, size_t i, int fd, const char *name,
			       struct hct_diag *diag)
{
	const struct mkhct_entry *entry = &b->source->entries[i];
	struct copy_work work = {b, i};
	struct mkhct_carry_log log = {
		.every_seconds = b->options->interval_seconds, .save = save_copy, .arg = &work};
	struct mkhct_state state;
	double start = hct_meter_now();
	uint64_t checksum;
	hct_error err;

	mkhct_checkpoint_state(checkpoint_of(b), i, &state);
	if (state.status == MKHCT_IN_PROGRESS) {
		log.bytes = state.bytes;
		log.checksum = state.checksum;
	}
	err = mkhct_carry_on(entry, fd, name, &log, &b->progress->meter, mkhct_progress_tick,
			     b->progress, &checksum, diag);
	mkhct_work_carried(&b->progress->meter, entry->size, hct_meter_now() - start);
	if (err)
		return err;
	mkhct_progress_file(b->progress, entry->name, entry->size, NULL, NULL);
	err = mkhct_report_add(b->report, entry, NULL, checksum, diag);
	return err ? err : complete(b, i, fd, entry->size, diag);
}

static hct_error write_file(struct mkhct_bundle *b, size_t i, struct hct_diag *diag)
{
	const char *name;
	hct_error err;
	int fd;

	err = mkhct_output_create(b->output, i, &fd, &name, diag);
	if (err)
		return err;
	err = b->source->entries[i].kind == MKHCT_MODEL ? write_model(b, i, fd, name, diag)
							: write_carried(b, i, fd, name, diag);
	if (close(fd) != 0 && !err)
		err = hct_fail_errno(diag, errno, "%s: cannot be written to disk", name);
	if (!err)
		err = mkhct_events_check(b->progress->events, diag);
	return err ? err : mkhct_interrupt_check(diag);
}

/* --verify of a model that a run without it has completed.  Errors: as for mkhct_verify_file. */
static hct_error verify_completed(struct mkhct_bundle *b, size_t i, struct hct_diag *diag)
{
	const cJSON *item = mkhct_checkpoint_entry(checkpoint_of(b), i);
	const char *name;
	hct_error err;
	int fd;

	if (!b->goals || !b->options->verify || b->source->entries[i].kind != MKHCT_MODEL ||
	    cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, VERIFIED)))
		return HCT_OK;
	err = mkhct_output_reopen(b->output, i, &fd, &name, diag);
	if (err)
		return err;
	err = mkhct_verify_file(b->compressor, fd, name, mkhct_progress_tick, b->progress, diag);
	close(fd);
	if (!err && note_verified(b, i) != 0)
		err = no_memory(diag);
	return err;
}

/* What an earlier run has done, or begun; or that is found out to be gone. */
static hct_error take_over(struct mkhct_bundle *b, size_t i, struct mkhct_state *state,
			   struct hct_diag *diag)
{
	const char *why = "is not there any more, or not whole";
	hct_error err;

	if (state->status == MKHCT_IN_PROGRESS && mkhct_output_has(b->output, i))
		return HCT_OK;
	if (state->status == MKHCT_COMPLETED && mkhct_output_has(b->output, i) && state->report) {
		err = verify_completed(b, i, diag);
		why = "is damaged";
		if (!err) {
			err = mkhct_report_add_node(b->report, state->report, diag);
			why = "what was noted of it is damaged";
		}
		if (!err)
			hct_meter_skip(&b->progress->meter, b->source->entries[i].size);
		if (!is_bad_data(err))
			return err;
	}
	if (!b->goals)
		return hct_fail(diag, HCT_ERR_NOT_FOUND, "%s: %s; run its part again",
				b->source->entries[i].name, why);
	state->status = MKHCT_PENDING;
	return begin_anew(b, i, why, diag);
}

hct_error mkhct_bundle_write(struct mkhct_bundle *b, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < b->source->count; i++) {
		const struct mkhct_entry *entry = &b->source->entries[i];
		struct mkhct_state state;

		if (entry->kind == MKHCT_FOLDER) {
			err = mkhct_report_add(b->report, entry, NULL, 0, diag);
			continue;
		}
		mkhct_checkpoint_state(checkpoint_of(b), i, &state);
		if (state.status == MKHCT_COMPLETED || state.status == MKHCT_IN_PROGRESS)
			err = take_over(b, i, &state, diag);
		if (!err && (state.status == MKHCT_PENDING || state.status == MKHCT_IN_PROGRESS))
			err = write_file(b, i, diag);
	}
	mkhct_progress_clear(b->progress);
	mkhct_checkpoint_count(checkpoint_of(b), "seconds", hct_meter_now() - b->started);
	/* Best effort: the checkpoint before it stays good. */
	if (err)
		(void)mkhct_output_save(b->output, NULL);
	return err;
}

/* The end ------------------------------------------------------------------------------- */

static hct_error write_report(struct mkhct_bundle *b, size_t which, const char *text, size_t length,
			      struct hct_diag *diag)
{
	const char *name;
	hct_error err;
	int fd;

	err = mkhct_output_create(b->output, b->source->count + which, &fd, &name, diag);
	if (err)
		return err;
	err = hct_write_all(fd, name, text, length, diag);
	if (!err && fchmod(fd, 0644) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be given its mode", name);
	if (err)
		close(fd);
	else
		err = mkhct_output_sync(fd, name, diag);
	return err;
}

static hct_error write_page(struct mkhct_bundle *b, struct hct_diag *diag)
{
	char *text = NULL;
	size_t length;
	FILE *stream = open_memstream(&text, &length);
	hct_error err;

	if (!stream)
		return no_memory(diag);
	err = mkhct_page_write(mkhct_report_document(b->report), stream, diag);
	if (fclose(stream) != 0 && !err)
		err = no_memory(diag);
	if (!err)
		err = write_report(b, 1, text, length, diag);
	free(text);
	return err;
}

hct_error mkhct_bundle_finish(struct mkhct_bundle *b, double *seconds, struct hct_diag *diag)
{
	double before = mkhct_checkpoint_counted(checkpoint_of(b), "seconds"), now;
	double written = hct_meter_now();
	cJSON *item;
	char *text;
	hct_error err;

	*seconds = before;
	text = mkhct_report_full(b->report, *seconds);
	if (!text)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	cJSON_free(text);
	err = write_page(b, diag);
	if (err)
		return err;
	/* The page takes its time, too. */
	now = hct_meter_now();
	*seconds = before + (now - written);
	mkhct_checkpoint_count(checkpoint_of(b), "seconds", now - written);
	item = cJSON_GetObjectItemCaseSensitive(mkhct_report_document(b->report), "seconds");
	if (item)
		cJSON_SetNumberValue(item, round(*seconds * 1e3) / 1e3);
	text = cJSON_Print(mkhct_report_document(b->report));
	if (!text)
		return no_memory(diag);
	err = write_report(b, 0, text, strlen(text), diag);
	cJSON_free(text);
	if (!err)
		err = mkhct_interrupt_check(diag);
	return err ? err : mkhct_output_commit(b->output, diag);
}

hct_error mkhct_flush_output(const char *what, struct hct_diag *diag)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return HCT_OK;
	return hct_fail_errno(diag, errno ? errno : EIO, "%s", what);
}

hct_error mkhct_bundle_print(const struct mkhct_bundle *b, double seconds, struct hct_diag *diag)
{
	struct mkhct_events *events = b->progress->events;
	char *text = events ? mkhct_report_brief(b->report) : NULL;
	hct_error err = HCT_OK;

	if (events && !text)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the report");
	if (events) {
		mkhct_events_report(events, text);
		err = mkhct_events_check(events, diag);
	}
	cJSON_free(text);
	if (!b->options->json && !b->options->quiet)
		mkhct_report_print_table(b->report, seconds, stdout);
	return err ? err
		   : mkhct_flush_output(
			     "the bundle is written, but not the report to standard output", diag);
}
