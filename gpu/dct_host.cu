#include <cstring>

#include "gpu/dct_context.h"

#define PIECE ((size_t)4 << 20 >> 2) /* floats of a pinned buffer */

namespace
{

/* The caller's numbers, in the order in which they lie without gaps. */
struct lines {
	size_t length, stride, per, distance; /* per: lines of a matrix */

	explicit lines(const struct gpu_dct_call *c)
	    : length(c->columns), stride(c->stride), per(c->rows), distance(c->near)
	{
		if (per == 1 || stride == length) {
			length *= per;
			per = 1;
		}
		if (c->across == 1 || (per == 1 && distance == length))
			distance = 0;
	}

	/* move(place, count) for what lies together of n numbers from the first on. */
	template <class Move> void each(size_t first, size_t n, Move move) const
	{
		while (n) {
			size_t line = first / length, at = first % length;
			size_t count = length - at < n ? length - at : n;

			if (!distance && per == 1) {
				/* all of it is one line */
				move(first, n);
				return;
			}
			move(line / per * distance + line % per * stride + at, count);
			first += count;
			n -= count;
		}
	}
};

hct_error fail(hct_gpu_dct *d, struct hct_diag *diag, const char *function, cudaError_t e)
{
	return gpu_dct_error(d, diag, function, e);
}

/* Everything but the slots. */
hct_error open_staging(hct_gpu_dct *d, struct hct_diag *diag)
{
	struct gpu_dct_staging *s = &d->staging;
	cudaError_t e;

	e = cudaStreamCreateWithFlags(&s->up, cudaStreamNonBlocking);
	if (!e)
		e = cudaStreamCreateWithFlags(&s->down, cudaStreamNonBlocking);
	for (unsigned i = 0; i < 2 && !e; i++) {
		cudaEvent_t *const events[] = {&s->moved_up[i], &s->moved_down[i], &s->filled[i],
					       &s->ready[i]};

		for (cudaEvent_t *event : events)
			if (!e)
				e = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
	}
	if (e)
		return fail(d, diag, "cudaEventCreate", e);
	for (unsigned i = 0; i < 2 && !e; i++) {
		e = cudaMallocHost((void **)&s->pinned_up[i], PIECE * sizeof(float));
		if (!e)
			e = cudaMallocHost((void **)&s->pinned_down[i], PIECE * sizeof(float));
	}
	s->open = !e;
	return fail(d, diag, "cudaMallocHost", e);
}

/* Copies n numbers from the first on to the slot, behind what uses the slot. */
hct_error upload(hct_gpu_dct *d, unsigned slot, const float *in, const struct lines *lines,
		 size_t first, size_t n, struct hct_diag *diag)
{
	struct gpu_dct_staging *s = &d->staging;
	float *to = (float *)s->slots[slot]->p;
	cudaError_t e = cudaSuccess;

	for (size_t done = 0, i = 0; done < n && !e; done += PIECE, i ^= 1) {
		size_t count = n - done < PIECE ? n - done : PIECE;
		float *p = s->pinned_up[i];

		e = cudaEventSynchronize(s->moved_up[i]);
		if (e)
			break;
		lines->each(first + done, count, [&](size_t at, size_t some) {
			memcpy(p, in + at, some * sizeof *p);
			p += some;
		});
		e = cudaMemcpyAsync(to + done, s->pinned_up[i], count * sizeof(float),
				    cudaMemcpyHostToDevice, s->up);
		if (!e)
			e = cudaEventRecord(s->moved_up[i], s->up);
	}
	if (!e)
		e = cudaEventRecord(s->filled[slot], s->up);
	if (!e)
		e = cudaStreamWaitEvent(d->stream, s->filled[slot], 0);
	return fail(d, diag, "cudaMemcpyAsync", e);
}

/* Copies them back, once they are transformed.  One piece comes while the one before it is given
 * to the caller. */
hct_error download(hct_gpu_dct *d, unsigned slot, float *out, const struct lines *lines,
		   size_t first, size_t n, struct hct_diag *diag)
{
	struct gpu_dct_staging *s = &d->staging;
	const float *from = (const float *)s->slots[slot]->p;
	size_t asked = 0, done = 0;
	cudaError_t e = cudaStreamWaitEvent(s->down, s->ready[slot], 0);

	while (done < n && !e) {
		size_t i = done / PIECE % 2, count = n - done < PIECE ? n - done : PIECE;
		const float *p = s->pinned_down[i];

		for (; asked < n && asked < done + 2 * PIECE && !e; asked += PIECE) {
			size_t k = asked / PIECE % 2, some = n - asked < PIECE ? n - asked : PIECE;

			e = cudaMemcpyAsync(s->pinned_down[k], from + asked, some * sizeof(float),
					    cudaMemcpyDeviceToHost, s->down);
			if (!e)
				e = cudaEventRecord(s->moved_down[k], s->down);
		}
		if (!e)
			e = cudaEventSynchronize(s->moved_down[i]);
		if (e)
			break;
		lines->each(first + done, count, [&](size_t at, size_t some) {
			memcpy(out + at, p, some * sizeof *p);
			p += some;
		});
		done += count;
	}
	return fail(d, diag, "cudaMemcpyAsync", e);
}

/* Transforms count matrices in a slot, where they lie without gaps. */
hct_error transform(hct_gpu_dct *d, unsigned slot, const struct gpu_dct_call *call, uint64_t count,
		    struct hct_diag *diag)
{
	struct gpu_dct_call c = *call;
	float *p = (float *)d->staging.slots[slot]->p;
	hct_error error;

	c.stride = c.columns;
	c.near = c.rows * c.columns;
	c.across = count;
	error = gpu_dct_enqueue(d, p, p, &c, diag);
	return error ? error
		     : fail(d, diag, "cudaEventRecord",
			    cudaEventRecord(d->staging.ready[slot], d->stream));
}

hct_error prepare(hct_gpu_dct *d, unsigned slots, size_t bytes, struct hct_diag *diag)
{
	hct_error error = HCT_OK;

	if (!d->staging.open) {
		error = open_staging(d, diag);
		if (error)
			gpu_dct_staging_close(d);
	}
	std::lock_guard<std::mutex> hold(d->lock);
	d->clock++;
	for (unsigned i = 0; i < slots && !error; i++)
		error = gpu_dct_reserve(d, &d->staging.slots[i], bytes, diag);
	return error;
}

/* Waits for what an error left under way, and gives large slots back. */
void settle(hct_gpu_dct *d, bool failed)
{
	struct gpu_dct_staging *s = &d->staging;

	if (failed && s->open) {
		(void)cudaStreamSynchronize(s->up);
		(void)cudaStreamSynchronize(d->stream);
		(void)cudaStreamSynchronize(s->down);
	}
	std::lock_guard<std::mutex> hold(d->lock);
	for (struct gpu_block *&slot : s->slots)
		if (slot && slot->bytes > GPU_DCT_CHUNK) {
			gpu_pool_give(&d->pool, slot);
			slot = nullptr;
		}
}

} // namespace

hct_error gpu_dct_from_host(hct_gpu_dct *d, const float *in, float *out,
			    const struct gpu_dct_call *call, struct hct_diag *diag)
{
	std::lock_guard<std::mutex> hold(d->host_lock);
	const struct lines lines(call);
	const size_t numbers = call->rows * call->columns;
	uint64_t chunk = GPU_DCT_CHUNK < d->pool.limit / 8 ? GPU_DCT_CHUNK : d->pool.limit / 8;
	uint64_t per = chunk / (numbers * sizeof(float)), before = 0;
	hct_error error;

	per = per < 1 ? 1 : per > call->across ? call->across : per;
	error = prepare(d, per < call->across ? 2 : 1, per * numbers * sizeof(float), diag);
	/* a chunk goes up while the one before it comes down */
	for (uint64_t first = 0; first < call->across + per && !error; first += per) {
		uint64_t left = first < call->across ? call->across - first : 0;
		uint64_t count = left < per ? left : per;
		unsigned slot = first / per % 2;

		if (count)
			error = upload(d, slot, in, &lines, first * numbers, count * numbers, diag);
		if (count && !error)
			error = transform(d, slot, call, count, diag);
		if (before && !error)
			error = download(d, !slot, out, &lines, (first - per) * numbers,
					 before * numbers, diag);
		before = count;
	}
	settle(d, error);
	return error;
}

void gpu_dct_staging_close(hct_gpu_dct *d)
{
	struct gpu_dct_staging *s = &d->staging;

	for (unsigned i = 0; i < 2; i++) {
		cudaEvent_t const events[] = {s->moved_up[i], s->moved_down[i], s->filled[i],
					      s->ready[i]};

		for (cudaEvent_t event : events)
			if (event)
				(void)cudaEventDestroy(event);
		(void)cudaFreeHost(s->pinned_up[i]);
		(void)cudaFreeHost(s->pinned_down[i]);
		gpu_pool_give(&d->pool, s->slots[i]);
	}
	if (s->up)
		(void)cudaStreamDestroy(s->up);
	if (s->down)
		(void)cudaStreamDestroy(s->down);
	*s = {};
}
