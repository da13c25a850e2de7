#include "ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/bytes.h"
#include "codec/checksum.h"
#include "codec/codec.h"
#include "codec/io.h"

#define FRAME     12 /* length and checksum */
#define HEAD      64 /* of a record: see pack_head */
#define PLAN      48 /* of a record that begins a tensor: see pack_plan */
#define MAX_BYTES (UINT64_C(1) << 31)
#define MAX_WHY   4096

enum { FRESH = 1, DROP = 2 }; /* what a record does: begins a tensor, drops one */

/* One tensor as it was read. */
struct item {
	struct hct_appended appended; /* its pointers are not used */
	struct mkhct_result result;
	uint8_t *params, *extents;
	size_t extents_length;
	char *why;
};

struct mkhct_ledger {
	int fd;
	char *name;
	uint64_t bytes;
	struct item *items;
	size_t count, capacity;
	/* Up to where the appender's state has been written. */
	size_t saved;    /* tensors */
	int open;        /* 1: the last of them may get more chunks, */
	uint64_t chunks; /* and has these */
};

static hct_error no_memory(const struct mkhct_ledger *l, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", l->name);
}

/* A record's length has 32 bits, and what is written is to be read again. */
static hct_error too_long(const char *name, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_LIMIT,
			"%s: its ledger would have more than 2 GiB; cut the model into several "
			"files",
			name);
}

static hct_error corrupt(const struct mkhct_ledger *l, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_CORRUPT,
			"%s: its ledger is not what mkhct wrote; give --restart to begin anew",
			l->name);
}

/* Records -----------------------------------------------------------------------------
 *
 * A record is a head; when it is FRESH the tensor's plan, tables and `why`; and the extents of
 * chunks first to end. */

struct head {
	uint64_t tensor, first, end;
	double energy, decoded_energy, error; /* of the chunks up to end */
	uint32_t retries, failed, flags;
};

static void pack_head(const struct head *h, uint8_t *p)
{
	hct_store64(p, h->tensor);
	hct_store64(p + 8, h->first);
	hct_store64(p + 16, h->end);
	hct_store_f64(p + 24, h->energy);
	hct_store_f64(p + 32, h->decoded_energy);
	hct_store_f64(p + 40, h->error);
	hct_store32(p + 48, h->retries);
	hct_store32(p + 52, h->failed);
	hct_store32(p + 56, h->flags);
	hct_store32(p + 60, 0);
}

static struct head unpack_head(const uint8_t *p)
{
	return (struct head){.tensor = hct_load64(p),
			     .first = hct_load64(p + 8),
			     .end = hct_load64(p + 16),
			     .energy = hct_load_f64(p + 24),
			     .decoded_energy = hct_load_f64(p + 32),
			     .error = hct_load_f64(p + 40),
			     .retries = hct_load32(p + 48),
			     .failed = hct_load32(p + 52),
			     .flags = hct_load32(p + 56)};
}

/* The number of a codec by its name; behind all of them for "empty", of a tensor without chunks. */
static unsigned codec_of(const char *name)
{
	unsigned id = 0;

	while (id < HCT_CODEC_COUNT && strcmp(hct_codec_find(id)->name, name) != 0)
		id++;
	return id;
}

static void pack_plan(const struct hct_appended *t, const struct hct_plan_info *plan, uint8_t *p)
{
	p[0] = (uint8_t)t->codec;
	p[1] = (uint8_t)t->layers;
	p[2] = (uint8_t)codec_of(plan->codec);
	p[3] = 0;
	hct_store32(p + 4, t->chunk_bytes);
	hct_store64(p + 8, t->chunk_count);
	hct_store32(p + 16, t->params_length);
	hct_store32(p + 20, plan->why ? (uint32_t)strlen(plan->why) : 0);
	hct_store32(p + 24, plan->tile_rows);
	hct_store32(p + 28, plan->tile_columns);
	hct_store_f64(p + 32, plan->bits);
	hct_store_f64(p + 40, plan->relative_squared_error);
}

/* Reading ----------------------------------------------------------------------------- */

static int add_item(struct mkhct_ledger *l)
{
	if (l->count == l->capacity) {
		size_t capacity = l->capacity ? 2 * l->capacity : 64;
		struct item *grown = reallocarray(l->items, capacity, sizeof(*grown));

		if (!grown)
			return -1;
		l->items = grown;
		l->capacity = capacity;
	}
	memset(&l->items[l->count++], 0, sizeof(*l->items));
	return 0;
}

static void free_last(struct mkhct_ledger *l)
{
	struct item *last = &l->items[--l->count];

	free(last->params);
	free(last->extents);
	free(last->why);
}

/* A copy of n bytes with a 0 behind it, or NULL. */
static void *copy_of(const uint8_t *bytes, size_t n)
{
	uint8_t *copy = malloc(n + 1);

	if (copy) {
		memcpy(copy, bytes, n);
		copy[n] = 0;
	}
	return copy;
}

/* The plan, tables and `why` of a new tensor; *used: bytes that they take. */
static hct_error read_plan(struct mkhct_ledger *l, const uint8_t *p, size_t length, size_t *used,
			   struct hct_diag *diag)
{
	uint32_t params, why;
	struct item *item;

	if (length < PLAN || p[2] > HCT_CODEC_COUNT || p[1] < 1 || p[1] > HCT_GOAL_MAX_LAYERS)
		return corrupt(l, diag);
	params = hct_load32(p + 16);
	why = hct_load32(p + 20);
	if (params > length - PLAN || why > MAX_WHY || why > length - PLAN - params)
		return corrupt(l, diag);
	if (add_item(l) != 0)
		return no_memory(l, diag);
	item = &l->items[l->count - 1];
	item->params = copy_of(p + PLAN, params);
	item->why = why ? copy_of(p + PLAN + params, why) : NULL;
	if (!item->params || (why && !item->why))
		return no_memory(l, diag);
	item->appended = (struct hct_appended){.codec = p[0],
					       .layers = p[1],
					       .chunk_bytes = hct_load32(p + 4),
					       .chunk_count = hct_load64(p + 8),
					       .params_length = params};
	item->result.plan = (struct hct_plan_info){
		.codec = p[2] < HCT_CODEC_COUNT ? hct_codec_find(p[2])->name : "empty",
		.why = item->why,
		.layers = p[1],
		.tile_rows = hct_load32(p + 24),
		.tile_columns = hct_load32(p + 28),
		.bits = hct_load_f64(p + 32),
		.relative_squared_error = hct_load_f64(p + 40)};
	*used = PLAN + params + why;
	return HCT_OK;
}

static hct_error read_extents(struct mkhct_ledger *l, struct item *item, const uint8_t *p,
			      size_t length, uint64_t chunks, struct hct_diag *diag)
{
	size_t unit = (size_t)HCT_APPENDED_EXTENT * item->appended.layers;
	uint8_t *grown;

	if (length / unit != chunks || length % unit != 0)
		return corrupt(l, diag);
	grown = realloc(item->extents, item->extents_length + length + 1);
	if (!grown)
		return no_memory(l, diag);
	memcpy(grown + item->extents_length, p, length);
	item->extents = grown;
	item->extents_length += length;
	return HCT_OK;
}

static hct_error read_record(struct mkhct_ledger *l, const uint8_t *p, size_t length,
			     struct hct_diag *diag)
{
	struct item *item;
	struct head h;
	size_t used = 0;
	hct_error err = HCT_OK;

	if (length < HEAD)
		return corrupt(l, diag);
	h = unpack_head(p);
	if (h.flags != FRESH && !l->count)
		return corrupt(l, diag);
	if (h.flags & DROP) {
		if (h.tensor != l->count - 1)
			return corrupt(l, diag);
		free_last(l);
		return HCT_OK;
	}
	if (h.flags & FRESH ? h.tensor != l->count : h.tensor != l->count - 1)
		return corrupt(l, diag);
	if (h.flags & FRESH)
		err = read_plan(l, p + HEAD, length - HEAD, &used, diag);
	if (err)
		return err;
	item = &l->items[h.tensor];
	if (h.first != item->appended.chunks || h.first > h.end ||
	    h.end > item->appended.chunk_count)
		return corrupt(l, diag);
	item->appended.chunks = h.end;
	item->appended.energy = item->result.energy = h.energy;
	item->appended.error = item->result.error = h.error;
	item->result.decoded_energy = h.decoded_energy;
	item->result.retries = h.retries;
	item->result.failed = h.failed != 0;
	return read_extents(l, item, p + HEAD + used, length - HEAD - used, h.end - h.first, diag);
}

static hct_error read_all(struct mkhct_ledger *l, const uint8_t *p, size_t length,
			  struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	while (!err && length) {
		size_t n;

		if (length < FRAME)
			return corrupt(l, diag);
		n = hct_load32(p);
		if (n > length - FRAME || hct_checksum(p + FRAME, n) != hct_load64(p + 4))
			return corrupt(l, diag);
		err = read_record(l, p + FRAME, n, diag);
		p += FRAME + n;
		length -= FRAME + n;
	}
	return err;
}

hct_error mkhct_ledger_open(int fd, const char *name, uint64_t bytes, struct mkhct_ledger **out,
			    struct hct_diag *diag)
{
	struct mkhct_ledger *l = calloc(1, sizeof(*l));
	uint8_t *text = NULL;
	hct_error err = HCT_OK;

	*out = NULL;
	if (bytes > MAX_BYTES) {
		err = hct_fail(diag, HCT_ERR_CORRUPT,
			       "%s: its ledger is not what mkhct wrote; give --restart to begin "
			       "anew",
			       name);
		goto out;
	}
	if (l)
		l->name = strdup(name);
	text = malloc((size_t)bytes + 1);
	if (!l || !l->name || !text) {
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
		goto out;
	}
	l->fd = fd;
	l->bytes = bytes;
	err = hct_read_at(fd, name, text, (size_t)bytes, 0, diag);
	if (!err)
		err = read_all(l, text, (size_t)bytes, diag);
	if (!err && ftruncate(fd, (off_t)bytes) != 0)
		err = hct_fail_errno(diag, errno, "%s: its ledger cannot be cut", name);
	if (!err && l->count) {
		l->saved = l->count;
		l->open = 1;
		l->chunks = l->items[l->count - 1].appended.chunks;
	}
out:
	free(text);
	if (err)
		mkhct_ledger_free(l);
	else
		*out = l;
	return err;
}

void mkhct_ledger_free(struct mkhct_ledger *l)
{
	if (!l)
		return;
	while (l->count)
		free_last(l);
	free(l->items);
	free(l->name);
	free(l);
}

uint64_t mkhct_ledger_bytes(const struct mkhct_ledger *l)
{
	return l->bytes;
}

size_t mkhct_ledger_count(const struct mkhct_ledger *l)
{
	return l->count;
}

void mkhct_ledger_tensor(const struct mkhct_ledger *l, size_t i, struct hct_appended *appended,
			 struct mkhct_result *result)
{
	*appended = l->items[i].appended;
	appended->params = l->items[i].params;
	appended->extents = l->items[i].extents;
	*result = l->items[i].result;
}

/* Writing ----------------------------------------------------------------------------- */

/* The record of tensor i from chunk `first` on, with room for its frame; fresh: the first one of
 * it. NULL without memory. */
static uint8_t *make_record(size_t i, uint64_t first, int fresh, const struct hct_appended *t,
			    const struct mkhct_result *r, size_t *length)
{
	const struct head head = {.tensor = i,
				  .first = first,
				  .end = t->chunks,
				  .energy = r->energy,
				  .decoded_energy = r->decoded_energy,
				  .error = r->error,
				  .retries = r->retries,
				  .failed = (uint32_t)r->failed,
				  .flags = fresh ? FRESH : 0};
	size_t skipped = (size_t)first * t->layers * HCT_APPENDED_EXTENT;
	size_t extents = (size_t)(t->chunks - first) * t->layers * HCT_APPENDED_EXTENT;
	size_t why = r->plan.why ? strlen(r->plan.why) : 0;
	size_t plan = fresh ? PLAN + t->params_length + why : 0;
	uint8_t *record, *p;

	*length = FRAME + HEAD + plan + extents;
	record = malloc(*length);
	if (!record)
		return NULL;
	p = record + FRAME;
	pack_head(&head, p);
	p += HEAD;
	if (fresh) {
		pack_plan(t, &r->plan, p);
		if (t->params_length)
			memcpy(p + PLAN, t->params, t->params_length);
		if (why)
			memcpy(p + PLAN + t->params_length, r->plan.why, why);
		p += plan;
	}
	if (extents)
		memcpy(p, t->extents + skipped, extents);
	return record;
}

/* Puts the frame on a record and the record at the end of the file. */
static hct_error write_record(struct mkhct_ledger *l, uint8_t *record, size_t length,
			      struct hct_diag *diag)
{
	hct_error err;

	if (length > MAX_BYTES || l->bytes > MAX_BYTES - length)
		return too_long(l->name, diag);
	hct_store32(record, (uint32_t)(length - FRAME));
	hct_store64(record + 4, hct_checksum(record + FRAME, length - FRAME));
	if (lseek(l->fd, (off_t)l->bytes, SEEK_SET) < 0)
		return hct_fail_errno(diag, errno, "%s: its ledger cannot be written", l->name);
	err = hct_write_all(l->fd, l->name, record, length, diag);
	if (!err)
		l->bytes += length;
	return err;
}

hct_error mkhct_ledger_save(struct mkhct_ledger *l, const hct_appender *a,
			    const struct mkhct_result *results, struct hct_diag *diag)
{
	for (size_t i = l->saved - (size_t)l->open; i < hct_appender_count(a); i++) {
		uint64_t first = i < l->saved ? l->chunks : 0;
		struct hct_appended t;
		uint8_t *record;
		size_t length;
		hct_error err;

		hct_appender_describe(a, i, &t);
		if (i < l->saved && first == t.chunks)
			continue;
		if (t.chunks == 0 && t.chunk_count > 0)
			break;
		record = make_record(i, first, i >= l->saved, &t, &results[i], &length);
		if (!record)
			return no_memory(l, diag);
		err = write_record(l, record, length, diag);
		free(record);
		if (err)
			return err;
		l->saved = i + 1;
		l->open = 1;
		l->chunks = t.chunks;
	}
	return HCT_OK;
}

hct_error mkhct_ledger_drop(struct mkhct_ledger *l, size_t i, struct hct_diag *diag)
{
	const struct head head = {.tensor = i, .flags = DROP};
	uint8_t record[FRAME + HEAD];
	hct_error err;

	if (i + 1 != l->saved)
		return HCT_OK;
	pack_head(&head, record + FRAME);
	err = write_record(l, record, sizeof(record), diag);
	if (err)
		return err;
	if (l->count == l->saved)
		free_last(l);
	l->saved--;
	l->open = 0; /* all before it are whole */
	return HCT_OK;
}

hct_error mkhct_ledger_sync(struct mkhct_ledger *l, struct hct_diag *diag)
{
	if (fsync(l->fd) != 0)
		return hct_fail_errno(diag, errno, "%s: its ledger cannot be written to disk",
				      l->name);
	return HCT_OK;
}
