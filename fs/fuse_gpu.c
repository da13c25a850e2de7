/* Whether a GPU decodes what is read ahead: measured on chunks of the bundle, while it is mounted
 * already. */
#include "fuse_fs.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "codec/units.h"

/* Threads that read and verify for the GPU: the kernel's side of a mount takes no more. */
#define GPU_THREADS 4

/* What is decoded for a measurement: runs of chunks from all over a file, as long as those that are
 * read ahead; a short one first. */
#define RUNS        3
#define RUN_BYTES   (16u << 20)
#define FIRST_BYTES (1u << 20)
#define RUN_CHUNKS  256

/* Seconds.  A GPU that takes longer for one of them is not worth another look. */
#define PATIENCE .1

struct sample {
	struct hctfs *fs;
	const hct_reader *r;
	uint8_t *buffer;
	struct hct_wanted wanted[RUN_CHUNKS];
	size_t count;
	uint64_t bytes;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void say(void *fs, const char *line)
{
	hctfs_say(fs, LOG_WARNING, "%s", line);
}

/* Of the model that has most chunks. */
static const hct_reader *largest(const struct hctfs *fs)
{
	const hct_reader *best = NULL;

	for (size_t i = 0; i < hct_tree_count(fs->tree); i++) {
		const struct hct_node *node = hct_tree_node(fs->tree, i);

		if (node->kind != HCT_NODE_MODEL)
			continue;
		if (!best || hct_reader_chunk_count(node->reader) > hct_reader_chunk_count(best))
			best = node->reader;
	}
	return best;
}

/* Chunks in a row of run number `run`, no more bytes than that. */
static void choose_run(struct sample *s, unsigned run, uint64_t bytes)
{
	uint64_t chunks = hct_reader_chunk_count(s->r), number = chunks * run / (RUNS + 1);

	s->count = 0;
	s->bytes = 0;
	for (; s->count < RUN_CHUNKS && number < chunks; number++) {
		struct hct_chunk c;

		hct_reader_chunk(s->r, number, &c);
		if (s->bytes + c.length > bytes)
			break;
		s->wanted[s->count++] = (struct hct_wanted){number, s->buffer + s->bytes, HCT_OK};
		s->bytes += c.length;
	}
}

/* Seconds for the run.  What is damaged is somebody else's to report. */
static double time_run(struct sample *s, hct_backend *b)
{
	double begin = now();

	hct_backend_decode(b, s->r, s->fs->options.layers, 0, s->wanted, s->count, NULL);
	return now() - begin;
}

/* Measures both, in bytes a second.  Returns 0 when there was nothing to measure, or no time. */
static int measure(struct sample *s, hct_backend *cpu, hct_backend *gpu, double *cpu_rate,
		   double *gpu_rate)
{
	double cpu_time = 0, gpu_time = 0, bytes = 0;

	for (unsigned run = 0; run <= RUNS && !atomic_load(&s->fs->gpu.stop); run++) {
		double took;

		choose_run(s, run, run ? RUN_BYTES : FIRST_BYTES);
		if (!s->count)
			continue;
		/* The first time is for the disk, and for what a GPU sets up. */
		time_run(s, cpu);
		cpu_time += time_run(s, cpu);
		time_run(s, gpu);
		took = time_run(s, gpu);
		gpu_time += took;
		bytes += (double)s->bytes;
		if (took > PATIENCE)
			break;
	}
	if (!bytes || atomic_load(&s->fs->gpu.stop) || hct_backend_gpu(gpu) < 0)
		return 0;
	*cpu_rate = bytes / cpu_time;
	*gpu_rate = bytes / gpu_time;
	return 1;
}

/* Whether the GPU is faster; says what was found. */
static int wins(struct hctfs *fs, hct_backend *gpu)
{
	const struct hct_backend_options options = {.gpu = "off", .threads = fs->threads};
	struct sample *s = calloc(1, sizeof *s);
	hct_backend *cpu = NULL;
	double cpu_rate, gpu_rate;
	int faster = 0;

	if (s) {
		s->fs = fs;
		s->r = largest(fs);
		s->buffer = malloc(RUN_BYTES);
	}
	if (s && s->r && s->buffer && !hct_backend_open(&options, &cpu, NULL) &&
	    measure(s, cpu, gpu, &cpu_rate, &gpu_rate)) {
		char by_gpu[HCT_UNITS_MAX], by_cpu[HCT_UNITS_MAX];

		faster = gpu_rate > cpu_rate;
		hctfs_say(fs, LOG_INFO,
			  "%s decodes what is read ahead: here %s decodes %s a second, %s %s",
			  hct_backend_name(faster ? gpu : cpu), hct_backend_name(gpu),
			  hct_units_size((uint64_t)gpu_rate, by_gpu), hct_backend_name(cpu),
			  hct_units_size((uint64_t)cpu_rate, by_cpu));
	}
	hct_backend_close(cpu);
	if (s)
		free(s->buffer);
	free(s);
	return faster;
}

static void *choose(void *arg)
{
	struct hctfs *fs = arg;
	const char *word = fs->options.gpu ? fs->options.gpu : "auto";
	const struct hct_backend_options options = {
		.gpu = word, .threads = GPU_THREADS, .log = say, .log_arg = fs};
	struct hct_diag diag = {{0}};
	hct_backend *gpu;

	if (hct_backend_open(&options, &gpu, &diag)) {
		hctfs_say(fs, LOG_WARNING, "gpu=%s: %s; the CPU decodes", word, diag.text);
		return NULL;
	}
	if (hct_backend_gpu(gpu) < 0 || (strcmp(word, "auto") == 0 && !wins(fs, gpu))) {
		hct_backend_close(gpu);
		return NULL;
	}
	if (strcmp(word, "auto") != 0)
		hctfs_say(fs, LOG_INFO, "%s decodes what is read ahead, as gpu=%s says",
			  hct_backend_name(gpu), word);
	fs->gpu.backend = gpu;
	atomic_store(&fs->gpu.used, 1);
	return NULL;
}

void hctfs_gpu_start(struct hctfs *fs)
{
	sigset_t all, before;
	int errnum;

	if (fs->options.gpu && strcmp(fs->options.gpu, "off") == 0)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	errnum = pthread_create(&fs->gpu.chooser, NULL, choose, fs);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	fs->gpu.choosing = errnum == 0;
}

hct_backend *hctfs_gpu_backend(struct hctfs *fs)
{
	return atomic_load(&fs->gpu.used) && hct_backend_gpu(fs->gpu.backend) >= 0 ? fs->gpu.backend
										   : NULL;
}

void hctfs_gpu_release(struct hctfs *fs)
{
	if (!fs->gpu.choosing)
		return;
	atomic_store(&fs->gpu.stop, 1);
	pthread_join(fs->gpu.chooser, NULL);
	hct_backend_close(fs->gpu.backend);
}
