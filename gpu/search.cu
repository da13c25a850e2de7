#include "gpu/search.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "gpu/context.h"
#include "gpu/launch.cuh"
#include "gpu/search.cuh"

/* What a batch looks like in memory, in bytes from its beginning: what goes to the device, what
 * comes back, of which maps are part where they are chosen, and what stays there. */
struct layout {
	size_t segments, pairs, stand_in, columns, x; /* there */
	size_t maps;                                  /* there or back */
	size_t marks, planes, codes;                  /* back */
	size_t chosen;
	size_t end;
	size_t groups[HCT_VITERBI_BATCH]; /* of all segments before each */
};

struct hct_device_searcher {
	struct gpu_context context; /* without a primary one while it is not open */
	cudaStream_t stream;
	cudaEvent_t done;
	uint8_t *host, *device; /* of these bytes: */
	size_t host_bytes, device_bytes;
	char name[256];
};

static hct_error check(const struct hct_device_searcher *d, struct hct_diag *diag,
		       const char *function, cudaError_t e)
{
	return gpu_cuda_error(diag, d->context.number, function, e);
}

/* Takes place for so many bytes. */
static size_t place(size_t *end, size_t bytes)
{
	size_t at = *end;

	*end = (at + bytes + 255) / 256 * 256;
	return at;
}

static struct layout lay_out(const struct hct_viterbi *v, const struct hct_viterbi_segment *s,
			     size_t count)
{
	size_t classes = (size_t)v->row_classes * v->column_classes, groups = 0, end = 0;
	struct layout l;

	for (size_t i = 0; i < count; i++) {
		l.groups[i] = groups;
		groups += s[i].groups;
	}
	l.segments = place(&end, count * sizeof(struct search_segment));
	l.pairs = place(&end, 4 * search_pairs(v->row_classes, v->column_classes));
	l.stand_in = place(&end, classes * sizeof v->stand_in[0][0]);
	l.columns = place(&end, v->column_classes > 1 ? s->period + (size_t)HCT_GROUP : 0);
	l.x = place(&end, groups * HCT_GROUP * sizeof(float));
	l.maps = place(&end, groups); /* a run has a group at least */
	l.marks = place(&end, groups * sizeof(uint64_t));
	l.planes = place(&end, groups * v->raw_bits * sizeof(uint64_t));
	l.codes = place(&end, groups * HCT_GROUP);
	l.chosen = place(&end, groups * HCT_GROUP * (v->states_log2 == 5 ? 4 : 2));
	l.end = end;
	return l;
}

static size_t runs_of(const struct hct_viterbi_segment *s)
{
	return (s->groups + ((size_t)1 << s->run_log2) - 1) >> s->run_log2;
}

/* Memory for a batch. */
static hct_error reserve(struct hct_device_searcher *d, const struct layout *l,
			 struct hct_diag *diag)
{
	hct_error e = HCT_OK;

	if (d->host_bytes < l->chosen) {
		cudaFreeHost(d->host);
		d->host = nullptr;
		e = check(d, diag, "cudaMallocHost", cudaMallocHost((void **)&d->host, l->chosen));
		d->host_bytes = e ? 0 : l->chosen;
	}
	if (!e && d->device_bytes < l->end) {
		cudaFree(d->device);
		d->device = nullptr;
		e = check(d, diag, "cudaMalloc", cudaMalloc((void **)&d->device, l->end));
		d->device_bytes = e ? 0 : l->end;
	}
	return e;
}

/* Writes what goes to the device. */
static void pack(const struct hct_device_searcher *d, const struct layout *l,
		 const struct hct_viterbi *v, const struct hct_viterbi_segment *s, size_t count)
{
	struct search_segment *out = (struct search_segment *)(d->host + l->segments);
	uint32_t *pairs = (uint32_t *)(d->host + l->pairs);
	uint8_t *stand_in = d->host + l->stand_in;
	size_t words = 64 * (size_t)v->column_classes;

	for (unsigned k = 0; k < v->row_classes; k++) {
		for (unsigned p = 0; p < 2; p++, pairs += words)
			memcpy(pairs, v->pairs[k][p], words * sizeof *pairs);
		memcpy(stand_in, v->stand_in[k], v->column_classes * sizeof v->stand_in[0][0]);
		stand_in += v->column_classes * sizeof v->stand_in[0][0];
	}
	if (v->column_classes > 1)
		memcpy(d->host + l->columns, s->column_classes, s->period + (size_t)HCT_GROUP);
	for (size_t i = 0; i < count; i++) {
		size_t before = l->groups[i], word = v->states_log2 == 5 ? 4 : 2;
		size_t x = l->x + before * HCT_GROUP * sizeof(float);

		out[i].x = (const float *)(d->device + x);
		out[i].map = d->device + l->maps + before;
		out[i].codes = d->device + l->codes + before * HCT_GROUP;
		out[i].planes = (uint64_t *)(d->device + l->planes +
					     before * v->raw_bits * sizeof(uint64_t));
		out[i].marks = (uint64_t *)(d->device + l->marks + before * sizeof(uint64_t));
		out[i].chosen = d->device + l->chosen + before * HCT_GROUP * word;
		out[i].groups = (uint32_t)s[i].groups;
		out[i].column = s[i].column;
		memcpy(d->host + x, s[i].x, s[i].groups * HCT_GROUP * sizeof(float));
		if (!s->choose)
			memcpy(d->host + l->maps + before, s[i].map, runs_of(&s[i]));
	}
}

/* Points the segments to what came back. */
static void unpack(const struct hct_device_searcher *d, const struct layout *l,
		   const struct hct_viterbi *v, struct hct_viterbi_segment *s, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t before = l->groups[i];

		s[i].codes = d->host + l->codes + before * HCT_GROUP;
		s[i].planes = (uint64_t *)(d->host + l->planes) + before * v->raw_bits;
		s[i].marks = (const uint64_t *)(d->host + l->marks) + before;
		if (s->choose)
			memcpy(s[i].map, d->host + l->maps + before, runs_of(&s[i]));
	}
}

static cudaError_t launch(const struct hct_device_searcher *d, const struct layout *l,
			  const struct hct_viterbi *v, const struct hct_viterbi_segment *s,
			  unsigned count)
{
	struct search_layer t;
	const struct search_segment *segments =
		(const struct search_segment *)(d->device + l->segments);
	unsigned shared = search_memory(v->row_classes, v->column_classes);

	t.pairs = (const uint32_t *)(d->device + l->pairs);
	t.stand_in = d->device + l->stand_in;
	t.columns = v->column_classes > 1 ? d->device + l->columns : nullptr;
	t.period = s->period;
	t.raw_bits = v->raw_bits;
	t.column_classes = v->column_classes;
	t.row_classes = v->row_classes;
	t.run_log2 = s->run_log2;
	t.exception = v->exception;
	t.scale = 64 / v->step;
	t.choose = s->choose;
	switch (v->states_log2) {
	case 3:
		return HCT_LAUNCH((search_segments<3>), count, SEARCH_THREADS, shared, d->stream, t,
				  segments);
	case 4:
		return HCT_LAUNCH((search_segments<4>), count, SEARCH_THREADS, shared, d->stream, t,
				  segments);
	default:
		return HCT_LAUNCH((search_segments<5>), count, SEARCH_THREADS, shared, d->stream, t,
				  segments);
	}
}

static hct_error search(hct_device_searcher *d, const struct hct_viterbi *v,
			struct hct_viterbi_segment *s, size_t count, struct hct_diag *diag)
{
	const struct layout l = lay_out(v, s, count);
	size_t back = s->choose ? l.maps : l.marks; /* and what is before that goes there */
	const gpu_current current(&d->context);
	hct_error e = check(d, diag, "cuCtxPushCurrent", current.error());

	if (!e)
		e = reserve(d, &l, diag);
	if (e)
		return e;
	pack(d, &l, v, s, count);
	e = check(d, diag, "cudaMemcpyAsync",
		  cudaMemcpyAsync(d->device, d->host, back, cudaMemcpyHostToDevice, d->stream));
	if (!e)
		e = check(d, diag, "search", launch(d, &l, v, s, (unsigned)count));
	if (!e)
		e = check(d, diag, "cudaMemcpyAsync",
			  cudaMemcpyAsync(d->host + back, d->device + back, l.chosen - back,
					  cudaMemcpyDeviceToHost, d->stream));
	if (!e)
		e = check(d, diag, "cudaEventRecord", cudaEventRecord(d->done, d->stream));
	if (!e)
		e = check(d, diag, "cudaEventSynchronize", cudaEventSynchronize(d->done));
	if (!e)
		unpack(d, &l, v, s, count);
	return e;
}

static void close_searcher(hct_device_searcher *d)
{
	if (d && d->context.primary) {
		{
			const gpu_current current(&d->context);

			if (d->done)
				cudaEventDestroy(d->done);
			if (d->stream)
				cudaStreamDestroy(d->stream);
			cudaFree(d->device);
			cudaFreeHost(d->host);
		}
		gpu_context_close(&d->context);
	}
	free(d);
}

/* The stream, and what threads wait with, which leave their CPUs to those that do not wait. */
static hct_error begin(struct hct_device_searcher *d, struct hct_diag *diag)
{
	const gpu_current current(&d->context);
	struct cudaDeviceProp properties;
	hct_error e = check(d, diag, "cuCtxPushCurrent", current.error());

	if (!e)
		e = check(d, diag, "cudaGetDeviceProperties",
			  cudaGetDeviceProperties(&properties, d->context.number));
	if (!e)
		snprintf(d->name, sizeof d->name, "%s", properties.name);
	if (!e)
		e = check(d, diag, "cudaStreamCreateWithFlags",
			  cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
	if (!e)
		e = check(d, diag, "cudaEventCreateWithFlags",
			  cudaEventCreateWithFlags(&d->done,
						   cudaEventDisableTiming | cudaEventBlockingSync));
	return e;
}

static hct_error open_searcher(int number, hct_device_searcher **out, struct hct_diag *diag)
{
	hct_device_searcher *d = (hct_device_searcher *)calloc(1, sizeof *d);
	hct_error e;

	*out = nullptr;
	if (!d)
		return gpu_fail(diag, HCT_ERR_NOMEM, "out of memory");
	e = gpu_context_open(&d->context, number, diag);
	if (!e)
		e = begin(d, diag);
	if (e)
		close_searcher(d);
	else
		*out = d;
	return e;
}

static const char *describe(const hct_device_searcher *d)
{
	return d->name;
}

const struct hct_device_search_class gpu_search = {open_searcher, close_searcher, describe, search};
