/* A batch on its way through the device: input, lists and tables go up, kernels run, results come
 * down, all in the stream of its slot, so that copies of one batch go on beside kernels of
 * another. */
#include <cstdlib>
#include <cstring>

#include "gpu/device.h"

struct gpu_flight {
	struct hct_device_batch *batch;
	struct gpu_slot *slot;
	bool landed;
	hct_error error; /* once it has landed; with its line: */
	struct hct_diag diag;

	struct gpu_work work;
	const char *function; /* of CUDA's, that was called last; NULL: the bound is too small */
	/* Where parts begin in the slot's memory, and in what is pinned. */
	struct {
		size_t in, work, bad, values, out, end;
	} device;
	struct {
		size_t work, bad, output, tables, end;
	} host;
	size_t output_from, output_end; /* of the output, that goes through pinned memory */

	struct gpu_table **tables; /* [table_count]; NULL where it has none yet */
	uint64_t *addresses;       /* [table_count] */
	uint8_t *fresh;            /* [table_count]: this batch has to upload it */
	uint8_t *unpinned;         /* [copy_count]: to memory that CUDA does not know */
};

/* Calls a function of CUDA's, and returns its error if there is one. */
#define TRY(f, called, ...)                                                                        \
	do {                                                                                       \
		cudaError_t try_error;                                                             \
                                                                                                   \
		(f)->function = #called;                                                           \
		try_error = called(__VA_ARGS__);                                                   \
		if (try_error)                                                                     \
			return try_error;                                                          \
	} while (0)

static struct gpu_flight *new_flight(struct hct_device_batch *batch)
{
	size_t n = batch->table_count;
	size_t bytes = n * (sizeof(struct gpu_table *) + sizeof(uint64_t) + 1) + batch->copy_count;
	struct gpu_flight *f = (struct gpu_flight *)calloc(1, sizeof *f + bytes);

	if (!f)
		return nullptr;
	f->batch = batch;
	f->tables = (struct gpu_table **)(f + 1);
	f->addresses = (uint64_t *)(f->tables + n);
	f->fresh = (uint8_t *)(f->addresses + n);
	f->unpinned = f->fresh + n;
	return f;
}

/* Where so many bytes are, behind those before. */
static size_t place(size_t *end, size_t bytes)
{
	size_t at = *end;

	*end = (at + bytes + 255) / 256 * 256;
	return at;
}

/* Memory -------------------------------------------------------------------------------- */

/* Copies to memory that is not pinned would be done while submit waits for them: these go through
 * memory that is, and on from there when the batch lands. */
static cudaError_t sort_copies(struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;

	for (size_t i = 0; i < batch->copy_count; i++) {
		const struct hct_device_copy *c = &batch->copies[i];
		cudaPointerAttributes known;

		TRY(f, cudaPointerGetAttributes, &known, c->to);
		f->unpinned[i] = c->bytes && known.type == cudaMemoryTypeUnregistered;
		if (!f->unpinned[i])
			continue;
		if (!f->output_end || c->from < f->output_from)
			f->output_from = c->from;
		if (c->from + c->bytes > f->output_end)
			f->output_end = c->from + c->bytes;
	}
	return cudaSuccess;
}

static void lay_out_device(struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;
	size_t *end = &f->device.end;

	f->device.in = place(end, batch->in_on_device ? 0 : batch->in_bytes);
	f->device.work = place(end, gpu_work_bytes(batch));
	f->device.bad = place(end, batch->items * sizeof *batch->bad);
	f->device.values = place(end, batch->values_bytes);
	f->device.out = place(end, batch->out ? 0 : batch->out_bytes);
}

static void lay_out_host(struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;
	size_t *end = &f->host.end;

	f->host.work = place(end, gpu_work_bytes(batch));
	f->host.bad = place(end, batch->items * sizeof *batch->bad);
	f->host.output = place(end, f->output_end - f->output_from);
	f->host.tables = *end;
	for (size_t i = 0; i < batch->table_count; i++)
		if (f->fresh[i])
			place(end, batch->tables[i].bytes);
}

/* Tables that are there already, so that nobody evicts them now; returns the bytes of others. */
static size_t use_tables(struct hct_device *d, struct gpu_flight *f)
{
	size_t missing = 0;

	for (size_t i = 0; i < f->batch->table_count; i++) {
		const struct hct_device_tables *t = &f->batch->tables[i];

		f->tables[i] = gpu_tables_use(&d->tables, t->key);
		if (!f->tables[i])
			missing += t->bytes;
	}
	return missing;
}

static cudaError_t add_table(struct hct_device *d, const struct hct_device_tables *t,
			     struct gpu_table **out, std::unique_lock<std::mutex> &lock)
{
	struct gpu_block *block;
	cudaError_t e;

	while ((e = gpu_pool_take(&d->pool, t->bytes, &block)) == cudaErrorMemoryAllocation)
		if (!gpu_make_room(d, lock))
			break;
	if (e)
		return e;
	*out = gpu_tables_add(&d->tables, t->key, block);
	if (!*out) {
		gpu_pool_give(&d->pool, block);
		return cudaErrorMemoryAllocation;
	}
	return cudaSuccess;
}

/* A slot, and memory for what is not on the device yet. */
static cudaError_t take_memory(struct hct_device *d, struct gpu_flight *f,
			       std::unique_lock<std::mutex> &lock)
{
	const struct hct_device_batch *batch = f->batch;
	size_t missing = use_tables(d, f);
	cudaError_t e;

	if (missing > d->pool.limit || f->device.end > d->pool.limit - missing) {
		f->function = nullptr;
		return cudaErrorMemoryAllocation;
	}
	f->function = "cudaMalloc";
	f->slot = gpu_slot_take(d, f->device.end, &e, lock);
	if (!f->slot)
		return e;
	for (size_t i = 0; i < batch->table_count; i++) {
		if (!f->tables[i]) /* unless it is twice in the batch */
			f->tables[i] = gpu_tables_use(&d->tables, batch->tables[i].key);
		if (!f->tables[i]) {
			e = add_table(d, &batch->tables[i], &f->tables[i], lock);
			if (e)
				return e;
			f->fresh[i] = 1;
		}
		f->addresses[i] = (uint64_t)(uintptr_t)f->tables[i]->block->p;
	}
	return cudaSuccess;
}

static cudaError_t upload_tables(struct hct_device *d, struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;
	size_t at = f->host.tables;

	for (size_t i = 0; i < batch->table_count; i++) {
		const struct hct_device_tables *t = &batch->tables[i];
		uint8_t *pinned;

		if (!f->fresh[i])
			continue;
		pinned = f->slot->pinned + place(&at, t->bytes);
		memcpy(pinned, t->flat, t->bytes);
		TRY(f, cudaMemcpyAsync, f->tables[i]->block->p, pinned, t->bytes,
		    cudaMemcpyHostToDevice, d->uploads);
	}
	/* also for those that another batch has put on their way */
	TRY(f, cudaEventRecord, f->slot->tables, d->uploads);
	return cudaSuccess;
}

static void leave_tables(struct gpu_flight *f)
{
	for (size_t i = 0; i < f->batch->table_count; i++)
		if (f->tables[i])
			f->tables[i]->users--;
}

/* Undoes a gathering that failed.  Nobody else uses the tables yet that it put into the cache. */
static void let_go(struct hct_device *d, struct gpu_flight *f)
{
	leave_tables(f);
	for (size_t i = 0; i < f->batch->table_count; i++)
		if (f->fresh[i])
			gpu_tables_remove(&d->tables, f->tables[i], &d->pool);
	if (f->slot)
		gpu_slot_set(d, f->slot, GPU_IDLE);
}

static hct_error failed(struct hct_device *d, struct gpu_flight *f, struct hct_diag *diag,
			cudaError_t e)
{
	if (f->function)
		return gpu_device_error(d, diag, f->function, e);
	return gpu_fail(diag, HCT_ERR_NOMEM,
			"cuda:%d: a batch of %zu bytes, without its tables, where %llu may be held",
			d->context.number, f->device.end, (unsigned long long)d->pool.limit);
}

/* All that a batch needs before it can begin. */
static hct_error gather(struct hct_device *d, struct gpu_flight *f, struct hct_diag *diag)
{
	cudaError_t e = sort_copies(f);

	if (e)
		return failed(d, f, diag, e);
	lay_out_device(f);
	std::lock_guard<std::mutex> turn(d->turn);
	std::unique_lock<std::mutex> lock(d->lock);

	e = take_memory(d, f, lock);
	lock.unlock();
	if (!e) {
		lay_out_host(f);
		f->function = "cudaMallocHost";
		e = gpu_slot_pin(d, f->slot, f->host.end);
	}
	if (!e) {
		e = upload_tables(d, f);
		if (e)
			(void)cudaStreamSynchronize(d->uploads);
	}
	lock.lock();
	if (!e) {
		f->slot->number = d->batches++;
		gpu_slot_set(d, f->slot, GPU_FILLING);
		return HCT_OK;
	}
	let_go(d, f);
	lock.unlock();
	return failed(d, f, diag, e);
}

/* Work ---------------------------------------------------------------------------------- */

/* What is copied straight to where it is wanted. */
static cudaError_t copy_results(struct gpu_flight *f, const uint8_t *out)
{
	const struct hct_device_batch *batch = f->batch;
	cudaStream_t stream = f->slot->stream;

	for (size_t i = 0; i < batch->copy_count;) {
		const struct hct_device_copy *c = &batch->copies[i];
		size_t bytes = c->bytes, k = i + 1;

		/* chunks that follow one another go together */
		while (k < batch->copy_count && !f->unpinned[i] && !f->unpinned[k] &&
		       batch->copies[k].from == c->from + bytes &&
		       batch->copies[k].to == (uint8_t *)c->to + bytes)
			bytes += batch->copies[k++].bytes;
		if (bytes && !f->unpinned[i])
			TRY(f, cudaMemcpyAsync, c->to, out + c->from, bytes, cudaMemcpyDefault,
			    stream);
		i = k;
	}
	return cudaSuccess;
}

static cudaError_t put_down(struct gpu_flight *f, const uint8_t *out)
{
	struct gpu_slot *s = f->slot;

	TRY(f, copy_results, f, out);
	if (f->output_end > f->output_from)
		TRY(f, cudaMemcpyAsync, s->pinned + f->host.output, out + f->output_from,
		    f->output_end - f->output_from, cudaMemcpyDeviceToHost, s->stream);
	if (f->batch->items)
		TRY(f, cudaMemcpyAsync, s->pinned + f->host.bad, s->memory->p + f->device.bad,
		    f->batch->items * sizeof *f->batch->bad, cudaMemcpyDeviceToHost, s->stream);
	TRY(f, cudaEventRecord, s->done, s->stream);
	return cudaSuccess;
}

static cudaError_t put_up(struct gpu_flight *f, const struct gpu_memory *memory,
			  const struct gpu_limits *limits)
{
	const struct hct_device_batch *batch = f->batch;
	struct gpu_slot *s = f->slot;
	uint8_t *work = s->pinned + f->host.work;
	size_t work_bytes = gpu_work_bytes(batch);

	if (batch->in_bytes && !batch->in_on_device)
		TRY(f, cudaMemcpyAsync, s->memory->p + f->device.in, batch->in, batch->in_bytes,
		    cudaMemcpyHostToDevice, s->stream);
	gpu_work_pack(batch, limits, f->addresses, &f->work, work);
	if (work_bytes)
		TRY(f, cudaMemcpyAsync, s->memory->p + f->device.work, work, work_bytes,
		    cudaMemcpyHostToDevice, s->stream);
	if (batch->items)
		TRY(f, cudaMemsetAsync, memory->bad, 0, batch->items * sizeof *batch->bad,
		    s->stream);
	TRY(f, cudaStreamWaitEvent, s->stream, s->tables, 0);
	return cudaSuccess;
}

/* Puts everything into the slot's stream. */
static cudaError_t begin(struct hct_device *d, struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;
	struct gpu_slot *s = f->slot;
	uint8_t *p = s->memory->p;
	uint8_t *out = batch->out ? (uint8_t *)batch->out : p + f->device.out;
	const struct gpu_memory memory = {p + f->device.work,
					  batch->in_on_device ? batch->in : p + f->device.in, out,
					  p + f->device.values, (uint32_t *)(p + f->device.bad)};
	cudaError_t e;

	if (batch->stream)
		TRY(f, cudaEventRecord, s->wanted, (cudaStream_t)batch->stream);
	TRY(f, put_up, f, &memory, &d->limits);
	/* as late as possible: the input goes up while the caller's kernels still run */
	if (batch->stream && batch->out)
		TRY(f, cudaStreamWaitEvent, s->stream, s->wanted, 0);
	f->function = "launch of kernels";
	e = gpu_work_launch(&f->work, &memory, s->stream);
	if (e)
		return e;
	if (batch->stream && !batch->out)
		TRY(f, cudaStreamWaitEvent, s->stream, s->wanted, 0);
	TRY(f, put_down, f, out);
	return cudaSuccess;
}

static hct_error take_off(struct hct_device *d, struct gpu_flight *f, struct hct_diag *diag)
{
	std::unique_lock<std::mutex> lock(d->lock, std::defer_lock);
	cudaError_t e = begin(d, f);

	if (e) { /* nothing of the caller's may be in use when this returns */
		(void)cudaStreamSynchronize(d->uploads);
		(void)cudaStreamSynchronize(f->slot->stream);
	}
	lock.lock();
	if (!e) {
		f->slot->flight = f;
		gpu_slot_set(d, f->slot, GPU_FLYING);
		return HCT_OK;
	}
	leave_tables(f);
	gpu_slot_set(d, f->slot, GPU_IDLE);
	lock.unlock();
	return failed(d, f, diag, e);
}

hct_error gpu_submit(struct hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag)
{
	gpu_current current(&d->context);
	hct_error error = gpu_device_ready(d, current, diag);
	struct gpu_flight *f;

	if (error)
		return error;
	f = new_flight(batch);
	if (!f)
		return gpu_device_error(d, diag, "calloc", cudaErrorMemoryAllocation);
	error = gather(d, f, diag);
	if (!error)
		error = take_off(d, f, diag);
	if (error) {
		free(f);
		return error;
	}
	batch->slot = f;
	return HCT_OK;
}

/* Results ------------------------------------------------------------------------------- */

/* To memory that is not pinned. */
static void hand_out(struct gpu_flight *f)
{
	const struct hct_device_batch *batch = f->batch;
	const uint8_t *pinned = f->slot->pinned;

	for (size_t i = 0; i < batch->copy_count; i++) {
		const struct hct_device_copy *c = &batch->copies[i];

		if (f->unpinned[i])
			memcpy(c->to, pinned + f->host.output + (c->from - f->output_from),
			       c->bytes);
	}
	if (batch->items)
		memcpy(batch->bad, pinned + f->host.bad, batch->items * sizeof *batch->bad);
}

void gpu_land(struct hct_device *d, struct gpu_slot *s, std::unique_lock<std::mutex> &lock)
{
	struct gpu_flight *f = s->flight;
	cudaError_t e;

	s->state = GPU_LANDING;
	lock.unlock();
	e = cudaEventSynchronize(s->done);
	if (e)
		(void)cudaStreamSynchronize(s->stream);
	else
		hand_out(f);
	f->error = gpu_device_error(d, &f->diag, "cudaEventSynchronize", e);
	lock.lock();
	leave_tables(f);
	s->flight = nullptr;
	f->landed = true;
	gpu_slot_set(d, s, GPU_IDLE);
}

hct_error gpu_wait(struct hct_device *d, struct hct_device_batch *batch, struct hct_diag *diag)
{
	struct gpu_flight *f = (struct gpu_flight *)batch->slot;
	gpu_current current(&d->context);
	hct_error error;

	{
		std::unique_lock<std::mutex> lock(d->lock);

		while (!f->landed) {
			if (f->slot->state == GPU_FLYING)
				gpu_land(d, f->slot, lock);
			else
				d->changed.wait(lock);
		}
	}
	error = f->error;
	if (error && diag)
		*diag = f->diag;
	free(f);
	batch->slot = nullptr;
	return error;
}
