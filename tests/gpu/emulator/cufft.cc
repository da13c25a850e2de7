/* cuFFT by FFTW, as far as gpu/cufft.h declares it.  The emulated plug-in shows these functions, so
 * that a test has it found as cuFFT, too: HCT_CUFFT is the plug-in's own path.
 *
 * Work areas are written to, and what a plan was not given ends the program.
 * CUDA_EMULATOR_FAIL=cufft:N lets the Nth call that can fail, and all that follow, say that memory
 * is out; the count begins anew with another N. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <fftw3.h>

#include "emulator.h"
#include "gpu/cufft.h"

#define SHOWN     extern "C" __attribute__((visibility("default")))
#define MAX_PLANS 256

namespace
{

struct plan {
	bool used, placed;
	int rank, kind, n[2], in[2], out[2], batch;
	int in_distance, out_distance;
	bool auto_area;
	cudaStream_t stream;
	void *area;
	size_t area_bytes;
};

/* What a stream has to do. */
struct job {
	struct plan p;
	float *real;
	fftwf_complex *complex;
};

std::mutex lock; /* of plans, and of FFTW's planner */
struct plan plans[MAX_PLANS];

[[noreturn]] void stop(const char *why)
{
	fprintf(stderr, "cuFFT emulator: %s\n", why);
	abort();
}

bool fails()
{
	static unsigned long made, last;
	const char *fail = getenv("CUDA_EMULATOR_FAIL");
	unsigned long at = fail && !strncmp(fail, "cufft:", 6) ? strtoul(fail + 6, nullptr, 10) : 0;

	if (at != last)
		made = 0;
	last = at;
	return at && ++made >= at;
}

struct plan *find(int number)
{
	if (number < 0 || number >= MAX_PLANS || !plans[number].used)
		stop("no such plan");
	return &plans[number];
}

/* The stream's turn: fills the area, plans, and transforms. */
void work(void *arg)
{
	std::lock_guard<std::mutex> hold(lock);
	struct job *j = (struct job *)arg;
	const struct plan *p = &j->p;
	const unsigned flags = FFTW_ESTIMATE | FFTW_UNALIGNED;
	fftwf_plan f;

	memset(p->area, 0xa5, p->area_bytes);
	f = p->kind == gpu_cufft::R2C
		    ? fftwf_plan_many_dft_r2c(p->rank, p->n, p->batch, j->real, p->in, 1,
					      p->in_distance, j->complex, p->out, 1,
					      p->out_distance, flags)
		    : fftwf_plan_many_dft_c2r(p->rank, p->n, p->batch, j->complex, p->in, 1,
					      p->in_distance, j->real, p->out, 1, p->out_distance,
					      flags);
	if (!f)
		stop("FFTW makes no plan");
	fftwf_execute(f);
	fftwf_destroy_plan(f);
	delete j;
}

int execute(int number, int kind, float *real, fftwf_complex *complex)
{
	struct job *j;
	{
		std::lock_guard<std::mutex> hold(lock);
		struct plan *p = find(number);

		if (!p->placed || p->kind != kind || p->auto_area || !p->area)
			stop("a plan that is not ready");
		if ((void *)real != (void *)complex)
			stop("a transform that is not in place");
		if (fails())
			return gpu_cufft::ALLOC_FAILED;
		j = new job{*p, real, complex};
	}
	emulator_stream_put(j->p.stream, work, j);
	return 0;
}

} // namespace

SHOWN int cufftCreate(int *number)
{
	std::lock_guard<std::mutex> hold(lock);

	if (fails())
		return gpu_cufft::ALLOC_FAILED;
	for (int i = 0; i < MAX_PLANS; i++)
		if (!plans[i].used) {
			plans[i] = {};
			plans[i].used = plans[i].auto_area = true;
			*number = i;
			return 0;
		}
	stop("too many plans: some are never destroyed");
}

SHOWN int cufftSetAutoAllocation(int number, int on)
{
	std::lock_guard<std::mutex> hold(lock);

	find(number)->auto_area = on;
	return 0;
}

SHOWN int cufftMakePlanMany64(int number, int rank, long long *n, long long *in,
			      long long in_stride, long long in_distance, long long *out,
			      long long out_stride, long long out_distance, int kind,
			      long long batch, size_t *area_bytes)
{
	std::lock_guard<std::mutex> hold(lock);
	struct plan *p = find(number);

	if (p->placed || rank < 1 || rank > 2 || in_stride != 1 || out_stride != 1)
		stop("a plan that is not known here");
	if (fails())
		return gpu_cufft::ALLOC_FAILED;
	p->placed = true;
	p->rank = rank;
	p->kind = kind;
	p->batch = (int)batch;
	for (int i = 0; i < rank; i++) {
		p->n[i] = (int)n[i];
		p->in[i] = (int)in[i];
		p->out[i] = (int)out[i];
	}
	p->in_distance = (int)in_distance;
	p->out_distance = (int)out_distance;
	p->area_bytes = *area_bytes = 1000 + 8 * (size_t)n[0];
	return 0;
}

SHOWN int cufftSetStream(int number, cudaStream_t stream)
{
	std::lock_guard<std::mutex> hold(lock);

	find(number)->stream = stream;
	return 0;
}

SHOWN int cufftSetWorkArea(int number, void *area)
{
	std::lock_guard<std::mutex> hold(lock);

	find(number)->area = area;
	return 0;
}

SHOWN int cufftExecR2C(int number, float *in, float2 *out)
{
	return execute(number, gpu_cufft::R2C, in, (fftwf_complex *)out);
}

SHOWN int cufftExecC2R(int number, float2 *in, float *out)
{
	return execute(number, gpu_cufft::C2R, out, (fftwf_complex *)in);
}

SHOWN int cufftDestroy(int number)
{
	std::lock_guard<std::mutex> hold(lock);

	find(number)->used = false;
	return 0;
}
