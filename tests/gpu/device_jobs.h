/* The plug-in on an emulated device that does everything as late as it may, chunks that the encoder
 * made, and batches of them: for tests. */
#ifndef DEVICE_JOBS_H
#define DEVICE_JOBS_H

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec/device.h"
#include "tests/gpu/emulator/emulator.h"
#include "tests/unit/lossy.h"

#define CHUNKS     6
#define MOST_BATCH 8

static const struct hct_device_class *class;

/* What the emulator tells. */
static struct {
	unsigned long (*calls)(const char *name);
	size_t (*bytes_up)(void);
	size_t (*held)(void);
	size_t (*waiting)(void);
	size_t (*memory)(size_t *most);
	int (*contexts)(void);
	int (*current_device)(void);
	void *(*stream)(void);
	void (*stream_put)(void *stream, void (*work)(void *arg), void *arg);
	void (*stream_destroy)(void *stream);
} emulator;

/* A coded chunk that is all of its tensor, its tables, and what it decodes to. */
static struct chunk {
	struct lossy_matrix m;
	const struct hct_codec *codec;
	void *tables;
	struct hct_device_tables flat;
	struct hct_payload layers[HCT_MAX_LAYERS];
	unsigned layer_count;
	size_t length;
	uint8_t *decoded;
} chunks[CHUNKS];

static inline struct hct_task task_of(const struct chunk *c, struct hct_scratch *scratch)
{
	struct hct_task task = {.tensor = &c->m.tensor,
				.tables = c->tables,
				.length = c->length,
				.end = c->length,
				.layer_count = c->layer_count,
				.layers_stored = c->layer_count,
				.scratch = scratch};

	memcpy(task.layers, c->layers, sizeof task.layers);
	return task;
}

static inline void make_chunk(struct chunk *c, hct_dtype dtype, const struct hct_goal *goal)
{
	struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
	const char *why = NULL;
	struct hct_encoded coded;
	struct hct_task task;
	hct_encoder *e;
	hct_plan *p;
	void *flat;

	c->m = lossy_gaussian(dtype, 16, 384);
	c->m.tensor.shape = c->m.shape;
	assert_int_equal(hct_encoder_create(HCT_SIMD_SCALAR, &e), HCT_OK);
	assert_int_equal(hct_plan_create(e, &c->m.tensor, c->m.data, goal, &p, NULL), HCT_OK);
	assert_int_equal(hct_plan_chunk_count(p), 1);
	assert_int_equal(hct_encode_chunk(e, p, 0, c->m.data, &coded, NULL), HCT_OK);
	c->codec = hct_codec_find(coded.codec);
	assert_non_null(c->codec->list);
	assert_int_equal(
		c->codec->open_tables(&c->m.tensor, p->params, p->params_length, &c->tables, &why),
		HCT_OK);
	c->flat.key = 100 + (uint64_t)(c - chunks);
	c->flat.bytes = c->codec->flat_bytes(c->tables);
	flat = calloc(1, c->flat.bytes);
	assert_non_null(flat);
	c->codec->flatten(c->tables, flat);
	c->flat.flat = flat;
	c->layer_count = coded.layer_count;
	for (unsigned l = 0; l < coded.layer_count; l++) {
		uint8_t *copy = calloc(1, coded.layers[l].length + HCT_PAYLOAD_PAD);

		assert_non_null(copy);
		memcpy(copy, coded.layers[l].payload, coded.layers[l].length);
		c->layers[l] = (struct hct_payload){copy, coded.layers[l].length};
	}
	c->length = c->m.tensor.end;
	c->decoded = malloc(c->length);
	assert_non_null(c->decoded);
	task = task_of(c, &scratch);
	assert_int_equal(c->codec->decode(&task, c->decoded, &why), HCT_OK);
	free(scratch.bytes);
	hct_plan_free(p);
	hct_encoder_free(e);
}

static inline int make_chunks(void **state)
{
	const struct hct_goal goals[] = {{.relative_squared_error = .01,
					  .method = HCT_METHOD_TCQ,
					  .effort = 1,
					  .transform = HCT_TRANSFORM_NONE},
					 {.relative_squared_error = .01,
					  .method = HCT_METHOD_TCQ,
					  .effort = 1,
					  .transform = HCT_TRANSFORM_DCT},
					 {.relative_squared_error = .002,
					  .method = HCT_METHOD_TCQ,
					  .effort = 1,
					  .transform = HCT_TRANSFORM_NONE,
					  .layers = 2}};

	(void)state;
	make_chunk(&chunks[0], HCT_DTYPE_BF16, NULL);
	make_chunk(&chunks[1], HCT_DTYPE_BF16, &goals[0]);
	make_chunk(&chunks[2], HCT_DTYPE_F16, &goals[1]);
	make_chunk(&chunks[3], HCT_DTYPE_F32, NULL);
	make_chunk(&chunks[4], HCT_DTYPE_F32, &goals[2]);
	make_chunk(&chunks[5], HCT_DTYPE_BF16, NULL);
	return 0;
}

static inline int free_chunks(void **state)
{
	(void)state;
	for (size_t i = 0; i < CHUNKS; i++) {
		struct chunk *c = &chunks[i];

		for (unsigned l = 0; l < c->layer_count; l++)
			free((void *)c->layers[l].data);
		free((void *)c->flat.flat);
		c->codec->free_tables(c->tables);
		free(c->decoded);
		lossy_free(&c->m);
	}
	return 0;
}

/* Batches ------------------------------------------------------------------------------- */

/* Where a batch's bytes are wanted. */
enum where { UNPINNED, PINNED, DEVICE, IN_PLACE };

struct job {
	hct_device *d;
	size_t count;
	const struct chunk *chunks[MOST_BATCH];
	enum where where;
	struct hct_flat_list list;
	uint32_t tables_of[MOST_BATCH], bad[MOST_BATCH];
	struct hct_device_tables tables[MOST_BATCH];
	struct hct_device_copy copies[MOST_BATCH];
	size_t at[MOST_BATCH]; /* of each in the output */
	void *in, *out;        /* out: where is it wanted */
	struct hct_device_batch batch;
};

static inline size_t aligned(size_t n)
{
	return (n + 255) & ~(size_t)255;
}

/* Lists a batch and lays it out. */
static inline void lay_out_job(struct job *j)
{
	size_t in = 0, out = 0, values = 0;

	for (size_t i = 0; i < j->count; i++) {
		const struct chunk *c = j->chunks[i];
		struct hct_scratch scratch = {.simd = HCT_SIMD_SCALAR};
		struct hct_task task = task_of(c, &scratch);
		const char *why = NULL;

		for (unsigned l = 0; l < c->layer_count; l++) {
			j->list.in[l] = in;
			in += aligned(c->layers[l].length + HCT_PAYLOAD_PAD);
		}
		j->list.out = j->at[i] = out;
		j->list.values = values;
		j->list.item = (uint32_t)i;
		assert_int_equal(c->codec->list(&task, &j->list, &why), HCT_OK);
		j->tables[i] = c->flat;
		j->tables_of[i] = (uint32_t)i;
		out += aligned(c->length);
		values += aligned(c->m.tensor.elements * sizeof(float));
		free(scratch.bytes);
	}
	j->batch = (struct hct_device_batch){.list = &j->list,
					     .items = (uint32_t)j->count,
					     .tables_of = j->tables_of,
					     .tables = j->tables,
					     .table_count = j->count,
					     .in_bytes = in,
					     .out_bytes = out,
					     .values_bytes = values,
					     .bad = j->bad};
	memset(j->bad, 0x77, sizeof j->bad);
}

static inline hct_error take_job(struct job *j, struct hct_diag *diag)
{
	uint8_t *in;
	hct_error e = class->alloc_host(j->d, j->batch.in_bytes, &j->in, diag);

	if (e)
		return e;
	in = j->in;
	for (size_t i = 0; i < j->count; i++)
		for (unsigned l = 0; l < j->chunks[i]->layer_count; l++) {
			const struct hct_payload *p = &j->chunks[i]->layers[l];

			memcpy(in, p->data, p->length + HCT_PAYLOAD_PAD);
			in += aligned(p->length + HCT_PAYLOAD_PAD);
		}
	j->batch.in = j->in;
	switch (j->where) {
	case UNPINNED:
		j->out = calloc(1, j->batch.out_bytes);
		break;
	case PINNED:
		return class->alloc_host(j->d, j->batch.out_bytes, &j->out, diag);
	default:
		return class->alloc(j->d, j->batch.out_bytes, &j->out, diag);
	}
	return HCT_OK;
}

/* The chunks one behind the other, in reverse, or as they are. */
static inline void set_copies(struct job *j)
{
	uint8_t *to = j->out;

	if (j->where == IN_PLACE) {
		j->batch.out = j->out;
		return;
	}
	for (size_t i = j->count; i-- > 0;) {
		j->copies[i] = (struct hct_device_copy){
			.from = j->at[i], .to = to, .bytes = j->chunks[i]->length};
		to += j->chunks[i]->length;
	}
	j->batch.copies = j->copies;
	j->batch.copy_count = j->count;
}

static inline void free_job(struct job *j)
{
	class->free_host(j->d, j->in);
	if (j->where == UNPINNED)
		free(j->out);
	else if (j->where == PINNED)
		class->free_host(j->d, j->out);
	else if (j->out)
		class->free(j->d, j->out);
	hct_flat_list_free(&j->list);
}

/* Begins with chunks first, first + 1 ... */
static inline hct_error begin_job(struct job *j, hct_device *d, unsigned first, size_t count,
				  enum where where, struct hct_diag *diag)
{
	hct_error e;

	memset(j, 0, sizeof *j);
	j->d = d;
	j->count = count;
	j->where = where;
	for (size_t i = 0; i < count; i++)
		j->chunks[i] = &chunks[(first + i) % CHUNKS];
	lay_out_job(j);
	e = take_job(j, diag);
	if (!e) {
		set_copies(j);
		e = class->submit(d, &j->batch, diag);
	}
	if (e)
		free_job(j);
	return e;
}

/* Every byte is there. */
static inline void check_job(struct job *j)
{
	uint8_t *host = j->out;

	if (j->where == DEVICE || j->where == IN_PLACE) {
		host = malloc(j->batch.out_bytes);
		assert_int_equal(class->copy(j->d, host, j->out, j->batch.out_bytes, NULL, NULL),
				 HCT_OK);
	}
	for (size_t i = 0; i < j->count; i++) {
		const struct chunk *c = j->chunks[i];
		size_t at = j->where == IN_PLACE
				    ? j->at[i]
				    : (size_t)((uint8_t *)j->copies[i].to - (uint8_t *)j->out);

		assert_int_equal(j->bad[i], 0);
		assert_memory_equal(host + at, c->decoded, c->length);
	}
	if (host != j->out)
		free(host);
}

static inline hct_error end_job(struct job *j, struct hct_diag *diag)
{
	hct_error e = class->wait(j->d, &j->batch, diag);

	if (!e)
		check_job(j);
	free_job(j);
	return e;
}

static inline hct_error do_job(hct_device *d, unsigned first, size_t count, enum where where,
			       struct hct_diag *diag)
{
	struct job j;
	hct_error e = begin_job(&j, d, first, count, where, diag);

	return e ? e : end_job(&j, diag);
}

static inline hct_device *open_device(uint64_t memory, unsigned batches)
{
	const struct hct_device_options options = {.memory = memory, .batches = batches};
	struct hct_diag diag = {{0}};
	hct_device *d;

	if (class->open(&options, &d, &diag))
		fail_msg("%s", diag.text);
	return d;
}

static inline int load_device(void **state)
{
	const char *path = getenv("HCT_TEST_PLUGIN");
	void *plugin;

	setenv("CUDA_EMULATOR_LATE", "1", 1);
	assert_non_null(path);
	plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!plugin)
		fail_msg("%s", dlerror());
	class = dlsym(plugin, HCT_DEVICE_SYMBOL);
	*(void **)&emulator.calls = dlsym(plugin, "emulator_calls");
	*(void **)&emulator.bytes_up = dlsym(plugin, "emulator_bytes_up");
	*(void **)&emulator.held = dlsym(plugin, "emulator_held");
	*(void **)&emulator.waiting = dlsym(plugin, "emulator_waiting");
	*(void **)&emulator.memory = dlsym(plugin, "emulator_memory");
	*(void **)&emulator.contexts = dlsym(plugin, "emulator_contexts");
	*(void **)&emulator.current_device = dlsym(plugin, "emulator_current_device");
	*(void **)&emulator.stream = dlsym(plugin, "emulator_stream");
	*(void **)&emulator.stream_put = dlsym(plugin, "emulator_stream_put");
	*(void **)&emulator.stream_destroy = dlsym(plugin, "emulator_stream_destroy");
	assert_non_null(class);
	assert_non_null(emulator.stream_destroy);
	return make_chunks(state);
}

#endif
