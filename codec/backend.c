#include "backend.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

/* Jobs that may wait; those of a call are no more than the threads. */
#define QUEUE 256

#define ALIGNMENT 256 /* of memory from hct_backend_alloc */

/* What hct_backend_options.gpu says: the first GPU, or none, or its number. */
enum { FIRST = -1, NONE = -2 };

static hct_error parse_gpu(const char *gpu, int *number, struct hct_diag *diag)
{
	unsigned long n;
	char *end;

	*number = FIRST;
	if (!gpu || !strcmp(gpu, "auto"))
		return HCT_OK;
	*number = NONE;
	if (!strcmp(gpu, "off"))
		return HCT_OK;
	n = *gpu >= '0' && *gpu <= '9' ? strtoul(gpu, &end, 10) : ULONG_MAX;
	if (n > INT_MAX || *end)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"gpu is not auto, off or the number of a GPU: %s", gpu);
	*number = (int)n;
	return HCT_OK;
}

hct_error hct_backend_check_gpu(const char *gpu, struct hct_diag *diag)
{
	int number;

	return parse_gpu(gpu, &number, diag);
}

static hct_error start_workers(hct_backend *b, const struct hct_backend_options *o)
{
	unsigned threads = o->threads ? o->threads : hct_pool_default_threads();
	hct_error e = HCT_OK;

	b->workers = calloc(threads, sizeof *b->workers);
	if (!b->workers)
		return HCT_ERR_NOMEM;
	b->threads = threads;
	for (unsigned i = 0; i < threads && !e; i++)
		e = hct_decoder_create(o->simd, &b->workers[i].decoder);
	return e ? e : hct_pool_create(threads, QUEUE, &b->pool);
}

hct_error hct_backend_open(const struct hct_backend_options *options, hct_backend **out,
			   struct hct_diag *diag)
{
	static const struct hct_backend_options defaults;
	const struct hct_backend_options *o = options ? options : &defaults;
	hct_simd simd = o->simd == HCT_SIMD_AUTO ? hct_simd_best() : o->simd;
	hct_backend *b;
	int number;
	hct_error e;

	*out = NULL;
	e = parse_gpu(o->gpu, &number, diag);
	if (e)
		return e;
	b = calloc(1, sizeof *b);
	if (!b)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	b->log = o->log;
	b->log_arg = o->log_arg;
	pthread_mutex_init(&b->log_lock, NULL);
	snprintf(b->cpu_name, sizeof b->cpu_name, "cpu (%s)", hct_simd_name(simd));
	if (number != NONE)
		e = hct_gpu_open(b, number, o->gpu_memory, &b->gpu, diag);
	if (!e) {
		e = start_workers(b, o);
		if (e)
			hct_fail(diag, e, "cannot start threads that decode: %s",
				 hct_error_string(e));
	}
	if (e) {
		hct_backend_close(b);
		return e;
	}
	*out = b;
	return HCT_OK;
}

void hct_backend_close(hct_backend *b)
{
	if (!b)
		return;
	hct_pool_free(b->pool);
	for (unsigned i = 0; b->workers && i < b->threads; i++) {
		hct_decoder_free(b->workers[i].decoder);
		free(b->workers[i].buffer);
	}
	free(b->workers);
	hct_gpu_close(b->gpu);
	pthread_mutex_destroy(&b->log_lock);
	free(b);
}

const char *hct_backend_name(const hct_backend *b)
{
	return hct_gpu_works(b->gpu) ? hct_gpu_name(b->gpu) : b->cpu_name;
}

int hct_backend_gpu(const hct_backend *b)
{
	return hct_gpu_works(b->gpu) ? hct_gpu_number(b->gpu) : -1;
}

/* Does all pieces of w.  Returns the first error, with its line in diag. */
static hct_error do_work(struct hct_work *w, struct hct_diag *diag)
{
	hct_backend *b = w->b;
	hct_error e = HCT_OK;

	for (size_t i = 0; i < w->count; i++)
		w->bytes += w->pieces[i].end - w->pieces[i].begin;
	w->first_bad = w->count;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->ended, NULL);
	if (w->count && hct_gpu_works(b->gpu))
		hct_gpu_do(b->gpu, w);
	else if (w->count)
		hct_work_run(w, hct_cpu_job,
			     w->count < b->threads ? (unsigned)w->count : b->threads);
	if (w->first_bad < w->count) {
		e = w->pieces[w->first_bad].error;
		if (diag)
			*diag = w->diag;
	}
	pthread_cond_destroy(&w->ended);
	pthread_mutex_destroy(&w->lock);
	return e;
}

hct_error hct_backend_decode(hct_backend *b, const hct_reader *r, unsigned layers, int verified,
			     struct hct_wanted *wanted, size_t count, struct hct_diag *diag)
{
	struct hct_work w = {.b = b, .r = r, .layers = layers, .verified = verified};
	hct_error e;

	for (size_t i = 0; i < count; i++)
		if (wanted[i].number >= hct_reader_chunk_count(r))
			return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no chunk %llu",
					hct_reader_name(r), (unsigned long long)wanted[i].number);
	w.pieces = calloc(count ? count : 1, sizeof *w.pieces);
	if (!w.pieces)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", hct_reader_name(r));
	w.count = count;
	for (size_t i = 0; i < count; i++) {
		struct hct_chunk c;

		hct_reader_chunk(r, wanted[i].number, &c);
		w.pieces[i] = (struct hct_piece){
			.number = wanted[i].number, .end = c.length, .dst = wanted[i].dst};
	}
	e = do_work(&w, diag);
	for (size_t i = 0; i < count; i++)
		wanted[i].error = w.pieces[i].error;
	free(w.pieces);
	return e;
}

/* Straight to the device ---------------------------------------------------------------- */

static uint64_t rows_of(const struct hct_tensor *t)
{
	return t->rank ? t->shape[0] : 1;
}

/* Where a row begins in its tensor; 0 when that is within a byte. */
static int row_at(const struct hct_tensor *t, uint64_t row, uint64_t *at)
{
	unsigned __int128 n = (unsigned __int128)hct_tensor_bytes(t) * row;
	uint64_t rows = rows_of(t);

	*at = 0;
	if (!rows)
		return 1;
	*at = (uint64_t)(n / rows);
	return n % rows == 0;
}

/* The bytes of the tensor that are wanted.  Returns NULL, or why there are none. */
static const char *find_rows(const hct_reader *r, const struct hct_load *load, uint64_t *begin,
			     uint64_t *end)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	const struct hct_tensor *t;

	if (load->tensor >= st->count)
		return "no such tensor";
	t = &st->tensors[load->tensor];
	if (load->first_row > rows_of(t) || load->rows > rows_of(t) - load->first_row)
		return "no such rows";
	if (!row_at(t, load->first_row, begin) || !row_at(t, load->first_row + load->rows, end))
		return "these rows do not begin and end with a whole byte";
	return NULL;
}

uint64_t hct_load_bytes(const hct_reader *r, const struct hct_load *load)
{
	uint64_t begin, end;

	return find_rows(r, load, &begin, &end) ? 0 : end - begin;
}

static hct_error bad_rows(const hct_reader *r, const struct hct_load *load, const char *why,
			  struct hct_diag *diag)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);

	if (load->tensor >= st->count)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no tensor %zu", hct_reader_name(r),
				load->tensor);
	return hct_fail(diag, HCT_ERR_ARGUMENT,
			"%s: tensor %s, %llu rows from row %llu of %llu: %s", hct_reader_name(r),
			st->tensors[load->tensor].name, (unsigned long long)load->rows,
			(unsigned long long)load->first_row,
			(unsigned long long)rows_of(&st->tensors[load->tensor]), why);
}

/* Pieces of the rows of a load, which has some. */
static size_t count_pieces(const hct_reader *r, const struct hct_load *load, uint64_t *number)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	uint64_t at = st->header_len + st->tensors[load->tensor].begin, begin, end, last;

	if (find_rows(r, load, &begin, &end) || begin == end)
		return 0;
	hct_reader_locate(r, at + begin, number);
	hct_reader_locate(r, at + end - 1, &last);
	return last - *number + 1;
}

static void add_pieces(struct hct_work *w, const struct hct_load *load)
{
	const struct hct_safetensors *st = hct_reader_safetensors(w->r);
	uint64_t at = st->header_len + st->tensors[load->tensor].begin, begin = 0, end = 0, number;
	size_t n = count_pieces(w->r, load, &number);
	uint8_t *dst = load->dst;

	find_rows(w->r, load, &begin, &end);
	for (size_t i = 0; i < n; i++) {
		struct hct_piece *p = &w->pieces[w->count++];
		struct hct_chunk c;

		hct_reader_chunk(w->r, number + i, &c);
		*p = (struct hct_piece){.number = c.number, .end = c.length, .dst = dst};
		if (at + begin > c.offset)
			p->begin = (uint32_t)(at + begin - c.offset);
		if (at + end - c.offset < c.length)
			p->end = (uint32_t)(at + end - c.offset);
		dst += p->end - p->begin;
	}
}

hct_error hct_load_device(hct_backend *b, const hct_reader *r, const struct hct_load *loads,
			  size_t count, unsigned layers, void *stream, struct hct_diag *diag)
{
	struct hct_work w = {
		.b = b, .r = r, .layers = layers, .on_device = b->gpu != NULL, .stream = stream};
	uint64_t begin, end;
	size_t pieces = 0;
	hct_error e;

	for (size_t i = 0; i < count; i++) {
		const char *why = find_rows(r, &loads[i], &begin, &end);

		if (why)
			return bad_rows(r, &loads[i], why, diag);
		pieces += count_pieces(r, &loads[i], &begin);
	}
	w.pieces = calloc(pieces ? pieces : 1, sizeof *w.pieces);
	if (!w.pieces)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", hct_reader_name(r));
	for (size_t i = 0; i < count; i++)
		add_pieces(&w, &loads[i]);
	e = do_work(&w, diag);
	free(w.pieces);
	return e;
}

hct_error hct_backend_alloc(hct_backend *b, size_t bytes, void **out, struct hct_diag *diag)
{
	if (b->gpu)
		return hct_gpu_alloc(b->gpu, bytes, out, diag);
	*out = bytes <= SIZE_MAX - ALIGNMENT
		       ? aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT)
		       : NULL;
	return *out ? HCT_OK
		    : hct_fail(diag, HCT_ERR_NOMEM, "no memory for %zu bytes of tensors", bytes);
}

void hct_backend_free(hct_backend *b, void *p)
{
	if (b->gpu)
		hct_gpu_free(b->gpu, p);
	else
		free(p);
}

hct_error hct_backend_copy(hct_backend *b, void *to, const void *from, size_t bytes,
			   struct hct_diag *diag)
{
	if (b->gpu)
		return hct_gpu_copy(b->gpu, to, from, bytes, NULL, diag);
	memmove(to, from, bytes);
	return HCT_OK;
}
