/* The host's side: memory, streams, errors. */
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda.h"
#include "cuda_runtime.h"
#include "emulator.h"

#define SHOWN __attribute__((visibility("default")))

struct emulated_stream {
	std::deque<std::function<void()>> waiting;
	size_t done; /* of all that was put in it */
};

struct emulated_event {
	cudaStream_t stream; /* or NULL: there is nothing to wait for */
	size_t at;           /* done by then */
};

struct emulated_context {
	int device;
	int retained;
};

namespace
{

struct allocation {
	size_t size;
	bool host;
};

/* Of all; kernels run one at a time, too. */
std::recursive_mutex everything;
using hold = std::lock_guard<std::recursive_mutex>;

std::map<const void *, allocation> memory;
std::vector<cudaStream_t> streams;
std::map<std::string, unsigned long> calls;
std::map<int, emulated_context> contexts;
size_t events, bytes_up, device_bytes, most_device_bytes;

thread_local cudaError_t last_error;
thread_local int current_device;
thread_local std::vector<CUcontext> current_contexts;

[[noreturn]] void stop(const char *why)
{
	fprintf(stderr, "CUDA emulator: %s\n", why);
	abort();
}

/* Whether this call is one that is to fail. */
bool fails(const char *name)
{
	hold h(everything);
	static std::string last;
	static unsigned long made;
	const char *fail = getenv("CUDA_EMULATOR_FAIL");
	unsigned long from = 0, count = 0;
	char wanted[64];
	int n;

	calls[name]++;
	if (!fail || last != fail)
		made = 0;
	last = fail ? fail : "";
	if (!fail)
		return false;
	n = sscanf(fail, "%63[^:]:%lu:%lu", wanted, &from, &count);
	if (n < 2 || (strcmp(wanted, "any") && strcmp(wanted, name)))
		return false;
	made++;
	return made >= from && (n < 3 || made < from + count);
}

cudaError_t give(cudaError_t e)
{
	if (e)
		last_error = e;
	return e;
}

cudaError_t outcome(const char *name)
{
	return fails(name) ? give(cudaErrorLaunchFailure) : cudaSuccess;
}

int device_count()
{
	const char *text = getenv("CUDA_EMULATOR_DEVICES");

	return text ? atoi(text) : 1;
}

/* Does what is in a stream until so much is done. */
void run(cudaStream_t s, size_t until)
{
	while (s->done < until && !s->waiting.empty()) {
		std::function<void()> next = std::move(s->waiting.front());

		s->waiting.pop_front();
		next();
		s->done++;
	}
}

void finish(cudaStream_t s)
{
	run(s, s->done + s->waiting.size());
}

bool is_own(cudaStream_t s)
{
	/* the default streams have numbers for names */
	return (uintptr_t)s > 2;
}

/* At once, or late: as late as a program can see. */
void put(cudaStream_t s, std::function<void()> work)
{
	hold h(everything);

	if (!is_own(s)) {
		work();
		return;
	}
	s->waiting.push_back(std::move(work));
	if (!getenv("CUDA_EMULATOR_LATE"))
		finish(s);
}

/* What p points into. */
const allocation *find(const void *p)
{
	auto at = memory.upper_bound(p);

	if (at == memory.begin())
		return nullptr;
	--at;
	return (const char *)p < (const char *)at->first + at->second.size ? &at->second : nullptr;
}

void *allocate(size_t size, bool host)
{
	hold h(everything);
	void *p = nullptr;

	if (posix_memalign(&p, host ? 4096 : 256, size ? size : 1))
		return nullptr;
	memset(p, 0x5a, size);
	memory[p] = {size ? size : 1, host};
	if (!host) {
		device_bytes += size;
		if (device_bytes > most_device_bytes)
			most_device_bytes = device_bytes;
	}
	return p;
}

void release(void *p, bool host)
{
	hold h(everything);
	auto at = memory.find(p);

	if (!p)
		return;
	if (at == memory.end() || at->second.host != host)
		stop("memory is freed that was not allocated so");
	/* waits for what may still use it */
	for (cudaStream_t s : streams)
		finish(s);
	if (!host)
		device_bytes -= at->second.size;
	memory.erase(at);
	free(p);
}

} // namespace

void emulator::launch(cudaStream_t stream, dim3 blocks, dim3 threads, size_t shared,
		      const std::function<void()> &kernel)
{
	if (fails("launch"))
		give(cudaErrorLaunchFailure);
	else if (shared > emulator::MAX_SHARED || threads.x * threads.y * threads.z > 1024 ||
		 !blocks.x || blocks.y > 65535 || blocks.z > 65535 || !threads.x)
		give(cudaErrorInvalidValue);
	else
		put(stream, [=] { emulator::run_kernel(blocks, threads, shared, kernel); });
}

extern "C" {

SHOWN unsigned long emulator_calls(const char *name)
{
	hold h(everything);

	return calls[name];
}

SHOWN size_t emulator_bytes_up(void)
{
	hold h(everything);

	return bytes_up;
}

SHOWN size_t emulator_held(void)
{
	hold h(everything);
	size_t n = memory.size() + streams.size() + events;

	for (const auto &c : contexts)
		n += (size_t)c.second.retained;
	return n;
}

SHOWN size_t emulator_waiting(void)
{
	hold h(everything);
	size_t n = 0;

	for (cudaStream_t s : streams)
		n += s->waiting.size();
	return n;
}

SHOWN size_t emulator_memory(size_t *most)
{
	hold h(everything);

	*most = most_device_bytes;
	most_device_bytes = device_bytes;
	return device_bytes;
}

SHOWN int emulator_contexts(void)
{
	return (int)current_contexts.size();
}

SHOWN int emulator_current_device(void)
{
	return current_device;
}

SHOWN void *emulator_stream(void)
{
	cudaStream_t s;

	return cudaStreamCreateWithFlags(&s, 0) ? nullptr : s;
}

SHOWN void emulator_stream_put(void *stream, void (*work)(void *arg), void *arg)
{
	put((cudaStream_t)stream, [=] { work(arg); });
}

SHOWN void emulator_stream_destroy(void *stream)
{
	(void)cudaStreamDestroy((cudaStream_t)stream);
}

/* Devices and contexts ------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *count)
{
	*count = device_count();
	if (fails("cudaGetDeviceCount"))
		return give(cudaErrorLaunchFailure);
	return give(*count ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device)
{
	*device = current_contexts.empty() ? current_device : current_contexts.back()->device;
	return outcome("cudaGetDevice");
}

cudaError_t cudaSetDevice(int device)
{
	if (device < 0 || device >= device_count())
		return give(cudaErrorInvalidDevice);
	current_device = device;
	return outcome("cudaSetDevice");
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
	if (device < 0 || device >= device_count())
		return give(cudaErrorInvalidDevice);
	memset(p, 0, sizeof *p);
	snprintf(p->name, sizeof p->name, "emulated");
	p->totalGlobalMem = (size_t)1 << 30;
	p->sharedMemPerBlockOptin = emulator::MAX_SHARED;
	p->multiProcessorCount = 1;
	p->major = 9;
	return outcome("cudaGetDeviceProperties");
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
	if (device < 0 || device >= device_count())
		return give(cudaErrorInvalidDevice);
	*value = attribute == cudaDevAttrMultiProcessorCount ? 1 : (int)emulator::MAX_SHARED;
	return outcome("cudaDeviceGetAttribute");
}

static CUresult driver_result(const char *name)
{
	return fails(name) ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

static CUresult retain(CUcontext *out, CUdevice device)
{
	hold h(everything);
	CUresult e = driver_result("cuDevicePrimaryCtxRetain");

	if (e)
		return e;
	contexts[device].device = device;
	contexts[device].retained++;
	*out = &contexts[device];
	return e;
}

static CUresult release_context(CUdevice device)
{
	hold h(everything);

	if (!contexts[device].retained--)
		stop("a context is released that was not retained");
	return CUDA_SUCCESS;
}

static CUresult push(CUcontext context)
{
	CUresult e = driver_result("cuCtxPushCurrent");

	if (!e)
		current_contexts.push_back(context);
	return e;
}

static CUresult pop(CUcontext *context)
{
	if (current_contexts.empty())
		return CUDA_ERROR_INVALID_CONTEXT;
	*context = current_contexts.back();
	current_contexts.pop_back();
	return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned,
					     unsigned long long,
					     enum cudaDriverEntryPointQueryResult *found)
{
	static const std::map<std::string, void *> functions = {
		{"cuDevicePrimaryCtxRetain", (void *)retain},
		{"cuDevicePrimaryCtxRelease", (void *)release_context},
		{"cuCtxPushCurrent", (void *)push},
		{"cuCtxPopCurrent", (void *)pop},
	};
	auto at = functions.find(name);

	*out = at == functions.end() ? nullptr : at->second;
	*found = *out ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
	return outcome("cudaGetDriverEntryPointByVersion");
}

/* Memory -------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **p, size_t size)
{
	*p = fails("cudaMalloc") ? nullptr : allocate(size, false);
	return *p ? cudaSuccess : give(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *p)
{
	release(p, false);
	return outcome("cudaFree");
}

cudaError_t cudaMallocHost(void **p, size_t size)
{
	*p = fails("cudaMallocHost") ? nullptr : allocate(size, true);
	return *p ? cudaSuccess : give(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
	release(p, true);
	return outcome("cudaFreeHost");
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
	*free_bytes = (size_t)1 << 29;
	*total = (size_t)1 << 30;
	return outcome("cudaMemGetInfo");
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
	hold h(everything);
	const allocation *m = find(p);

	a->type = !m        ? cudaMemoryTypeUnregistered
		  : m->host ? cudaMemoryTypeHost
			    : cudaMemoryTypeDevice;
	return outcome("cudaPointerGetAttributes");
}

static void count_copy(size_t n, enum cudaMemcpyKind kind)
{
	if (kind == cudaMemcpyHostToDevice)
		bytes_up += n;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
	hold h(everything);

	if (fails("cudaMemcpy"))
		return give(cudaErrorLaunchFailure);
	count_copy(n, kind);
	memcpy(to, from, n);
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
			    cudaStream_t s)
{
	hold h(everything);

	if (fails("cudaMemcpyAsync"))
		return give(cudaErrorLaunchFailure);
	count_copy(n, kind);
	put(s, [=] { memcpy(to, from, n); });
	/* memory that is not pinned is not left for later */
	if (is_own(s) && (!find(to) || !find(from)))
		finish(s);
	return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
	if (fails("cudaMemsetAsync"))
		return give(cudaErrorLaunchFailure);
	put(s, [=] { memset(p, value, n); });
	return cudaSuccess;
}

/* Streams and events -------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
	hold h(everything);

	if (fails("cudaStreamCreateWithFlags"))
		return give(cudaErrorLaunchFailure);
	*s = new emulated_stream();
	streams.push_back(*s);
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
	hold h(everything);

	for (size_t i = 0; i < streams.size(); i++)
		if (streams[i] == s) {
			finish(s);
			streams.erase(streams.begin() + (ptrdiff_t)i);
			delete s;
			return outcome("cudaStreamDestroy");
		}
	stop("a stream is destroyed that there is not");
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
	hold h(everything);

	if (is_own(s))
		finish(s);
	return outcome("cudaStreamSynchronize");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
	hold h(everything);

	if (fails("cudaEventCreateWithFlags"))
		return give(cudaErrorLaunchFailure);
	*e = new emulated_event();
	events++;
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
	hold h(everything);

	delete e;
	events--;
	return outcome("cudaEventDestroy");
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
	hold h(everything);

	if (fails("cudaEventRecord"))
		return give(cudaErrorLaunchFailure);
	e->stream = is_own(s) ? s : nullptr;
	e->at = is_own(s) ? s->done + s->waiting.size() : 0;
	return cudaSuccess;
}

/* A stream that was destroyed had done everything. */
static bool is_there(cudaStream_t s)
{
	for (cudaStream_t other : streams)
		if (other == s)
			return true;
	return false;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
	hold h(everything);
	cudaStream_t other = e->stream;
	size_t at = e->at;

	if (fails("cudaStreamWaitEvent"))
		return give(cudaErrorLaunchFailure);
	if (other)
		put(s, [=] {
			if (is_there(other))
				run(other, at);
		});
	return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
	hold h(everything);

	if (e->stream && is_there(e->stream))
		run(e->stream, e->at);
	return outcome("cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
	hold h(everything);

	if (e->stream && is_there(e->stream) && e->stream->done < e->at) {
		run(e->stream, e->stream->done + 1);
		return cudaErrorNotReady;
	}
	return outcome("cudaEventQuery");
}

/* Errors -------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
	cudaError_t e = last_error;

	last_error = cudaSuccess;
	return e;
}

cudaError_t cudaPeekAtLastError(void)
{
	return last_error;
}

const char *cudaGetErrorString(cudaError_t e)
{
	switch (e) {
	case cudaSuccess:
		return "no error";
	case cudaErrorMemoryAllocation:
		return "out of memory";
	case cudaErrorNoDevice:
		return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice:
		return "invalid device ordinal";
	case cudaErrorLaunchFailure:
		return "unspecified launch failure";
	default:
		return "invalid argument";
	}
}
}
