#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define STACK (256u << 10)
#define LANES 32

namespace
{

[[noreturn]] void stop(const char *why)
{
	fprintf(stderr, "CUDA emulator: %s\n", why);
	abort();
}

struct fiber {
	ucontext_t context;
	uint8_t *stack;
	bool done;
	unsigned block_generation, warp_generation;
	void *fake; /* AddressSanitizer's */
	emulator::position position;
};

/* A warp's collective under way. */
struct warp {
	unsigned arrived, all, generation;
	int kind;
	uint64_t given[LANES], taken[2][LANES];
};

struct block {
	std::vector<fiber> fibers;
	std::vector<warp> warps;
	unsigned current, arrived, generation, left;
	const std::function<void()> *kernel;
	ucontext_t scheduler;
	void *fake;
	const void *stack;
	size_t stack_size;
};

thread_local block *running;
alignas(128) thread_local uint8_t shared_memory[emulator::MAX_SHARED];

/* Between the scheduler and a fiber. */
void to_scheduler(fiber *f, bool last)
{
#if defined __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(last ? nullptr : &f->fake, running->stack,
				       running->stack_size);
#endif
	(void)last;
	swapcontext(&f->context, &running->scheduler);
#if defined __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(f->fake, &running->stack, &running->stack_size);
#endif
}

void begin()
{
	fiber *f = &running->fibers[running->current];

#if defined __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(f->fake, &running->stack, &running->stack_size);
#endif
	(*running->kernel)();
	f->done = true;
	running->left--;
	running->warps[running->current / LANES].all &= ~(1u << running->current % LANES);
	if (running->warps[running->current / LANES].arrived)
		stop("a thread ends while others of its warp wait for it");
	if (running->arrived)
		stop("a thread ends while others of its block wait for it");
	to_scheduler(f, true);
}

void resume(unsigned i)
{
	fiber *f = &running->fibers[i];

	running->current = i;
#if defined __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&running->fake, f->stack, STACK);
#endif
	swapcontext(&running->scheduler, &f->context);
#if defined __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(running->fake, nullptr, nullptr);
#endif
}

/* Of each thread that there was so far: stacks are used again. */
std::vector<uint8_t *> &stacks()
{
	static thread_local struct pool {
		std::vector<uint8_t *> all;

		~pool()
		{
			for (uint8_t *p : all)
				free(p);
		}
	} mine;

	return mine.all;
}

void run_block(block *b, uint3 at, dim3 blocks, dim3 threads)
{
	unsigned count = threads.x * threads.y * threads.z;

	b->fibers.assign(count, fiber());
	b->warps.assign((count + LANES - 1) / LANES, warp());
	b->arrived = b->generation = 0;
	b->left = count;
	while (stacks().size() < count)
		stacks().push_back((uint8_t *)malloc(STACK));
	for (unsigned i = 0; i < count; i++) {
		fiber *f = &b->fibers[i];

		f->stack = stacks()[i];
		f->position = {
			{i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y},
			at,
			threads,
			blocks};
		b->warps[i / LANES].all |= 1u << i % LANES;
		getcontext(&f->context);
		f->context.uc_stack.ss_sp = f->stack;
		f->context.uc_stack.ss_size = STACK;
		f->context.uc_link = nullptr;
		makecontext(&f->context, begin, 0);
	}
	while (b->left)
		for (unsigned i = 0; i < count; i++)
			if (!b->fibers[i].done)
				resume(i);
}

} // namespace

namespace emulator
{

const position &here()
{
	return running->fibers[running->current].position;
}

uint8_t *dynamic_shared()
{
	return shared_memory;
}

void block_barrier()
{
	block *b = running;
	fiber *f = &b->fibers[b->current];
	unsigned generation = b->generation;

	if (++b->arrived == b->left) {
		b->arrived = 0;
		b->generation++;
	}
	while (b->generation == generation)
		to_scheduler(f, false);
}

const uint64_t *exchange(unsigned mask, uint64_t value, int kind)
{
	block *b = running;
	fiber *f = &b->fibers[b->current];
	warp *w = &b->warps[b->current / LANES];
	unsigned generation = w->generation, lane = b->current % LANES;

	if (mask != w->all || mask != ~0u)
		stop("a collective without all threads of the warp");
	if (w->arrived && w->kind != kind)
		stop("threads of a warp at different collectives");
	w->kind = kind;
	w->given[lane] = value;
	w->arrived |= 1u << lane;
	if (w->arrived == mask) {
		memcpy(w->taken[generation % 2], w->given, sizeof w->given);
		w->arrived = 0;
		w->generation++;
	}
	while (w->generation == generation)
		to_scheduler(f, false);
	return w->taken[generation % 2];
}

void run_kernel(dim3 blocks, dim3 threads, size_t shared, const std::function<void()> &kernel)
{
	block b;

	if (running)
		stop("a kernel in a kernel");
	b.kernel = &kernel;
	running = &b;
	ASAN_POISON_MEMORY_REGION(shared_memory + shared, sizeof shared_memory - shared);
	for (unsigned z = 0; z < blocks.z; z++)
		for (unsigned y = 0; y < blocks.y; y++)
			for (unsigned x = 0; x < blocks.x; x++) {
				memset(shared_memory, 0xa5, shared);
				run_block(&b, {x, y, z}, blocks, threads);
			}
	ASAN_UNPOISON_MEMORY_REGION(shared_memory, sizeof shared_memory);
	running = nullptr;
}

} // namespace emulator
