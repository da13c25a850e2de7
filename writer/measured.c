#include "measured.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/bytes.h"
#include "codec/checksum.h"
#include "codec/codec.h"
#include "codec/hct.h"
#include "codec/io.h"
#include "codec/meter.h"
#include "writer/item.h"

#define MAGIC   "HCTMEAS1"
#define BEGIN   24  /* bytes of the file before its records */
#define FRAME   12  /* length and checksum */
#define KEY     64  /* of a record: see pack_key */
#define VALUE   104 /* of a forecast, before its tables: see pack_forecast */
#define LONGEST (KEY + VALUE + HCT_TABLES_MAX)

/* Of a record. */
enum kind { FORECAST = 1, SPECTRUM = 2 };
/* Of a forecast. */
enum { WHY = 1, LOSSY = 2, EXACT = 4 };

/* Where a record lies, by its key. */
struct place {
	uint64_t hash; /* of the key */
	uint64_t at;   /* of the frame */
};

struct mkhct_measured {
	int fd;
	char *name;
	struct mkhct_measured_pace pace;
	struct place *places; /* of what was read, sorted */
	size_t count, capacity;
	uint64_t bytes;   /* of the file */
	unsigned pending; /* records that are not synced */
	double synced;    /* when */
	int kept;
};

static hct_error no_memory(const char *name, struct hct_diag *diag)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
}

/* The fingerprint --------------------------------------------------------------------- */

/* What a checkpoint has to tell whether it is of the same source and options. */
static int describe(cJSON *document, const struct mkhct_checkpoint_of *of)
{
	cJSON *list = cJSON_AddArrayToObject(document, "source"), *item;

	if (!list || !cJSON_AddStringToObject(document, "version", HCT_VERSION) ||
	    !cJSON_AddStringToObject(document, "options", of->options))
		return -1;
	for (size_t i = 0; i < of->source->count; i++)
		if (mkhct_item_add(list, &of->source->entries[i], of->goals, "") != 0)
			return -1;
	cJSON_ArrayForEach(item, list)
	{
		cJSON_DeleteItemFromObjectCaseSensitive(item, "mode");
	}
	return 0;
}

hct_error mkhct_measured_fingerprint(const struct mkhct_checkpoint_of *of, uint64_t *out,
				     struct hct_diag *diag)
{
	cJSON *document = cJSON_CreateObject();
	char *text = NULL;

	if (document && describe(document, of) == 0)
		text = cJSON_PrintUnformatted(document);
	cJSON_Delete(document);
	if (!text)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the checkpoint");
	*out = hct_checksum(text, strlen(text));
	cJSON_free(text);
	return HCT_OK;
}

/* Records ----------------------------------------------------------------------------- */

static void pack_key(enum kind kind, const char *model, size_t tensor, const struct hct_goal *goal,
		     uint8_t p[KEY])
{
	hct_store64(p, hct_checksum(model, strlen(model)));
	hct_store64(p + 8, tensor);
	hct_store32(p + 16, kind);
	hct_store32(p + 20, goal->effort);
	hct_store32(p + 24, goal->transform);
	hct_store32(p + 28, goal->method);
	hct_store_f64(p + 32, goal->relative_squared_error);
	hct_store_f64(p + 40, goal->retention);
	hct_store_f64(p + 48, goal->fp16_ratio);
	hct_store32(p + 56, goal->layers);
	hct_store32(p + 60, 0);
}

/* What stands for the goal of a spectrum. */
static struct hct_goal goal_of_quality(double quality)
{
	return (struct hct_goal){.relative_squared_error = quality};
}

/* The number of a codec by its name; behind all of them for "empty", of a tensor without chunks. */
static unsigned number_of(const char *codec)
{
	unsigned id = 0;

	while (id < HCT_CODEC_COUNT && strcmp(hct_codec_find(id)->name, codec) != 0)
		id++;
	return id;
}

static void pack_forecast(const struct mkhct_forecast *f, uint8_t p[VALUE])
{
	const struct hct_plan_info *plan = &f->result.plan;

	hct_store_f64(p, f->result.energy);
	hct_store_f64(p + 8, f->result.decoded_energy);
	hct_store_f64(p + 16, f->result.error);
	hct_store_f64(p + 24, f->extent_bytes);
	hct_store64(p + 32, f->extents);
	hct_store_f64(p + 40, plan->bits);
	hct_store_f64(p + 48, plan->relative_squared_error);
	hct_store32(p + 56, plan->layers);
	hct_store32(p + 60, plan->tile_rows);
	hct_store32(p + 64, plan->tile_columns);
	hct_store32(p + 68,
		    (plan->why ? WHY : 0) | (f->lossy ? LOSSY : 0) | (f->exact ? EXACT : 0));
	hct_store32(p + 72, number_of(plan->codec));
	hct_store32(p + 76, f->record.codec);
	hct_store32(p + 80, f->record.layers);
	hct_store32(p + 84, f->record.chunk_bytes);
	hct_store64(p + 88, f->record.chunk_count);
	hct_store32(p + 96, f->record.params_length);
	hct_store32(p + 100, 0);
}

/* Finite, not below 0, and not above most. */
static int is_within(double x, double most)
{
	return x >= 0 && x <= most;
}

/* 0, or -1 for what no measurement of that tensor gives. */
static int unpack_forecast(const uint8_t *p, size_t length, const struct hct_tensor *t,
			   struct mkhct_forecast *f)
{
	/* A layer is hardly larger than the tensor, and no chunk is empty. */
	uint64_t most = HCT_GOAL_MAX_LAYERS * (2 * hct_tensor_bytes(t) + 4096);
	uint32_t codec, layers, flags, number;

	if (length < VALUE || hct_load32(p + 96) != length - VALUE)
		return -1;
	layers = hct_load32(p + 56);
	flags = hct_load32(p + 68);
	number = hct_load32(p + 72);
	codec = hct_load32(p + 76);
	*f = (struct mkhct_forecast){
		.result = {.plan = {.codec = number < HCT_CODEC_COUNT ? hct_codec_find(number)->name
								      : "empty",
				    .why = flags & WHY ? "measured by an earlier run" : NULL,
				    .layers = layers,
				    .tile_rows = hct_load32(p + 60),
				    .tile_columns = hct_load32(p + 64),
				    .bits = hct_load_f64(p + 40),
				    .relative_squared_error = hct_load_f64(p + 48)},
			   .energy = hct_load_f64(p),
			   .decoded_energy = hct_load_f64(p + 8),
			   .error = hct_load_f64(p + 16)},
		.extent_bytes = hct_load_f64(p + 24),
		.extents = hct_load64(p + 32),
		.record = {.codec = (uint16_t)codec,
			   .layers = (uint8_t)hct_load32(p + 80),
			   .chunk_bytes = hct_load32(p + 84),
			   .chunk_count = hct_load64(p + 88),
			   .params_length = hct_load32(p + 96)},
		.lossy = (flags & LOSSY) != 0,
		.exact = (flags & EXACT) != 0};
	/* The energies are of F64 tensors, too: whatever is finite. */
	return layers <= HCT_GOAL_MAX_LAYERS && codec < HCT_CODEC_COUNT &&
			       number <= HCT_CODEC_COUNT &&
			       hct_load32(p + 80) <= HCT_GOAL_MAX_LAYERS &&
			       f->record.chunk_count <= most && f->extents <= most &&
			       is_within(f->extent_bytes, (double)most) &&
			       isfinite(f->result.plan.bits) &&
			       isfinite(f->result.plan.relative_squared_error) &&
			       is_within(f->result.energy, DBL_MAX) &&
			       is_within(f->result.decoded_energy, DBL_MAX) &&
			       is_within(f->result.error, DBL_MAX)
		       ? 0
		       : -1;
}

/* Reading ----------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

static int add_place(struct mkhct_measured *m, const uint8_t *key, uint64_t at)
{
	if (m->count == m->capacity) {
		size_t capacity = m->capacity ? 2 * m->capacity : 256;
		struct place *grown = reallocarray(m->places, capacity, sizeof(*grown));

		if (!grown)
			return -1;
		m->places = grown;
		m->capacity = capacity;
	}
	m->places[m->count++] = (struct place){hct_checksum(key, KEY), at};
	return 0;
}

/* The record whose frame is at that place, in a file of `size` bytes: malloc'ed, its length in
 * *length; or NULL when it is damaged, or without memory. */
static uint8_t *read_record(const struct mkhct_measured *m, uint64_t at, uint64_t size,
			    size_t *length)
{
	uint8_t frame[FRAME], *record;

	if (size < at || size - at < FRAME ||
	    hct_read_at(m->fd, m->name, frame, FRAME, (off_t)at, NULL))
		return NULL;
	*length = hct_load32(frame);
	if (*length < KEY || *length > LONGEST || *length > size - at - FRAME)
		return NULL;
	record = malloc(*length);
	if (record && (hct_read_at(m->fd, m->name, record, *length, (off_t)(at + FRAME), NULL) ||
		       hct_checksum(record, *length) != hct_load64(frame + 4))) {
		free(record);
		return NULL;
	}
	return record;
}

static void pack_begin(uint64_t fingerprint, uint8_t p[BEGIN])
{
	memcpy(p, MAGIC, 8);
	hct_store64(p + 8, fingerprint);
	hct_store64(p + 16, hct_checksum(p, 16));
}

/* Everything up to what is damaged, which is cut off. */
static hct_error read_all(struct mkhct_measured *m, uint64_t size, struct hct_diag *diag)
{
	uint8_t *record;
	size_t length;

	while ((record = read_record(m, m->bytes, size, &length)) != NULL) {
		int rc = add_place(m, record, m->bytes);

		free(record);
		if (rc)
			return no_memory(m->name, diag);
		m->bytes += FRAME + length;
	}
	if (m->count)
		qsort(m->places, m->count, sizeof(*m->places), compare_places);
	if (m->bytes < size && ftruncate(m->fd, (off_t)m->bytes) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be cut", m->name);
	return HCT_OK;
}

/* Reads what is there, or begins the file anew. */
static hct_error read_file(struct mkhct_measured *m, uint64_t fingerprint, struct hct_diag *diag)
{
	uint8_t wanted[BEGIN], found[BEGIN];
	struct stat sb;

	if (fstat(m->fd, &sb) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be examined", m->name);
	pack_begin(fingerprint, wanted);
	m->bytes = BEGIN;
	if (sb.st_size >= BEGIN && hct_read_at(m->fd, m->name, found, BEGIN, 0, NULL) == HCT_OK &&
	    memcmp(found, wanted, BEGIN) == 0)
		return read_all(m, (uint64_t)sb.st_size, diag);
	if (ftruncate(m->fd, 0) != 0 || lseek(m->fd, 0, SEEK_SET) < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be cut", m->name);
	return hct_write_all(m->fd, m->name, wanted, BEGIN, diag);
}

hct_error mkhct_measured_open(int fd, const char *name, uint64_t fingerprint,
			      const struct mkhct_measured_pace *pace, struct mkhct_measured **out,
			      struct hct_diag *diag)
{
	struct mkhct_measured *m = calloc(1, sizeof(*m));
	hct_error err;

	if (m)
		m->name = strdup(name);
	if (!m || !m->name) {
		mkhct_measured_free(m);
		return no_memory(name, diag);
	}
	m->fd = fd;
	m->pace = *pace;
	m->synced = hct_meter_now();
	err = read_file(m, fingerprint, diag);
	m->kept = m->count > 0;
	if (err)
		mkhct_measured_free(m);
	else
		*out = m;
	return err;
}

void mkhct_measured_free(struct mkhct_measured *m)
{
	if (!m)
		return;
	free(m->places);
	free(m->name);
	free(m);
}

size_t mkhct_measured_count(const struct mkhct_measured *m)
{
	return m ? m->count : 0;
}

int mkhct_measured_is_kept(const struct mkhct_measured *m)
{
	return m && m->kept;
}

/* The first record with that key, as read_record gives it; NULL when there is none. */
static uint8_t *find(const struct mkhct_measured *m, const uint8_t key[KEY], size_t *length)
{
	uint64_t hash = hct_checksum(key, KEY);
	size_t low = 0, high = m ? m->count : 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->places[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	for (; m && low < m->count && m->places[low].hash == hash; low++) {
		uint8_t *record = read_record(m, m->places[low].at, m->bytes, length);

		if (record && memcmp(record, key, KEY) == 0)
			return record;
		free(record);
	}
	return NULL;
}

int mkhct_measured_forecast(const struct mkhct_measured *m, const char *model, size_t tensor,
			    const struct hct_tensor *t, const struct hct_goal *goal,
			    struct mkhct_forecast *out, uint8_t **tables)
{
	uint8_t key[KEY], *record;
	size_t length, n;
	int found = 0;

	*tables = NULL;
	pack_key(FORECAST, model, tensor, goal, key);
	record = find(m, key, &length);
	if (!record)
		return 0;
	if (unpack_forecast(record + KEY, length - KEY, t, out) == 0) {
		n = out->record.params_length;
		*tables = n ? malloc(n) : NULL;
		found = !n || *tables;
		if (*tables)
			memcpy(*tables, record + KEY + VALUE, n);
	}
	free(record);
	return found;
}

double mkhct_measured_retention(const struct mkhct_measured *m, const char *model, size_t tensor,
				double quality)
{
	const struct hct_goal goal = goal_of_quality(quality);
	uint8_t key[KEY], *record;
	double retention = 0;
	size_t length;

	pack_key(SPECTRUM, model, tensor, &goal, key);
	record = find(m, key, &length);
	if (record && length == KEY + 8)
		retention = hct_load_f64(record + KEY);
	free(record);
	return retention > 0 && retention <= 1 ? retention : 0;
}

/* Writing ----------------------------------------------------------------------------- */

/* Puts a record, with room for its frame before it, at the end of the file. */
static hct_error write_record(struct mkhct_measured *m, uint8_t *record, size_t length,
			      struct hct_diag *diag)
{
	hct_error err;

	hct_store32(record, (uint32_t)(length - FRAME));
	hct_store64(record + 4, hct_checksum(record + FRAME, length - FRAME));
	if (lseek(m->fd, (off_t)m->bytes, SEEK_SET) < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be written", m->name);
	err = hct_write_all(m->fd, m->name, record, length, diag);
	if (err)
		return err;
	m->bytes += length;
	m->pending++;
	return mkhct_measured_tick(m, diag);
}

hct_error mkhct_measured_add_forecast(struct mkhct_measured *m, const char *model, size_t tensor,
				      const struct hct_goal *goal, const struct mkhct_forecast *f,
				      const uint8_t *tables, struct hct_diag *diag)
{
	size_t n = f->record.params_length, length = FRAME + KEY + VALUE + n;
	uint8_t *record;
	hct_error err;

	if (!m || n > HCT_TABLES_MAX)
		return HCT_OK;
	record = malloc(length);
	if (!record)
		return no_memory(m->name, diag);
	pack_key(FORECAST, model, tensor, goal, record + FRAME);
	pack_forecast(f, record + FRAME + KEY);
	if (n)
		memcpy(record + FRAME + KEY + VALUE, tables, n);
	err = write_record(m, record, length, diag);
	free(record);
	return err;
}

hct_error mkhct_measured_add_retention(struct mkhct_measured *m, const char *model, size_t tensor,
				       double quality, double retention, struct hct_diag *diag)
{
	const struct hct_goal goal = goal_of_quality(quality);
	uint8_t record[FRAME + KEY + 8];

	if (!m)
		return HCT_OK;
	pack_key(SPECTRUM, model, tensor, &goal, record + FRAME);
	hct_store_f64(record + FRAME + KEY, retention);
	return write_record(m, record, sizeof(record), diag);
}

hct_error mkhct_measured_tick(struct mkhct_measured *m, struct hct_diag *diag)
{
	if (!m || !m->pending ||
	    (m->pace.every ? m->pending < m->pace.every
			   : hct_meter_now() - m->synced < m->pace.seconds))
		return HCT_OK;
	return mkhct_measured_sync(m, diag);
}

hct_error mkhct_measured_sync(struct mkhct_measured *m, struct hct_diag *diag)
{
	if (!m || !m->pending)
		return HCT_OK;
	if (fsync(m->fd) != 0)
		return hct_fail_errno(diag, errno, "%s: cannot be written to disk", m->name);
	m->pending = 0;
	m->synced = hct_meter_now();
	m->kept = 1;
	return HCT_OK;
}

/* In an output ------------------------------------------------------------------------- */

hct_error mkhct_measured_begin(struct mkhct_output *o, const char *shown,
			       const struct mkhct_checkpoint_of *of,
			       const struct mkhct_measured_pace *pace, struct mkhct_measured **out,
			       struct hct_diag *diag)
{
	uint64_t fingerprint;
	int fd;
	hct_error err = mkhct_measured_fingerprint(of, &fingerprint, diag);

	if (!err)
		err = mkhct_output_measured(o, &fd, diag);
	if (err)
		return err;
	err = mkhct_measured_open(fd, shown, fingerprint, pace, out, diag);
	if (err)
		close(fd);
	return err;
}

void mkhct_measured_end(struct mkhct_measured *m, struct mkhct_output *o, hct_error err)
{
	if (!m)
		return;
	if (err == HCT_ERR_ARGUMENT) {
		mkhct_output_give_up(o);
	} else if (err) {
		(void)mkhct_measured_sync(m, NULL); /* the first error counts */
		if (m->kept)
			mkhct_output_keep(o);
	}
	close(m->fd);
	mkhct_measured_free(m);
}
