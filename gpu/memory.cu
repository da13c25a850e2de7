#include "gpu/memory.h"

#include <cstdlib>

#define ALIGN       256u
#define MAX_SEGMENT ((size_t)4 << 20)
#define PAGE        4096u

static size_t aligned(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

size_t gpu_rounded(size_t bytes)
{
	size_t step = PAGE;

	while (step < bytes / 16)
		step *= 2;
	return aligned(bytes, step);
}

/* Device memory ------------------------------------------------------------------------- */

/* What was taken from the driver at a time. */
struct gpu_segment {
	size_t bytes;
	struct gpu_block *blocks; /* by address; together they are all of it */
	struct gpu_segment *before, *after;
};

static struct gpu_block *new_block(struct gpu_segment *s, uint8_t *p, size_t bytes)
{
	struct gpu_block *b = (struct gpu_block *)calloc(1, sizeof *b);

	if (b) {
		b->p = p;
		b->bytes = bytes;
		b->segment = s;
	}
	return b;
}

static cudaError_t add_segment(struct gpu_pool *pool, size_t bytes, struct gpu_segment **out)
{
	struct gpu_segment *s;
	void *p = nullptr;
	cudaError_t e;

	if (bytes > pool->limit || pool->held > pool->limit - bytes)
		return cudaErrorMemoryAllocation;
	s = (struct gpu_segment *)calloc(1, sizeof *s);
	if (!s)
		return cudaErrorMemoryAllocation;
	s->bytes = bytes;
	s->blocks = new_block(s, nullptr, bytes);
	e = s->blocks ? cudaMalloc(&p, bytes) : cudaErrorMemoryAllocation;
	if (e) {
		(void)cudaGetLastError(); /* the next launch would find it */
		free(s->blocks);
		free(s);
		return e;
	}
	s->blocks->p = (uint8_t *)p;
	s->after = pool->segments;
	if (s->after)
		s->after->before = s;
	pool->segments = s;
	pool->held += bytes;
	*out = s;
	return cudaSuccess;
}

static void remove_segment(struct gpu_pool *pool, struct gpu_segment *s)
{
	(void)cudaFree(s->blocks->p);
	pool->held -= s->bytes;
	if (s->after)
		s->after->before = s->before;
	if (s->before)
		s->before->after = s->after;
	else
		pool->segments = s->after;
	free(s->blocks);
	free(s);
}

/* The smallest free block that is large enough. */
static struct gpu_block *find(const struct gpu_pool *pool, size_t bytes)
{
	struct gpu_block *best = nullptr;

	for (struct gpu_segment *s = pool->segments; s; s = s->after)
		for (struct gpu_block *b = s->blocks; b; b = b->after)
			if (!b->used && b->bytes >= bytes && (!best || b->bytes < best->bytes))
				best = b;
	return best;
}

/* Leaves what is behind the first bytes to others, if there is memory to remember it by. */
static void split(struct gpu_block *b, size_t bytes)
{
	struct gpu_block *rest;

	if (b->bytes == bytes)
		return;
	rest = new_block(b->segment, b->p + bytes, b->bytes - bytes);
	if (!rest)
		return;
	rest->before = b;
	rest->after = b->after;
	if (rest->after)
		rest->after->before = rest;
	b->after = rest;
	b->bytes = bytes;
}

/* Adds the block behind it to one; both are free. */
static void join(struct gpu_block *b)
{
	struct gpu_block *rest = b->after;

	b->bytes += rest->bytes;
	b->after = rest->after;
	if (b->after)
		b->after->before = b;
	free(rest);
}

cudaError_t gpu_pool_take(struct gpu_pool *pool, size_t bytes, struct gpu_block **out)
{
	size_t shared = pool->limit / 64 < MAX_SEGMENT ? pool->limit / 64 : MAX_SEGMENT;
	struct gpu_block *b = nullptr;
	struct gpu_segment *s;
	cudaError_t e;

	*out = nullptr;
	if (bytes > SIZE_MAX - PAGE)
		return cudaErrorMemoryAllocation;
	bytes = aligned(bytes ? bytes : 1, ALIGN);
	shared = aligned(shared, ALIGN);
	if (bytes <= shared / 4)
		b = find(pool, bytes);
	if (!b) {
		e = add_segment(pool, bytes <= shared / 4 ? shared : bytes, &s);
		if (e)
			return e;
		b = s->blocks;
	}
	split(b, bytes);
	b->used = true;
	*out = b;
	return cudaSuccess;
}

void gpu_pool_give(struct gpu_pool *pool, struct gpu_block *b)
{
	if (!b)
		return;
	b->used = false;
	if (b->after && !b->after->used)
		join(b);
	if (b->before && !b->before->used) {
		b = b->before;
		join(b);
	}
	if (!b->before && !b->after)
		remove_segment(pool, b->segment);
}

/* Pinned memory of the host -------------------------------------------------------------- */

struct gpu_pinned {
	void *p;
	size_t bytes;
	bool used;
	struct gpu_pinned *next;
};

/* The smallest kept block that is large enough, and not much larger; by the place of the pointer
 * to it. */
static struct gpu_pinned **find_kept(struct gpu_pinned_pool *pool, size_t bytes)
{
	struct gpu_pinned **best = nullptr;

	for (struct gpu_pinned **at = &pool->blocks; *at; at = &(*at)->next)
		if (!(*at)->used && (*at)->bytes >= bytes && (*at)->bytes / 2 <= bytes &&
		    (!best || (*at)->bytes < (*best)->bytes))
			best = at;
	return best;
}

cudaError_t gpu_pinned_take(struct gpu_pinned_pool *pool, size_t bytes, void **out)
{
	struct gpu_pinned *b, **kept;
	cudaError_t e;

	*out = nullptr;
	if (bytes > SIZE_MAX / 2)
		return cudaErrorMemoryAllocation;
	bytes = gpu_rounded(bytes ? bytes : 1);
	{
		std::lock_guard<std::mutex> hold(pool->lock);

		kept = find_kept(pool, bytes);
		if (kept) {
			(*kept)->used = true;
			pool->kept -= (*kept)->bytes;
			*out = (*kept)->p;
			return cudaSuccess;
		}
	}
	b = (struct gpu_pinned *)calloc(1, sizeof *b);
	if (!b)
		return cudaErrorMemoryAllocation;
	e = cudaMallocHost(&b->p, bytes);
	if (e == cudaErrorMemoryAllocation) {
		(void)cudaGetLastError();
		gpu_pinned_trim(pool);
		e = cudaMallocHost(&b->p, bytes);
	}
	if (e) {
		(void)cudaGetLastError();
		free(b);
		return e;
	}
	b->bytes = bytes;
	b->used = true;
	*out = b->p;
	std::lock_guard<std::mutex> hold(pool->lock);
	b->next = pool->blocks;
	pool->blocks = b;
	return cudaSuccess;
}

void gpu_pinned_give(struct gpu_pinned_pool *pool, void *p)
{
	struct gpu_pinned **at = &pool->blocks, *b;

	if (!p)
		return;
	{
		std::lock_guard<std::mutex> hold(pool->lock);

		while (*at && (*at)->p != p)
			at = &(*at)->next;
		b = *at;
		if (!b)
			return;
		if (b->bytes <= pool->keep - pool->kept) {
			b->used = false;
			pool->kept += b->bytes;
			return;
		}
		*at = b->next;
	}
	(void)cudaFreeHost(b->p);
	free(b);
}

void gpu_pinned_trim(struct gpu_pinned_pool *pool)
{
	std::lock_guard<std::mutex> hold(pool->lock);
	struct gpu_pinned **at = &pool->blocks;

	while (*at) {
		struct gpu_pinned *b = *at;

		if (b->used) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		pool->kept -= b->bytes;
		(void)cudaFreeHost(b->p);
		free(b);
	}
}
