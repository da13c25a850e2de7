#include "gpu/device.h"

hct_error gpu_slot_open(struct hct_device *d, struct gpu_slot *s, struct hct_diag *diag)
{
	/* a thread that waits sleeps: the CPU is wanted for other chunks */
	const unsigned asleep = cudaEventDisableTiming | cudaEventBlockingSync;
	cudaError_t e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);

	if (e)
		return gpu_device_error(d, diag, "cudaStreamCreateWithFlags", e);
	e = cudaEventCreateWithFlags(&s->wanted, cudaEventDisableTiming);
	if (!e)
		e = cudaEventCreateWithFlags(&s->tables, cudaEventDisableTiming);
	if (!e)
		e = cudaEventCreateWithFlags(&s->done, asleep);
	return gpu_device_error(d, diag, "cudaEventCreateWithFlags", e);
}

void gpu_slot_close(struct hct_device *d, struct gpu_slot *s)
{
	for (cudaEvent_t event : {s->wanted, s->tables, s->done})
		if (event)
			(void)cudaEventDestroy(event);
	if (s->stream)
		(void)cudaStreamDestroy(s->stream);
	gpu_pool_give(&d->pool, s->memory);
	gpu_pinned_give(&d->pinned, s->pinned);
}

void gpu_slot_set(struct hct_device *d, struct gpu_slot *s, enum gpu_slot_state state)
{
	s->state = state;
	d->changed.notify_all();
}

/* Waits until a batch that was on its way is done; false when none is. */
static bool wait_for_one(struct hct_device *d, std::unique_lock<std::mutex> &lock)
{
	struct gpu_slot *first = nullptr;
	bool busy = false;

	for (unsigned i = 0; i < d->slot_count; i++) {
		struct gpu_slot *s = &d->slots[i];

		if (s->state == GPU_FLYING && (!first || s->number < first->number))
			first = s;
		busy |= s->state == GPU_FILLING || s->state == GPU_LANDING;
	}
	if (first)
		gpu_land(d, first, lock);
	else if (busy)
		d->changed.wait(lock);
	return first || busy;
}

/* Gives back the memory of an idle slot; false when none has any. */
static bool strip_one(struct hct_device *d)
{
	for (unsigned i = 0; i < d->slot_count; i++) {
		struct gpu_slot *s = &d->slots[i];

		if (s->state == GPU_IDLE && s->memory) {
			gpu_pool_give(&d->pool, s->memory);
			s->memory = nullptr;
			return true;
		}
	}
	return false;
}

bool gpu_make_room(struct hct_device *d, std::unique_lock<std::mutex> &lock)
{
	/* Tables have a quarter for certain; beyond it, batches come first. */
	if (d->tables.bytes > d->pool.limit / 4 && gpu_tables_evict(&d->tables, &d->pool))
		return true;
	/* A batch's memory is of the right size for the next one. */
	return wait_for_one(d, lock) || strip_one(d) || gpu_tables_evict(&d->tables, &d->pool);
}

/* The idle slot whose memory is the least that suffices, or else the least. */
static struct gpu_slot *best_idle(struct hct_device *d, size_t bytes)
{
	struct gpu_slot *best = nullptr;
	bool best_suffices = false;

	for (unsigned i = 0; i < d->slot_count; i++) {
		struct gpu_slot *s = &d->slots[i];
		size_t has = s->memory ? s->memory->bytes : 0;
		bool suffices = has >= bytes;

		if (s->state != GPU_IDLE)
			continue;
		if (!best || suffices > best_suffices ||
		    (suffices == best_suffices && has < (best->memory ? best->memory->bytes : 0))) {
			best = s;
			best_suffices = suffices;
		}
	}
	return best;
}

struct gpu_slot *gpu_slot_take(struct hct_device *d, size_t bytes, cudaError_t *e,
			       std::unique_lock<std::mutex> &lock)
{
	size_t more = gpu_rounded(bytes);

	*e = cudaSuccess;
	if (more > d->pool.limit)
		more = bytes;
	for (;;) {
		struct gpu_slot *s = best_idle(d, bytes);

		if (!s) {
			wait_for_one(d, lock);
			continue;
		}
		if (!s->memory || s->memory->bytes < bytes) {
			gpu_pool_give(&d->pool, s->memory);
			s->memory = nullptr;
			*e = gpu_pool_take(&d->pool, more, &s->memory);
		}
		if (!*e) {
			s->state = GPU_GATHERING;
			return s;
		}
		if (*e != cudaErrorMemoryAllocation || !gpu_make_room(d, lock))
			return nullptr;
		*e = cudaSuccess;
	}
}

cudaError_t gpu_slot_pin(struct hct_device *d, struct gpu_slot *s, size_t bytes)
{
	void *p;
	cudaError_t e;

	if (s->pinned_bytes >= bytes)
		return cudaSuccess;
	gpu_pinned_give(&d->pinned, s->pinned);
	s->pinned = nullptr;
	s->pinned_bytes = 0;
	bytes = gpu_rounded(bytes);
	e = gpu_pinned_take(&d->pinned, bytes, &p);
	if (!e) {
		s->pinned = (uint8_t *)p;
		s->pinned_bytes = bytes;
	}
	return e;
}
