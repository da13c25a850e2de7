#include <cstdlib>

#include "gpu/dct_context.h"
#include "gpu/dct_fft.h"

hct_error gpu_dct_cufft_error(hct_gpu_dct *d, struct hct_diag *diag, const char *function,
			      int result)
{
	hct_error e = result == gpu_cufft::ALLOC_FAILED ? HCT_ERR_NOMEM : HCT_ERR_IO;

	(void)cudaGetLastError(); /* the next launch would find it */
	return gpu_fail(diag, e, "cuda:%d: %s: %s (cuFFT's error %d)", d->context.number, function,
			e == HCT_ERR_NOMEM ? "out of memory" : "failed", result);
}

/* Memory ---------------------------------------------------------------------------------- */

/* Until the device uses nothing of the context any more. */
static hct_error quiet(hct_gpu_dct *d, struct hct_diag *diag)
{
	return gpu_dct_error(d, diag, "cudaStreamSynchronize", cudaStreamSynchronize(d->stream));
}

static void drop_table(hct_gpu_dct *d, struct gpu_dct_table *t)
{
	gpu_pool_give(&d->pool, t->memory);
	t->memory = nullptr;
	t->n = 0;
}

/* Takes memory, if need be that of twiddles that this call does not use. */
static hct_error take(hct_gpu_dct *d, size_t bytes, struct gpu_block **out, struct hct_diag *diag)
{
	cudaError_t e = gpu_pool_take(&d->pool, bytes, out);
	hct_error error;

	if (e == cudaErrorMemoryAllocation) {
		error = quiet(d, diag);
		if (error)
			return error;
		for (struct gpu_dct_table &t : d->tables)
			if (t.used < d->clock)
				drop_table(d, &t);
		e = gpu_pool_take(&d->pool, bytes, out);
	}
	if (e == cudaErrorMemoryAllocation)
		return gpu_fail(diag, HCT_ERR_NOMEM,
				"cuda:%d: the transform needs %zu bytes more than the %llu that it "
				"has, of %llu that it may have",
				d->context.number, bytes, (unsigned long long)d->pool.held,
				(unsigned long long)d->pool.limit);
	return gpu_dct_error(d, diag, "cudaMalloc", e);
}

hct_error gpu_dct_reserve(hct_gpu_dct *d, struct gpu_block **block, size_t bytes,
			  struct hct_diag *diag)
{
	hct_error error;

	if (*block && (*block)->bytes >= bytes)
		return HCT_OK;
	if (*block) {
		error = quiet(d, diag);
		if (error)
			return error;
		gpu_pool_give(&d->pool, *block);
		*block = nullptr;
	}
	return take(d, bytes, block, diag);
}

/* Plans ----------------------------------------------------------------------------------- */

static void drop_plan(struct gpu_dct_plan *p)
{
	const struct gpu_cufft *cufft;

	if (p->made && !gpu_cufft_load(&cufft, nullptr))
		(void)cufft->destroy(p->plan);
	*p = {};
}

/* Makes the plan of p, whose shape is set. */
static hct_error make_plan(hct_gpu_dct *d, const struct gpu_cufft *cufft, struct gpu_dct_plan *p,
			   struct hct_diag *diag)
{
	long long half = p->columns / 2 + 1;
	long long size[2] = {p->rows, p->columns};
	long long reals[2] = {p->rows, 2 * half}, spectrum[2] = {p->rows, half};
	/* one dimension has only the last of each */
	int skip = p->rows == 1, result;
	long long *in = p->inverse ? spectrum : reals, *out = p->inverse ? reals : spectrum;

	result = cufft->create(&p->plan);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftCreate", result);
	p->made = true;
	result = cufft->set_auto_allocation(p->plan, 0);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftSetAutoAllocation", result);
	result = cufft->make_plan_many(p->plan, 2 - skip, size + skip, in + skip, 1,
				       p->rows * in[1], out + skip, 1, p->rows * out[1],
				       p->inverse ? gpu_cufft::C2R : gpu_cufft::R2C, p->batch,
				       &p->area_bytes);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftMakePlanMany64", result);
	result = cufft->set_stream(p->plan, d->stream);
	if (result)
		return gpu_dct_cufft_error(d, diag, "cufftSetStream", result);
	return HCT_OK;
}

hct_error gpu_dct_find_plan(hct_gpu_dct *d, const struct gpu_cufft *cufft, uint32_t rows,
			    uint32_t columns, uint32_t batch, bool inverse,
			    struct gpu_dct_plan **out, struct hct_diag *diag)
{
	struct gpu_dct_plan *place = d->plans;
	hct_error error;

	for (struct gpu_dct_plan &p : d->plans) {
		if (p.made && p.rows == rows && p.columns == columns && p.batch == batch &&
		    p.inverse == inverse) {
			p.used = d->clock;
			*out = &p;
			return HCT_OK;
		}
		if (p.used < place->used)
			place = &p;
	}
	if (place->made) {
		error = quiet(d, diag);
		if (error)
			return error;
	}
	drop_plan(place);
	place->rows = rows;
	place->columns = columns;
	place->batch = batch;
	place->inverse = inverse;
	place->used = d->clock;
	error = make_plan(d, cufft, place, diag);
	if (error) {
		drop_plan(place);
		return error;
	}
	*out = place;
	return HCT_OK;
}

/* Twiddles -------------------------------------------------------------------------------- */

static hct_error upload_table(hct_gpu_dct *d, size_t n, const struct gpu_block *to,
			      struct hct_diag *diag)
{
	size_t bytes = (n / 2 + 1) * sizeof(float2);
	float2 *twiddles = (float2 *)malloc(bytes);
	hct_error error;

	if (!twiddles)
		return gpu_fail(diag, HCT_ERR_NOMEM, "out of memory");
	gpu_dct_twiddles(n, twiddles);
	/* memory that is not pinned is read before this returns, or the stream is waited for */
	error = gpu_dct_error(
		d, diag, "cudaMemcpyAsync",
		cudaMemcpyAsync(to->p, twiddles, bytes, cudaMemcpyHostToDevice, d->stream));
	if (!error)
		error = quiet(d, diag);
	free(twiddles);
	return error;
}

hct_error gpu_dct_find_table(hct_gpu_dct *d, size_t n, const float2 **out, struct hct_diag *diag)
{
	struct gpu_dct_table *place = d->tables;
	hct_error error;

	for (struct gpu_dct_table &t : d->tables) {
		if (t.n == n) {
			t.used = d->clock;
			*out = (const float2 *)t.memory->p;
			return HCT_OK;
		}
		if (t.used < place->used)
			place = &t;
	}
	if (place->n) {
		error = quiet(d, diag);
		if (error)
			return error;
		drop_table(d, place);
	}
	error = take(d, (n / 2 + 1) * sizeof(float2), &place->memory, diag);
	if (error)
		return error;
	error = upload_table(d, n, place->memory, diag);
	if (error) {
		drop_table(d, place);
		return error;
	}
	place->n = n;
	place->used = d->clock;
	*out = (const float2 *)place->memory->p;
	return HCT_OK;
}

void gpu_dct_forget(hct_gpu_dct *d)
{
	for (struct gpu_dct_plan &p : d->plans)
		drop_plan(&p);
	for (struct gpu_dct_table &t : d->tables)
		drop_table(d, &t);
	gpu_pool_give(&d->pool, d->work);
	gpu_pool_give(&d->pool, d->area);
	d->work = d->area = nullptr;
}
