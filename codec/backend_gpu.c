/* Decoding by a device of the plug-in: each thread of the pool keeps two batches on the way, so
 * that reading and verifying the one goes on while the other is decoded. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "plugin.h"

/* Decoded bytes of a batch: enough to fill a device with work, and, after memory was short, few. */
#define LARGE (16u << 20)
#define SMALL (2u << 20)

#define PIN_STEP (1u << 20) /* bytes that pinned memory grows by */

#define LOADERS 16 /* threads that have batches at a time: what a bus takes */

#define LEGACY_STREAM                                                                              \
	((void *)1) /* cudaStreamLegacy: the default one, also where NULL says none                \
		     */

/* What the device is still good for. */
enum state {
	WORKS,
	STOPPED, /* no more batches; memory of the device is reached */
	LOST
};

struct hct_gpu {
	hct_backend *b;
	struct hct_plugin plugin;
	hct_device *device;
	int number;
	char name[128];
	struct hct_flat_cache *tables;
	atomic_int state;
	atomic_int small;     /* memory was short once */
	pthread_mutex_t lock; /* over all that follows */
	pthread_cond_t idle;
	struct hct_batch *spare; /* batches that nobody uses */
	unsigned loaders;        /* threads that have two of them */
	struct hct_diag why;     /* it does not work */
};

/* Opening and closing -------------------------------------------------------------------- */

/* The device with that number; -1 stands for the first. */
static hct_error open_device(struct hct_gpu *g, int number, uint64_t memory, int *missing,
			     struct hct_diag *diag)
{
	struct hct_device_options options = {.number = number < 0 ? 0 : number, .memory = memory};
	struct hct_diag why = {{0}};
	hct_error e = hct_plugin_open(&g->plugin, diag);
	int count;

	*missing = e == HCT_ERR_NOT_FOUND;
	if (e)
		return *missing ? HCT_ERR_UNSUPPORTED : e;
	count = g->plugin.class->count(&why);
	*missing = count <= 0;
	if (count <= options.number)
		return hct_fail(diag, HCT_ERR_UNSUPPORTED, "no GPU %d: there %s %d%s%s",
				options.number, count == 1 ? "is" : "are", count > 0 ? count : 0,
				why.text[0] ? ", " : "", why.text);
	g->number = options.number;
	e = g->plugin.class->open(&options, &g->device, diag);
	if (!e)
		snprintf(g->name, sizeof g->name, "%s:%d (%s)", g->plugin.class->name, g->number,
			 g->plugin.class->describe(g->device));
	return e;
}

hct_error hct_gpu_open(hct_backend *b, int number, uint64_t memory, struct hct_gpu **out,
		       struct hct_diag *diag)
{
	struct hct_gpu *g = calloc(1, sizeof *g);
	struct hct_diag why = {{0}};
	int missing = 0;
	hct_error e;

	*out = NULL;
	if (!g)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	g->b = b;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->idle, NULL);
	g->tables = hct_flat_cache_create();
	e = g->tables ? open_device(g, number, memory, &missing, &why)
		      : hct_fail(&why, HCT_ERR_NOMEM, "out of memory");
	if (!e) {
		*out = g;
		return HCT_OK;
	}
	hct_gpu_close(g);
	if (number < 0) {
		if (!missing)
			hct_backend_say(b, "no GPU is used: %s", why.text);
		return HCT_OK;
	}
	return hct_fail(diag, e, "%s", why.text);
}

static void batch_free(struct hct_gpu *g, struct hct_batch *batch)
{
	if (batch->in)
		g->plugin.class->free_host(g->device, batch->in);
	hct_flat_list_free(&batch->list);
	free(batch);
}

void hct_gpu_close(struct hct_gpu *g)
{
	if (!g)
		return;
	for (struct hct_batch *batch = g->spare, *next; batch; batch = next) {
		next = batch->next;
		batch_free(g, batch);
	}
	if (g->device)
		g->plugin.class->close(g->device);
	hct_plugin_close(&g->plugin);
	hct_flat_cache_free(g->tables);
	pthread_cond_destroy(&g->idle);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

int hct_gpu_works(const struct hct_gpu *g)
{
	return g && atomic_load(&g->state) == WORKS;
}

const char *hct_gpu_name(const struct hct_gpu *g)
{
	return g->name;
}

int hct_gpu_number(const struct hct_gpu *g)
{
	return g->number;
}

/* From now on the CPU decodes, and somebody hears why. */
static void give_up(struct hct_gpu *g, enum state state, const struct hct_diag *why)
{
	int first;

	pthread_mutex_lock(&g->lock);
	first = atomic_load(&g->state) == WORKS;
	if (atomic_load(&g->state) < (int)state) {
		atomic_store(&g->state, state);
		g->why = *why;
	}
	pthread_mutex_unlock(&g->lock);
	if (first)
		hct_backend_say(g->b, "%s: %s; from now on the CPU decodes", g->name, why->text);
}

/* Memory -------------------------------------------------------------------------------- */

/* Whether the device is gone, with the reason in diag. */
static int is_lost(struct hct_gpu *g, struct hct_diag *diag)
{
	int lost;

	pthread_mutex_lock(&g->lock);
	lost = atomic_load(&g->state) == LOST;
	if (lost && diag)
		hct_fail(diag, HCT_ERR_IO, "%s is lost: %s", g->name, g->why.text);
	pthread_mutex_unlock(&g->lock);
	return lost;
}

/* What a call of the plug-in that is about memory gave. */
static hct_error noticed(struct hct_gpu *g, hct_error e, const struct hct_diag *why,
			 struct hct_diag *diag)
{
	if (!e)
		return HCT_OK;
	if (e != HCT_ERR_NOMEM)
		give_up(g, LOST, why);
	return hct_fail(diag, e, "%s: %s", g->name, why->text);
}

hct_error hct_gpu_alloc(struct hct_gpu *g, size_t bytes, void **out, struct hct_diag *diag)
{
	struct hct_diag why = {{0}};

	*out = NULL;
	if (is_lost(g, diag))
		return HCT_ERR_IO;
	return noticed(g, g->plugin.class->alloc(g->device, bytes, out, &why), &why, diag);
}

void hct_gpu_free(struct hct_gpu *g, void *p)
{
	g->plugin.class->free(g->device, p);
}

hct_error hct_gpu_copy(struct hct_gpu *g, void *to, const void *from, size_t bytes, void *stream,
		       struct hct_diag *diag)
{
	struct hct_diag why = {{0}};

	if (is_lost(g, diag))
		return HCT_ERR_IO;
	return noticed(g,
		       g->plugin.class->copy(g->device, to, from, bytes,
					     stream ? stream : LEGACY_STREAM, &why),
		       &why, diag);
}

/* Two batches for a thread, as soon as few enough have some.  Returns 0 without memory. */
static int get_batches(struct hct_gpu *g, struct hct_batch *two[2])
{
	pthread_mutex_lock(&g->lock);
	while (g->loaders >= LOADERS)
		pthread_cond_wait(&g->idle, &g->lock);
	g->loaders++;
	for (int k = 0; k < 2; k++) {
		two[k] = g->spare;
		if (two[k])
			g->spare = two[k]->next;
	}
	pthread_mutex_unlock(&g->lock);
	for (int k = 0; k < 2; k++)
		if (!two[k])
			two[k] = calloc(1, sizeof *two[k]);
	return two[0] && two[1];
}

static void put_batches(struct hct_gpu *g, struct hct_batch *two[2])
{
	pthread_mutex_lock(&g->lock);
	for (int k = 0; k < 2; k++) {
		if (!two[k])
			continue;
		two[k]->next = g->spare;
		g->spare = two[k];
	}
	g->loaders--;
	pthread_cond_signal(&g->idle);
	pthread_mutex_unlock(&g->lock);
}

/* Batches ------------------------------------------------------------------------------- */

/* A thread with its batches. */
struct loader {
	struct hct_gpu *g;
	struct hct_work *w;
	struct hct_worker *worker;
};

static void decode_on_cpu(struct loader *l, size_t first, size_t count)
{
	for (size_t i = first; i < first + count; i++) {
		struct hct_diag diag;

		/* Nothing can be put where it belongs. */
		if (l->w->on_device && is_lost(l->g, &diag))
			hct_work_fail(l->w, i, HCT_ERR_IO, &diag);
		else
			hct_cpu_decode(l->w, l->worker, i);
	}
}

static void start(struct loader *l, struct hct_batch *batch, size_t first, size_t count, int small);
static void finish(struct loader *l, struct hct_batch *batch);

/* What the device could not do: in smaller batches, the first time that memory is short, or on the
 * CPU. */
static void do_again(struct loader *l, struct hct_batch *batch, hct_error e,
		     const struct hct_diag *why)
{
	size_t first = batch->first, end = first + batch->count;

	if (e == HCT_ERR_NOMEM && !batch->small) {
		atomic_store(&l->g->small, 1);
		while (first < end) {
			size_t n = 0;
			uint64_t bytes = 0;

			do {
				const struct hct_piece *p = &l->w->pieces[first + n++];
				bytes += p->end - p->begin;
			} while (first + n < end && bytes < SMALL);
			start(l, batch, first, n, 1);
			finish(l, batch);
			first += n;
		}
		return;
	}
	give_up(l->g, e == HCT_ERR_NOMEM ? STOPPED : LOST, why);
	decode_on_cpu(l, first, end - first);
}

/* Pinned memory for what is read.  What was there is lost. */
static hct_error reserve(struct hct_gpu *g, struct hct_batch *batch, size_t size,
			 struct hct_diag *why)
{
	void *in = NULL;
	hct_error e;

	if (batch->capacity >= size)
		return HCT_OK;
	if (batch->in)
		g->plugin.class->free_host(g->device, batch->in);
	batch->capacity = 0;
	size = (size + PIN_STEP - 1) / PIN_STEP * PIN_STEP;
	e = g->plugin.class->alloc_host(g->device, size, &in, why);
	batch->in = e ? NULL : in;
	if (!e)
		batch->capacity = size;
	return e;
}

/* Reads pieces and has the device begin with them; decodes the others meanwhile. */
static void start(struct loader *l, struct hct_batch *batch, size_t first, size_t count, int small)
{
	struct hct_gpu *g = l->g;
	struct hct_diag why = {{0}};
	hct_error e;

	batch->first = first;
	batch->count = count;
	batch->small = small;
	batch->submitted = 0;
	if (!hct_gpu_works(g)) {
		decode_on_cpu(l, first, count);
		return;
	}
	e = reserve(g, batch, hct_batch_room(l->w, first, count), &why);
	if (!e) {
		hct_batch_fill(batch, l->w, l->worker->decoder, g->tables, first, count);
		if (batch->device.items)
			e = g->plugin.class->submit(g->device, &batch->device, &why);
		hct_batch_release_tables(batch, g->tables);
	}
	if (e) {
		do_again(l, batch, e, &why);
		return;
	}
	batch->submitted = batch->device.items > 0;
	for (size_t i = 0; i < count; i++)
		if (batch->items[i].state == HCT_BATCH_CPU)
			hct_cpu_decode_loaded(l->w, l->worker, first + i, &batch->items[i].loaded);
}

/* A device that is wrong about one chunk is not to be trusted with others. */
static void differ(struct hct_gpu *g, const hct_reader *r, const struct hct_chunk *c)
{
	struct hct_diag why;

	hct_fail(&why, HCT_ERR_DIGEST, "GPU and CPU differ about %s, tensor %s, bytes %llu to %llu",
		 hct_reader_name(r), hct_reader_safetensors(r)->tensors[c->tensor].name,
		 (unsigned long long)c->offset, (unsigned long long)(c->offset + c->length - 1));
	give_up(g, STOPPED, &why);
}

/* Waits for the device, and decodes on the CPU what did not come out well. */
static void finish(struct loader *l, struct hct_batch *batch)
{
	struct hct_work *w = l->w;
	struct hct_diag why = {{0}};
	hct_error e;

	if (!batch->submitted)
		return;
	batch->submitted = 0;
	e = l->g->plugin.class->wait(l->g->device, &batch->device, &why);
	if (e) {
		do_again(l, batch, e, &why);
		return;
	}
	for (size_t i = 0; i < batch->count; i++) {
		const struct hct_batch_item *item = &batch->items[i];
		size_t piece = batch->first + i;

		if (item->state != HCT_BATCH_LISTED || hct_batch_is_good(batch, w, i))
			continue;
		hct_cpu_decode_loaded(w, l->worker, piece, &item->loaded);
		if (!w->pieces[piece].error)
			differ(l->g, w->r, &item->loaded.chunk);
	}
}

/* A job: batches, until no piece is left. */
static void load(void *work, unsigned worker)
{
	struct hct_work *w = work;
	struct loader l = {w->b->gpu, w, &w->b->workers[worker]};
	struct hct_batch *two[2];
	size_t first, n;

	if (get_batches(l.g, two)) {
		for (int k = 0;; k ^= 1) {
			int small = atomic_load(&l.g->small);

			finish(&l, two[k]);
			n = hct_work_take(w, small ? SMALL : w->batch_bytes, HCT_BATCH_ITEMS,
					  &first);
			if (!n) {
				finish(&l, two[k ^ 1]);
				break;
			}
			start(&l, two[k], first, n, small);
		}
	} else {
		while (hct_work_take(w, 0, 1, &first))
			decode_on_cpu(&l, first, 1);
	}
	put_batches(l.g, two);
}

void hct_gpu_do(struct hct_gpu *g, struct hct_work *w)
{
	unsigned loaders = w->b->threads < LOADERS ? w->b->threads : LOADERS;
	uint64_t jobs;

	if (w->on_device && !w->stream)
		w->stream = LEGACY_STREAM;
	w->batch_bytes = w->bytes / (2 * loaders);
	if (w->batch_bytes < SMALL || atomic_load(&g->small))
		w->batch_bytes = SMALL;
	if (w->batch_bytes > LARGE)
		w->batch_bytes = LARGE;
	jobs = w->bytes / w->batch_bytes + 1;
	hct_work_run(w, load, jobs < loaders ? (unsigned)jobs : loaders);
}
