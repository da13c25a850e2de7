#include "batch.h"

#include <string.h>

#include "dtype.h"

/* Where payloads begin in the input and chunks in the output. */
#define ALIGN_IN  16
#define ALIGN_OUT 256

static uint64_t align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

size_t hct_batch_room(const struct hct_work *w, size_t first, size_t count)
{
	size_t room = 0;

	for (size_t i = 0; i < count; i++) {
		struct hct_chunk c;

		hct_reader_chunk(w->r, w->pieces[first + i].number, &c);
		room += align(hct_loaded_bytes(&c), ALIGN_IN);
	}
	return room;
}

/* Where the device can write all of the pieces to their places itself: the least address of them,
 * aligned as a batch's output is; NULL where it cannot. */
static uint8_t *find_base(const struct hct_work *w, size_t first, size_t count)
{
	const struct hct_safetensors *st = hct_reader_safetensors(w->r);
	uint8_t *base = NULL;

	if (!w->on_device)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const struct hct_piece *p = &w->pieces[first + i];
		struct hct_chunk c;

		hct_reader_chunk(w->r, p->number, &c);
		if (p->begin || p->end != c.length ||
		    (uintptr_t)p->dst % hct_dtype_unit(st->tensors[c.tensor].dtype))
			return NULL;
		if (!base || p->dst < base)
			base = p->dst;
	}
	return base - (uintptr_t)base % 16;
}

/* The tables of an item, which mostly are those of the one before it.  Returns 0 without memory. */
static int add_tables(struct hct_batch *batch, const struct hct_work *w,
		      struct hct_flat_cache *cache, const struct hct_loaded *c,
		      const struct hct_task *task, size_t *tensor)
{
	struct hct_device_batch *d = &batch->device;

	if (!d->table_count || *tensor != c->chunk.tensor) {
		const struct hct_device_tables *t = hct_flat_cache_get(cache, w->r, c, task);

		if (!t)
			return 0;
		*tensor = c->chunk.tensor;
		batch->held[batch->held_count++] = t;
		batch->tables[d->table_count++] = *t;
	}
	batch->tables_of[d->items] = (uint32_t)(d->table_count - 1);
	return 1;
}

/* Lists a chunk; returns 0 when it is the CPU's. */
static int list_chunk(struct hct_batch *batch, const struct hct_work *w, hct_decoder *d,
		      struct hct_flat_cache *cache, const struct hct_loaded *c, size_t *tensor)
{
	struct hct_flat_list *l = &batch->list;
	size_t tiles = l->tiles_count;
	const char *why = NULL;
	struct hct_task task;

	if (!c->codec->list || hct_loaded_task(w->r, d, c, &task, NULL) ||
	    !add_tables(batch, w, cache, c, &task, tensor))
		return 0;
	for (unsigned i = 0; i < c->layer_count; i++)
		l->in[i] = (uint64_t)(c->layers[i].data - batch->in);
	l->item = batch->device.items;
	if (c->codec->list(&task, l, &why))
		return 0;
	for (size_t i = tiles; i < l->tiles_count; i++) {
		const struct hct_flat_tiles *t = &l->tiles[i];
		uint64_t end = t->values + (uint64_t)t->rows * t->columns * sizeof(float);

		if (end > batch->device.values_bytes)
			batch->device.values_bytes = end;
	}
	return 1;
}

/* Lists a piece behind those that are there. */
static int add(struct hct_batch *batch, const struct hct_work *w, hct_decoder *d,
	       struct hct_flat_cache *cache, const struct hct_piece *p, struct hct_batch_item *item,
	       size_t *tensor)
{
	struct hct_device_batch *b = &batch->device;
	uint32_t length = item->loaded.chunk.length;
	uint64_t end;

	batch->list.out =
		b->out ? (uint64_t)(p->dst - (uint8_t *)b->out) : align(b->out_bytes, ALIGN_OUT);
	batch->list.values = align(b->values_bytes, ALIGN_OUT);
	end = batch->list.out + length;
	if (!b->out)
		batch->copies[b->copy_count] = (struct hct_device_copy){batch->list.out + p->begin,
									p->dst, p->end - p->begin};
	if (!list_chunk(batch, w, d, cache, &item->loaded, tensor))
		return 0;
	if (!b->out)
		b->copy_count++;
	if (end > b->out_bytes)
		b->out_bytes = end;
	item->number = b->items++;
	return 1;
}

void hct_batch_fill(struct hct_batch *batch, struct hct_work *w, hct_decoder *d,
		    struct hct_flat_cache *cache, size_t first, size_t count)
{
	size_t at = 0, tensor = 0;

	batch->first = first;
	batch->count = count;
	batch->submitted = 0;
	batch->list.split_count = batch->list.tcq_count = batch->list.tiles_count = 0;
	batch->device = (struct hct_device_batch){.list = &batch->list,
						  .tables_of = batch->tables_of,
						  .tables = batch->tables,
						  .in = batch->in,
						  .out = find_base(w, first, count),
						  .copies = batch->copies,
						  .stream = w->stream,
						  .bad = batch->bad};
	hct_decoder_set_layers(d, w->layers);
	for (size_t i = 0; i < count; i++) {
		const struct hct_piece *p = &w->pieces[first + i];
		struct hct_batch_item *item = &batch->items[i];
		struct hct_diag diag = {{0}};
		hct_error e =
			hct_loaded_read(w->r, d, p->number, batch->in + at, &item->loaded, &diag);

		item->state = HCT_BATCH_DONE;
		if (e) {
			hct_work_fail(w, first + i, e, &diag);
			continue;
		}
		at += align(hct_loaded_bytes(&item->loaded.chunk), ALIGN_IN);
		item->state = add(batch, w, d, cache, p, item, &tensor) ? HCT_BATCH_LISTED
									: HCT_BATCH_CPU;
	}
	batch->device.in_bytes = at;
	memset(batch->bad, 0, batch->device.items * sizeof *batch->bad);
}

void hct_batch_release_tables(struct hct_batch *batch, struct hct_flat_cache *cache)
{
	while (batch->held_count)
		hct_flat_cache_put(cache, batch->held[--batch->held_count]);
}

int hct_batch_is_good(const struct hct_batch *batch, const struct hct_work *w, size_t i)
{
	const struct hct_batch_item *item = &batch->items[i];

	if (batch->bad[item->number])
		return 0;
	return !w->verified ||
	       !hct_loaded_check(w->r, &item->loaded, w->pieces[batch->first + i].dst, NULL);
}
