/* Decoding by the threads of a backend's pool. */
#include <stdlib.h>

#include "work.h"

static int is_whole(const struct hct_piece *p, const struct hct_chunk *c)
{
	return p->begin == 0 && p->end == c->length;
}

/* Reads and decodes, or just decodes what is loaded, to memory of the host. */
static hct_error decode(const struct hct_work *w, hct_decoder *d, const struct hct_piece *p,
			const struct hct_loaded *loaded, uint8_t *dst, struct hct_diag *diag)
{
	struct hct_chunk c;
	hct_error e;

	if (loaded) {
		e = hct_loaded_decode(w->r, d, loaded, p->begin, p->end, dst, diag);
		return e || !w->verified ? e : hct_loaded_check(w->r, loaded, dst, diag);
	}
	hct_reader_chunk(w->r, p->number, &c);
	if (!is_whole(p, &c))
		return hct_reader_pread(w->r, d, c.offset + p->begin, dst, p->end - p->begin, diag);
	return w->verified ? hct_reader_decode_verified(w->r, d, p->number, dst, diag)
			   : hct_reader_decode(w->r, d, p->number, dst, diag);
}

static uint8_t *reserve(struct hct_worker *worker, size_t size)
{
	if (worker->capacity < size) {
		free(worker->buffer);
		worker->buffer = malloc(size);
		worker->capacity = worker->buffer ? size : 0;
	}
	return worker->buffer;
}

void hct_cpu_decode_loaded(struct hct_work *w, struct hct_worker *worker, size_t i,
			   const struct hct_loaded *c)
{
	const struct hct_piece *p = &w->pieces[i];
	size_t length = p->end - p->begin;
	struct hct_diag diag = {{0}};
	uint8_t *dst = w->on_device ? reserve(worker, length) : p->dst;
	hct_error e;

	hct_decoder_set_layers(worker->decoder, w->layers);
	e = dst ? decode(w, worker->decoder, p, c, dst, &diag)
		: hct_fail(&diag, HCT_ERR_NOMEM, "%s: out of memory", hct_reader_name(w->r));
	if (!e && w->on_device)
		e = hct_gpu_copy(w->b->gpu, p->dst, dst, length, w->stream, &diag);
	if (e)
		hct_work_fail(w, i, e, &diag);
}

void hct_cpu_decode(struct hct_work *w, struct hct_worker *worker, size_t i)
{
	hct_cpu_decode_loaded(w, worker, i, NULL);
}

void hct_cpu_job(void *work, unsigned worker)
{
	struct hct_work *w = work;
	size_t i;

	while (hct_work_take(w, 0, 1, &i))
		hct_cpu_decode(w, &w->b->workers[worker], i);
}
