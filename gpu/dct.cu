#include "gpu/hct_gpu.h"

#include <new>

#include "gpu/dct_context.h"
#include "gpu/dct_fft.h"
#include "gpu/dct_tiles.h"

#define MOST_MEMORY ((uint64_t)2 << 30)

#define EXPORT extern "C" __attribute__((visibility("default")))

/* Transforms ------------------------------------------------------------------------------ */

static hct_error by_tiles(hct_gpu_dct *d, const float *in, float *out,
			  const struct gpu_dct_call *call, struct hct_diag *diag)
{
	struct gpu_dct_tiles t = {};

	t.in = in;
	t.out = out;
	t.down = call->down;
	t.across = call->across;
	t.far = call->far;
	t.near = call->near;
	t.stride = call->stride;
	t.rows_log2 = (unsigned)__builtin_ctzll(call->rows);
	t.columns_log2 = (unsigned)__builtin_ctzll(call->columns);
	return gpu_dct_error(d, diag, "the cosine transform",
			     gpu_dct_tiles_launch(&t, call->inverse, d->stream));
}

/* What the matrices of one call need. */
struct fft {
	const struct gpu_cufft *cufft;
	struct gpu_dct_plan *plan;
	const float2 *row_twiddles, *column_twiddles;
};

static hct_error fft_prepare(hct_gpu_dct *d, const struct gpu_dct_matrices *m, bool inverse,
			     struct fft *f, struct hct_diag *diag)
{
	hct_error error;

	error = gpu_cufft_load(&f->cufft, diag);
	if (!error)
		error = gpu_dct_find_table(d, m->rows, &f->row_twiddles, diag);
	if (!error)
		error = gpu_dct_find_table(d, m->columns, &f->column_twiddles, diag);
	if (!error)
		error = gpu_dct_find_plan(d, f->cufft, m->rows, m->columns, m->count, inverse,
					  &f->plan, diag);
	if (!error)
		error = gpu_dct_reserve(d, &d->work,
					m->count * gpu_dct_work_numbers(m) * sizeof(float), diag);
	if (!error && f->plan->area_bytes) {
		error = gpu_dct_reserve(d, &d->area, f->plan->area_bytes, diag);
		if (!error) {
			int result = f->cufft->set_work_area(f->plan->plan, d->area->p);

			if (result)
				error = gpu_dct_cufft_error(d, diag, "cufftSetWorkArea", result);
		}
	}
	return error;
}

static hct_error fft_forward(hct_gpu_dct *d, const struct fft *f, const float *in, float *out,
			     const struct gpu_dct_matrices *m, struct hct_diag *diag)
{
	float *work = (float *)d->work->p;
	cudaError_t e;
	int result;

	e = gpu_dct_order(in, work, m, d->stream);
	if (e)
		return gpu_dct_error(d, diag, "the cosine transform's first kernel", e);
	result = f->cufft->exec_r2c(f->plan->plan, work, (float2 *)work);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftExecR2C", result);
	e = gpu_dct_coefficients((const float2 *)work, out, m, f->row_twiddles, f->column_twiddles,
				 d->stream);
	return gpu_dct_error(d, diag, "the cosine transform's last kernel", e);
}

static hct_error fft_inverse(hct_gpu_dct *d, const struct fft *f, const float *in, float *out,
			     const struct gpu_dct_matrices *m, struct hct_diag *diag)
{
	float *work = (float *)d->work->p;
	cudaError_t e;
	int result;

	e = gpu_dct_spectrum(in, (float2 *)work, m, f->row_twiddles, f->column_twiddles, d->stream);
	if (e)
		return gpu_dct_error(d, diag, "the cosine transform's first kernel", e);
	result = f->cufft->exec_c2r(f->plan->plan, (float2 *)work, work);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftExecC2R", result);
	e = gpu_dct_restore(work, out, m, d->stream);
	return gpu_dct_error(d, diag, "the cosine transform's last kernel", e);
}

/* Of one row of matrices.  All parts have the plan of the first, and the last of them may leave
 * some of its work as it was. */
static hct_error by_fft(hct_gpu_dct *d, const float *in, float *out,
			const struct gpu_dct_call *call, struct hct_diag *diag)
{
	struct gpu_dct_matrices m = {};
	uint64_t chunk = GPU_DCT_CHUNK < d->pool.limit / 8 ? GPU_DCT_CHUNK : d->pool.limit / 8;
	uint64_t parts, per;
	struct fft f = {};
	hct_error error;

	m.rows = call->columns == 1 ? 1 : (uint32_t)call->rows;
	m.columns = call->columns == 1 ? (uint32_t)call->rows : (uint32_t)call->columns;
	m.step = call->columns == 1 ? call->stride : 1;
	m.stride = call->stride;
	m.distance = call->near;
	chunk /= gpu_dct_work_numbers(&m) * sizeof(float);
	chunk = chunk ? chunk : 1;
	parts = (call->across + chunk - 1) / chunk;
	per = (call->across + parts - 1) / parts;
	m.count = (uint32_t)per;
	error = fft_prepare(d, &m, call->inverse, &f, diag);
	for (uint64_t first = 0; first < call->across && !error; first += per) {
		const float *from = in + first * call->near;
		float *to = out + first * call->near;

		if (call->across - first < per)
			m.count = (uint32_t)(call->across - first);
		error = call->inverse ? fft_inverse(d, &f, from, to, &m, diag)
				      : fft_forward(d, &f, from, to, &m, diag);
	}
	return error;
}

hct_error gpu_dct_enqueue(hct_gpu_dct *d, const float *in, float *out,
			  const struct gpu_dct_call *call, struct hct_diag *diag)
{
	std::lock_guard<std::mutex> hold(d->lock);

	d->clock++;
	/* a launch would take what cleaning up after another call met for its own */
	(void)cudaGetLastError();
	return gpu_dct_tiles_shape(call->rows, call->columns) ? by_tiles(d, in, out, call, diag)
							      : by_fft(d, in, out, call, diag);
}

/* The context ----------------------------------------------------------------------------- */

static hct_error open_context(hct_gpu_dct *d, const struct hct_gpu_dct_options *options,
			      struct hct_diag *diag)
{
	const gpu_current current(&d->context);
	size_t free_bytes = 0, total = 0;
	cudaError_t e = current.error();

	if (e)
		return gpu_dct_error(d, diag, "cuCtxPushCurrent", e);
	d->pool.limit = options ? options->memory : 0;
	if (!d->pool.limit) {
		e = cudaMemGetInfo(&free_bytes, &total);
		if (e)
			return gpu_dct_error(d, diag, "cudaMemGetInfo", e);
		d->pool.limit = free_bytes / 2 < MOST_MEMORY ? free_bytes / 2 : MOST_MEMORY;
	}
	e = gpu_dct_tiles_open();
	if (e)
		return gpu_dct_error(d, diag, "cudaFuncSetAttribute", e);
	if (options && options->stream) {
		d->stream = (cudaStream_t)options->stream;
		return HCT_OK;
	}
	e = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
	d->own_stream = !e;
	return gpu_dct_error(d, diag, "cudaStreamCreate", e);
}

EXPORT hct_error hct_gpu_dct_create(const struct hct_gpu_dct_options *options, hct_gpu_dct **out,
				    struct hct_diag *diag)
{
	hct_gpu_dct *d = new (std::nothrow) hct_gpu_dct();
	hct_error error;

	*out = nullptr;
	if (!d)
		return gpu_fail(diag, HCT_ERR_NOMEM, "out of memory");
	error = gpu_context_open(&d->context, options ? options->device : 0, diag);
	if (!error) {
		error = open_context(d, options, diag);
		if (error)
			gpu_context_close(&d->context);
	}
	if (error) {
		delete d;
		return error;
	}
	*out = d;
	return HCT_OK;
}

EXPORT void hct_gpu_dct_free(hct_gpu_dct *d)
{
	if (!d)
		return;
	{
		const gpu_current current(&d->context);

		(void)cudaStreamSynchronize(d->stream);
		gpu_dct_staging_close(d);
		gpu_dct_forget(d);
		if (d->own_stream)
			(void)cudaStreamDestroy(d->stream);
	}
	gpu_context_close(&d->context);
	delete d;
}

EXPORT void *hct_gpu_dct_stream(const hct_gpu_dct *d)
{
	return d->stream;
}

EXPORT hct_error hct_gpu_dct_wait(hct_gpu_dct *d, struct hct_diag *diag)
{
	const gpu_current current(&d->context);

	if (current.error())
		return gpu_dct_error(d, diag, "cuCtxPushCurrent", current.error());
	return gpu_dct_error(d, diag, "cudaStreamSynchronize", cudaStreamSynchronize(d->stream));
}

/* What callers ask for -------------------------------------------------------------------- */

static bool product(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* Whether matrices lie apart: one behind the other, or side by side. */
static bool apart(const struct gpu_dct_call *c)
{
	size_t high, wide;

	if (c->rows > 1 && c->stride < c->columns)
		return false;
	if (c->across == 1)
		return true;
	if (product(c->rows - 1, c->stride, &high) &&
	    !__builtin_add_overflow(high, c->columns, &high) && c->near >= high)
		return true;
	return c->rows > 1 && c->near >= c->columns && product(c->across - 1, c->near, &wide) &&
	       !__builtin_add_overflow(wide, c->columns, &wide) && c->stride >= wide;
}

/* Whether all places are within memory. */
static bool addressable(const struct gpu_dct_call *c)
{
	size_t a, b;

	return product(c->rows - 1, c->stride, &a) && product(c->across - 1, c->near, &b) &&
	       !__builtin_add_overflow(a, b, &a) && !__builtin_add_overflow(a, c->columns, &a) &&
	       a <= PTRDIFF_MAX / sizeof(float);
}

/* Of a call with down 1; *none: there is nothing to do. */
static hct_error check(const hct_gpu_dct *d, const void *in, const void *out,
		       const struct gpu_dct_call *c, bool *none, struct hct_diag *diag)
{
	size_t numbers;

	*none = !c->across;
	if (!d || !c->rows || !c->columns)
		return gpu_fail(diag, HCT_ERR_ARGUMENT, "a cosine transform of no length");
	if (!product(c->rows, c->columns, &numbers) || numbers > HCT_GPU_DCT_MAX_NUMBERS)
		return gpu_fail(diag, HCT_ERR_LIMIT,
				"a cosine transform of %zu x %zu numbers; at most 2^30 can be",
				c->rows, c->columns);
	if (*none)
		return HCT_OK;
	if (!in || !out)
		return gpu_fail(diag, HCT_ERR_ARGUMENT, "a cosine transform of no memory");
	if (!apart(c) || !addressable(c))
		return gpu_fail(diag, HCT_ERR_ARGUMENT,
				"a cosine transform of %zu x %zu numbers: a stride of %zu or a "
				"distance of %zu is too small or too large",
				c->rows, c->columns, c->stride, c->near);
	return HCT_OK;
}

static hct_error run(hct_gpu_dct *d, const float *in, float *out, const struct gpu_dct_call *call,
		     bool host, struct hct_diag *diag)
{
	const gpu_current current(&d->context);

	if (current.error())
		return gpu_dct_error(d, diag, "cuCtxPushCurrent", current.error());
	return host ? gpu_dct_from_host(d, in, out, call, diag)
		    : gpu_dct_enqueue(d, in, out, call, diag);
}

static hct_error matrices(hct_gpu_dct *d, const float *in, float *out, size_t rows, size_t columns,
			  size_t stride, size_t count, size_t distance, bool inverse, bool host,
			  struct hct_diag *diag)
{
	const struct gpu_dct_call call = {rows,  columns, rows > 1 ? stride : columns, 1,
					  count, 0,       count > 1 ? distance : 0,    inverse};
	bool none;
	hct_error error = check(d, in, out, &call, &none, diag);

	return error || none ? error : run(d, in, out, &call, host, diag);
}

static hct_error tiles(hct_gpu_dct *d, const float *in, float *out, size_t rows, size_t columns,
		       size_t stride, unsigned tile_rows, unsigned tile_columns, bool inverse,
		       struct hct_diag *diag)
{
	/* the matrix as a whole, and then what it is made of */
	struct gpu_dct_call call = {1, columns, stride, 1, rows, 0, stride, inverse};
	size_t places;

	if (!d || !gpu_dct_tiles_shape(tile_rows, tile_columns) || rows % tile_rows ||
	    columns % tile_columns)
		return gpu_fail(diag, HCT_ERR_ARGUMENT,
				"tiles of %u x %u in a matrix of %zu x %zu numbers", tile_rows,
				tile_columns, rows, columns);
	if (!rows || !columns)
		return HCT_OK;
	if (!in || !out || (rows > 1 && stride < columns) || !product(rows, stride, &places) ||
	    !addressable(&call))
		return gpu_fail(diag, HCT_ERR_ARGUMENT,
				"tiles of a matrix of %zu x %zu numbers: no memory, or a stride of "
				"%zu is too small or too large",
				rows, columns, stride);
	call.rows = tile_rows;
	call.columns = tile_columns;
	call.down = rows / tile_rows;
	call.far = tile_rows * stride;
	call.across = columns / tile_columns;
	call.near = tile_columns;
	if (call.across == 1) {
		call.across = call.down;
		call.near = call.far;
		call.down = 1;
	}
	return run(d, in, out, &call, false, diag);
}

#define DEFINE(name_1d, name_2d, inverse, host)                                                    \
	EXPORT hct_error name_1d(hct_gpu_dct *d, const float *in, float *out, size_t n,            \
				 size_t count, size_t distance, struct hct_diag *diag)             \
	{                                                                                          \
		return matrices(d, in, out, 1, n, n, count, distance, inverse, host, diag);        \
	}                                                                                          \
	EXPORT hct_error name_2d(hct_gpu_dct *d, const float *in, float *out, size_t rows,         \
				 size_t columns, size_t stride, size_t count, size_t distance,     \
				 struct hct_diag *diag)                                            \
	{                                                                                          \
		return matrices(d, in, out, rows, columns, stride, count, distance, inverse, host, \
				diag);                                                             \
	}
DEFINE(hct_gpu_dct_1d, hct_gpu_dct_2d, false, false)
DEFINE(hct_gpu_idct_1d, hct_gpu_idct_2d, true, false)
DEFINE(hct_gpu_dct_1d_host, hct_gpu_dct_2d_host, false, true)
DEFINE(hct_gpu_idct_1d_host, hct_gpu_idct_2d_host, true, true)

EXPORT hct_error hct_gpu_dct_tiles(hct_gpu_dct *d, const float *in, float *out, size_t rows,
				   size_t columns, size_t stride, unsigned tile_rows,
				   unsigned tile_columns, struct hct_diag *diag)
{
	return tiles(d, in, out, rows, columns, stride, tile_rows, tile_columns, false, diag);
}

EXPORT hct_error hct_gpu_idct_tiles(hct_gpu_dct *d, const float *in, float *out, size_t rows,
				    size_t columns, size_t stride, unsigned tile_rows,
				    unsigned tile_columns, struct hct_diag *diag)
{
	return tiles(d, in, out, rows, columns, stride, tile_rows, tile_columns, true, diag);
}
