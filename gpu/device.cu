/* The plug-in: what libhct finds in it. */
#include "gpu/device.h"
#include "gpu/search.h"

#include <cstdio>
#include <cstring>
#include <new>

#define DEFAULT_SLOTS 4
#define MOST_MEMORY   ((uint64_t)2 << 30)

hct_error gpu_device_error(struct hct_device *d, struct hct_diag *diag, const char *function,
			   cudaError_t e)
{
	struct hct_diag line;
	hct_error error = gpu_cuda_error(&line, d->context.number, function, e);

	if (error && error != HCT_ERR_NOMEM) {
		std::lock_guard<std::mutex> lock(d->lock);

		if (!d->lost)
			snprintf(d->why_lost, sizeof d->why_lost, "%.500s", line.text);
		d->lost = true;
	}
	if (error && diag)
		*diag = line;
	return error;
}

hct_error gpu_device_ready(struct hct_device *d, const gpu_current &current, struct hct_diag *diag)
{
	if (d->lost) {
		std::lock_guard<std::mutex> lock(d->lock);

		return gpu_fail(diag, HCT_ERR_IO, "%s: the device is lost", d->why_lost);
	}
	return gpu_device_error(d, diag, "cuCtxPushCurrent", current.error());
}

static int count(struct hct_diag *diag)
{
	int n = 0;
	cudaError_t e = cudaGetDeviceCount(&n);

	return gpu_cuda_error(diag, -1, "cudaGetDeviceCount", e) ? 0 : n;
}

static hct_error describe_device(struct hct_device *d, struct hct_diag *diag)
{
	struct cudaDeviceProp properties;
	cudaError_t e = cudaGetDeviceProperties(&properties, d->context.number);

	if (!e)
		snprintf(d->name, sizeof d->name, "%s", properties.name);
	return gpu_device_error(d, diag, "cudaGetDeviceProperties", e);
}

static hct_error set_bounds(struct hct_device *d, const struct hct_device_options *options,
			    struct hct_diag *diag)
{
	size_t free_bytes, total;
	cudaError_t e;

	d->pool.limit = options->memory;
	if (!options->memory) {
		e = cudaMemGetInfo(&free_bytes, &total);
		if (e)
			return gpu_device_error(d, diag, "cudaMemGetInfo", e);
		d->pool.limit = free_bytes / 2 < MOST_MEMORY ? free_bytes / 2 : MOST_MEMORY;
	}
	d->pinned.keep = d->pool.limit / 4;
	return HCT_OK;
}

static hct_error open_slots(struct hct_device *d, unsigned wanted, struct hct_diag *diag)
{
	if (!wanted)
		wanted = DEFAULT_SLOTS;
	if (wanted > GPU_MAX_SLOTS)
		wanted = GPU_MAX_SLOTS;
	while (d->slot_count < wanted) {
		hct_error error = gpu_slot_open(d, &d->slots[d->slot_count++], diag);

		if (error)
			return error;
	}
	return HCT_OK;
}

/* With the context current. */
static hct_error prepare(struct hct_device *d, const struct hct_device_options *options,
			 struct hct_diag *diag)
{
	hct_error error = describe_device(d, diag);
	cudaError_t e;

	if (!error)
		error = set_bounds(d, options, diag);
	if (error)
		return error;
	e = gpu_decode_open(&d->limits);
	if (e)
		return gpu_device_error(d, diag, "loading of kernels", e);
	e = cudaStreamCreateWithFlags(&d->uploads, cudaStreamNonBlocking);
	if (!e)
		e = cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking);
	if (e)
		return gpu_device_error(d, diag, "cudaStreamCreateWithFlags", e);
	return open_slots(d, options->batches, diag);
}

static void close_device(hct_device *d)
{
	if (!d)
		return;
	if (d->context.primary) {
		gpu_current current(&d->context);

		for (unsigned i = 0; i < d->slot_count; i++)
			gpu_slot_close(d, &d->slots[i]);
		for (cudaStream_t stream : {d->uploads, d->copies})
			if (stream)
				(void)cudaStreamDestroy(stream);
		while (gpu_tables_evict(&d->tables, &d->pool))
			;
		gpu_pinned_trim(&d->pinned);
		(void)cudaGetLastError(); /* of a device that is lost */
	}
	gpu_context_close(&d->context);
	delete d;
}

static hct_error open_device(const struct hct_device_options *options, hct_device **out,
			     struct hct_diag *diag)
{
	hct_device *d = new (std::nothrow) hct_device();
	hct_error error;

	*out = nullptr;
	if (!d)
		return gpu_cuda_error(diag, options->number, "new", cudaErrorMemoryAllocation);
	error = gpu_context_open(&d->context, options->number, diag);
	if (!error) {
		gpu_current current(&d->context);

		error = gpu_device_ready(d, current, diag);
		if (!error)
			error = prepare(d, options, diag);
	}
	if (error) {
		close_device(d);
		return error;
	}
	*out = d;
	return HCT_OK;
}

static const char *describe(const hct_device *d)
{
	return d->name;
}

static hct_error alloc(hct_device *d, size_t bytes, void **out, struct hct_diag *diag)
{
	gpu_current current(&d->context);
	hct_error error = gpu_device_ready(d, current, diag);

	*out = nullptr;
	if (error)
		return error;
	return gpu_device_error(d, diag, "cudaMalloc", cudaMalloc(out, bytes ? bytes : 1));
}

static void free_memory(hct_device *d, void *p)
{
	gpu_current current(&d->context);

	(void)gpu_device_error(d, nullptr, "cudaFree", cudaFree(p));
}

static hct_error alloc_host(hct_device *d, size_t bytes, void **out, struct hct_diag *diag)
{
	gpu_current current(&d->context);
	hct_error error = gpu_device_ready(d, current, diag);

	*out = nullptr;
	if (error)
		return error;
	return gpu_device_error(d, diag, "cudaMallocHost", gpu_pinned_take(&d->pinned, bytes, out));
}

static void free_host(hct_device *d, void *p)
{
	gpu_current current(&d->context);

	gpu_pinned_give(&d->pinned, p);
}

static hct_error copy(hct_device *d, void *to, const void *from, size_t bytes, void *after,
		      struct hct_diag *diag)
{
	gpu_current current(&d->context);
	cudaStream_t stream = after ? (cudaStream_t)after : d->copies;
	hct_error error = gpu_device_ready(d, current, diag);
	cudaError_t e;

	if (error)
		return error;
	e = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
	if (e)
		return gpu_device_error(d, diag, "cudaMemcpyAsync", e);
	return gpu_device_error(d, diag, "cudaStreamSynchronize", cudaStreamSynchronize(stream));
}

extern "C" __attribute__((visibility("default"))) const struct hct_device_class hct_device_class;
const struct hct_device_class hct_device_class = {
	HCT_DEVICE_ABI, "cuda",     count,     open_device, close_device, describe, alloc,
	free_memory,    alloc_host, free_host, copy,        gpu_submit,   gpu_wait, &gpu_search};
