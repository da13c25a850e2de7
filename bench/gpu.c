/* Decoding on a GPU beside the CPU, and the transforms of the GPU, in one table.
 *
 *     bench_gpu LOSSLESS.hct LOSSY.hct [--quick]
 *
 * Both files of the same weights.  Rates are of decoded bytes, and of weights, a second of the
 * clock, best of some rounds: by one thread of the CPU and by all of them, to the host's memory;
 * by the GPU, from the file in the page cache to the host's memory and to its own, and from its
 * memory to its memory, where the kernels alone count.  What the machine can do at most is measured
 * in the same run: copies to the GPU, back, and on it.  BARS are those of the project for an H200.
 * Without a GPU the rows of the CPU are all, and it says so.  What is decoded is compared with what
 * the CPU decodes. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/backend.h"
#include "codec/batch.h"
#include "codec/dtype.h"
#include "codec/meter.h"
#include "codec/plugin.h"
#include "gpu/hct_gpu.h"
#include "model.h"

#define BAR_EXACT   300. /* GB of output a second, from memory to memory */
#define BAR_LOSSY   150. /* G weights a second */
#define BAR_LOAD    .8   /* of what copying the compressed bytes would allow */
#define BAR_COPY    .6   /* of the copy bandwidth, for transforms */
#define COPY_BYTES  ((size_t)1 << 30)
#define IN_FLIGHT   4
#define GRID        8192 /* rows and columns of the matrix of tiles */
#define BATCH_SIDE  128
#define BATCH_COUNT 100

static int rounds = 7;

static void die(const struct hct_diag *diag)
{
	fprintf(stderr, "bench_gpu: %s\n", diag->text);
	exit(1);
}

/* A file, and what it decodes to. */
struct file {
	hct_reader *reader;
	uint64_t bytes, weights, stored, chunks;
	uint64_t room;             /* for all chunks, each 256 bytes aligned */
	uint8_t *plain;            /* as the CPU decodes them */
	uint64_t *at;              /* where each begins in it */
	struct hct_wanted *wanted; /* all of them */
};

static void open_file(const char *path, struct file *f)
{
	struct hct_diag diag;
	const struct hct_safetensors *st;

	if (hct_reader_open(path, &f->reader, &diag))
		die(&diag);
	st = hct_reader_safetensors(f->reader);
	f->chunks = hct_reader_chunk_count(f->reader);
	f->at = bench_alloc(f->chunks, sizeof *f->at);
	f->wanted = bench_alloc(f->chunks, sizeof *f->wanted);
	f->bytes = f->room = f->weights = f->stored = 0;
	for (size_t i = 0; i < st->count; i++)
		f->weights += st->tensors[i].elements;
	for (uint64_t i = 0; i < f->chunks; i++) {
		struct hct_chunk c;

		hct_reader_chunk(f->reader, i, &c);
		f->at[i] = f->room;
		f->room += (c.length + 255u) / 256 * 256;
		f->bytes += c.length;
		f->stored += c.stored_bytes;
	}
	f->plain = bench_alloc(f->room, 1);
}

static void close_file(struct file *f)
{
	hct_reader_close(f->reader);
	free(f->plain);
	free(f->at);
	free(f->wanted);
}

static hct_backend *open_backend(const char *gpu, unsigned threads)
{
	struct hct_backend_options options = {.gpu = gpu, .threads = threads};
	struct hct_diag diag;
	hct_backend *b;

	if (hct_backend_open(&options, &b, &diag))
		die(&diag);
	return b;
}

/* Seconds, the best of the rounds, of decoding all of a file to `out` on the host. */
static double time_to_host(hct_backend *b, struct file *f, uint8_t *out)
{
	double best = INFINITY;
	struct hct_diag diag;

	for (uint64_t i = 0; i < f->chunks; i++)
		f->wanted[i] = (struct hct_wanted){.number = i, .dst = out + f->at[i]};
	for (int r = 0; r < rounds; r++) {
		double t = hct_meter_now();

		if (hct_backend_decode(b, f->reader, 0, 0, f->wanted, f->chunks, &diag))
			die(&diag);
		best = fmin(best, hct_meter_now() - t);
	}
	return best;
}

static void rate_row(const char *name, const struct file *exact, double exact_seconds,
		     const struct file *lossy, double lossy_seconds, const char *note)
{
	printf("  %-34s %9.2f %9.2f   %s\n", name, 1e-9 * (double)exact->bytes / exact_seconds,
	       1e-9 * (double)lossy->weights / lossy_seconds, note);
	fflush(stdout);
}

static void verdict(double value, double bar, char note[64])
{
	snprintf(note, 64, "%.2f of the bar of %.4g", value / bar, bar);
}

static void cpu_rows(struct file *exact, struct file *lossy)
{
	for (int all = 0; all < 2; all++) {
		hct_backend *b = open_backend("off", all ? 0 : 1);
		double e = time_to_host(b, exact, exact->plain);
		double l = time_to_host(b, lossy, lossy->plain);

		rate_row(all ? "CPU, all threads, file to memory"
			     : "CPU, one thread, file to memory",
			 exact, e, lossy, l, hct_backend_name(b));
		hct_backend_close(b);
	}
}

/* What was decoded elsewhere. */
static void compare(const struct file *f, const uint8_t *found, const char *by)
{
	for (uint64_t i = 0; i < f->chunks; i++) {
		struct hct_chunk c;

		hct_reader_chunk(f->reader, i, &c);
		if (memcmp(found + f->at[i], f->plain + f->at[i], c.length) != 0) {
			fprintf(stderr, "bench_gpu: %s: chunk %llu differs from the CPU's\n", by,
				(unsigned long long)i);
			exit(1);
		}
	}
}

/* The GPU ---------------------------------------------------------------------------------- */

struct gpu {
	struct hct_plugin plugin;
	const struct hct_device_class *class;
	hct_device *device;
	struct hct_flat_cache *tables; /* one for a device: their keys are those of its own */
};

/* 0 when there is none, and *why then says so. */
static int open_gpu(struct gpu *g, struct hct_diag *why)
{
	struct hct_device_options options = {.batches = IN_FLIGHT};

	strcpy(why->text, "no CUDA driver or device");
	if (hct_plugin_open(&g->plugin, why))
		return 0;
	g->class = g->plugin.class;
	if (g->class->count(why) < 1) {
		hct_plugin_close(&g->plugin);
		return 0;
	}
	if (g->class->open(&options, &g->device, why))
		die(why);
	g->tables = hct_flat_cache_create();
	if (!g->tables)
		exit(1);
	return 1;
}

static void *take(const struct gpu *g, size_t bytes)
{
	struct hct_diag diag;
	void *p;

	if (g->class->alloc(g->device, bytes, &p, &diag))
		die(&diag);
	return p;
}

static void *take_host(const struct gpu *g, size_t bytes)
{
	struct hct_diag diag;
	void *p;

	if (g->class->alloc_host(g->device, bytes, &p, &diag))
		die(&diag);
	return p;
}

static double time_copy(const struct gpu *g, void *to, const void *from, size_t bytes)
{
	double best = INFINITY;
	struct hct_diag diag;

	for (int r = 0; r < rounds; r++) {
		double t = hct_meter_now();

		if (g->class->copy(g->device, to, from, bytes, NULL, &diag))
			die(&diag);
		best = fmin(best, hct_meter_now() - t);
	}
	return best;
}

/* Bytes a second: pinned memory to the GPU and back, and read and written on it. */
struct ceilings {
	double up, down, on;
};

static struct ceilings copies(const struct gpu *g, size_t bytes)
{
	void *host = take_host(g, bytes), *a = take(g, bytes), *b = take(g, bytes);
	struct ceilings c;

	memset(host, 1, bytes);
	c.up = (double)bytes / time_copy(g, a, host, bytes);
	c.down = (double)bytes / time_copy(g, host, a, bytes);
	c.on = 2 * (double)bytes / time_copy(g, b, a, bytes);
	printf("  copies: %.1f GB/s to the GPU, %.1f back, %.0f read and written on it\n",
	       1e-9 * c.up, 1e-9 * c.down, 1e-9 * c.on);
	g->class->free_host(g->device, host);
	g->class->free(g->device, a);
	g->class->free(g->device, b);
	return c;
}

/* Seconds of loading all tensors of a file into the GPU's memory. */
static double time_load(hct_backend *b, const struct file *f)
{
	const struct hct_safetensors *st = hct_reader_safetensors(f->reader);
	struct hct_load *loads = bench_alloc(st->count, sizeof *loads);
	double best = INFINITY;
	struct hct_diag diag;
	uint64_t at = 0;
	void *memory;

	if (hct_backend_alloc(b, f->room + 256 * st->count, &memory, &diag))
		die(&diag);
	for (size_t i = 0; i < st->count; i++) {
		loads[i] =
			(struct hct_load){.tensor = i,
					  .rows = st->tensors[i].rank ? st->tensors[i].shape[0] : 1,
					  .dst = (uint8_t *)memory + at};
		at += (hct_load_bytes(f->reader, &loads[i]) + 255) / 256 * 256;
	}
	for (int r = 0; r < rounds; r++) {
		double t = hct_meter_now();

		if (hct_load_device(b, f->reader, loads, st->count, 0, NULL, &diag))
			die(&diag);
		best = fmin(best, hct_meter_now() - t);
	}
	hct_backend_free(b, memory);
	free(loads);
	return best;
}

/* Batches whose payloads lie in the GPU's memory. */
struct resident {
	struct hct_work work;
	struct hct_batch *batches;
	size_t count;
	uint8_t *out;
	uint64_t
		listed; /* bytes that the GPU decodes: of other chunks there are none to be timed */
};

static void make_resident(const struct gpu *g, const struct file *f, struct resident *s)
{
	hct_decoder *decoder;
	struct hct_diag diag;

	*s = (struct resident){.work = {.r = f->reader, .on_device = 1, .count = f->chunks}};
	pthread_mutex_init(&s->work.lock, NULL);
	s->work.pieces = bench_alloc(f->chunks, sizeof *s->work.pieces);
	s->count = (f->chunks + HCT_BATCH_ITEMS - 1) / HCT_BATCH_ITEMS;
	s->batches = bench_alloc(s->count, sizeof *s->batches);
	memset(s->batches, 0, s->count * sizeof *s->batches);
	s->out = take(g, f->room);
	if (hct_decoder_create(HCT_SIMD_AUTO, &decoder))
		exit(1);
	for (uint64_t i = 0; i < f->chunks; i++) {
		struct hct_chunk c;

		hct_reader_chunk(f->reader, i, &c);
		s->work.pieces[i] =
			(struct hct_piece){.number = i, .end = c.length, .dst = s->out + f->at[i]};
	}
	for (size_t i = 0; i < s->count; i++) {
		struct hct_batch *b = &s->batches[i];
		size_t first = i * HCT_BATCH_ITEMS, room;
		size_t n =
			f->chunks - first < HCT_BATCH_ITEMS ? f->chunks - first : HCT_BATCH_ITEMS;
		uint8_t *resident;

		room = hct_batch_room(&s->work, first, n);
		b->in = take_host(g, room);
		hct_batch_fill(b, &s->work, decoder, g->tables, first, n);
		for (size_t k = 0; k < n; k++) {
			if (b->items[k].state == HCT_BATCH_LISTED) {
				s->listed += b->items[k].loaded.chunk.length;
				continue;
			}
			/* What the CPU is to decode: as if it were there. */
			if (g->class->copy(g->device, s->work.pieces[first + k].dst,
					   f->plain + f->at[first + k],
					   b->items[k].loaded.chunk.length, NULL, &diag))
				die(&diag);
		}
		resident = take(g, room);
		if (g->class->copy(g->device, resident, b->in, room, NULL, &diag))
			die(&diag);
		g->class->free_host(g->device, b->in);
		b->in = resident;
		b->device.in = resident;
		b->device.in_on_device = 1;
	}
	hct_decoder_free(decoder);
}

static void free_resident(const struct gpu *g, struct resident *s)
{
	for (size_t i = 0; i < s->count; i++) {
		hct_batch_release_tables(&s->batches[i], g->tables);
		hct_flat_list_free(&s->batches[i].list);
		g->class->free(g->device, s->batches[i].in);
	}
	g->class->free(g->device, s->out);
	pthread_mutex_destroy(&s->work.lock);
	free(s->work.pieces);
	free(s->batches);
}

static void finish(const struct gpu *g, struct hct_batch *b)
{
	struct hct_diag diag;

	if (!b->submitted)
		return;
	b->submitted = 0;
	if (g->class->wait(g->device, &b->device, &diag))
		die(&diag);
	for (uint32_t i = 0; i < b->device.items; i++)
		if (b->bad[i]) {
			fprintf(stderr, "bench_gpu: the GPU finds a chunk damaged\n");
			exit(1);
		}
}

/* Seconds of decoding what lies in the GPU's memory. */
static double time_resident(const struct gpu *g, struct resident *s)
{
	double best = INFINITY;
	struct hct_diag diag;

	for (int r = 0; r < rounds; r++) {
		double t = hct_meter_now();

		for (size_t i = 0; i < s->count + IN_FLIGHT; i++) {
			if (i >= IN_FLIGHT)
				finish(g, &s->batches[i - IN_FLIGHT]);
			if (i < s->count && s->batches[i].device.items) {
				if (g->class->submit(g->device, &s->batches[i].device, &diag))
					die(&diag);
				s->batches[i].submitted = 1;
			}
		}
		best = fmin(best, hct_meter_now() - t);
	}
	return best;
}

static double resident_seconds(const struct gpu *g, const struct file *f)
{
	uint8_t *back = bench_alloc(f->room, 1);
	struct resident s;
	struct hct_diag diag;
	double seconds;

	make_resident(g, f, &s);
	seconds = time_resident(g, &s);
	if (g->class->copy(g->device, back, s.out, f->room, NULL, &diag))
		die(&diag);
	compare(f, back, "the GPU, memory to memory");
	seconds *= (double)f->bytes / (double)(s.listed ? s.listed : 1);
	free_resident(g, &s);
	free(back);
	return seconds;
}

static void gpu_rows(const struct gpu *g, struct file *exact, struct file *lossy,
		     const struct ceilings *c)
{
	hct_backend *b = open_backend("0", 0);
	uint8_t *found = bench_alloc(exact->room > lossy->room ? exact->room : lossy->room, 1);
	double e = time_to_host(b, exact, found), l, most, exact_kernels, lossy_kernels;
	char note[160], half[64];

	compare(exact, found, "the GPU, without loss");
	l = time_to_host(b, lossy, found);
	compare(lossy, found, "the GPU, with loss");
	rate_row("GPU, file to the host's memory", exact, e, lossy, l, hct_backend_name(b));
	exact_kernels = resident_seconds(g, exact);
	lossy_kernels = resident_seconds(g, lossy);
	e = time_load(b, exact);
	l = time_load(b, lossy);
	most = fmax((double)exact->stored / c->up, exact_kernels);
	verdict(most / e, BAR_LOAD, half);
	snprintf(note, sizeof note, "lossless: %s", half);
	most = fmax((double)lossy->stored / c->up, lossy_kernels);
	verdict(most / l, BAR_LOAD, half);
	snprintf(note + strlen(note), sizeof note - strlen(note), "; lossy: %s", half);
	rate_row("GPU, file to its own memory", exact, e, lossy, l, note);
	verdict(1e-9 * (double)exact->bytes / exact_kernels, BAR_EXACT, half);
	snprintf(note, sizeof note, "lossless: %s", half);
	verdict(1e-9 * (double)lossy->weights / lossy_kernels, BAR_LOSSY, half);
	snprintf(note + strlen(note), sizeof note - strlen(note), "; lossy: %s", half);
	rate_row("GPU, its memory to its memory", exact, exact_kernels, lossy, lossy_kernels, note);
	hct_backend_close(b);
	free(found);
}

/* Transforms ------------------------------------------------------------------------------- */

/* hct_gpu.h's functions, of the plug-in. */
struct transforms {
	hct_error (*create)(const struct hct_gpu_dct_options *, hct_gpu_dct **, struct hct_diag *);
	void (*free)(hct_gpu_dct *);
	hct_error (*wait)(hct_gpu_dct *, struct hct_diag *);
	hct_error (*dct_2d)(hct_gpu_dct *, const float *, float *, size_t, size_t, size_t, size_t,
			    size_t, struct hct_diag *);
	hct_error (*idct_tiles)(hct_gpu_dct *, const float *, float *, size_t, size_t, size_t,
				unsigned, unsigned, struct hct_diag *);
};

static int find_transforms(const struct gpu *g, struct transforms *t)
{
	*(void **)&t->create = dlsym(g->plugin.handle, "hct_gpu_dct_create");
	*(void **)&t->free = dlsym(g->plugin.handle, "hct_gpu_dct_free");
	*(void **)&t->wait = dlsym(g->plugin.handle, "hct_gpu_dct_wait");
	*(void **)&t->dct_2d = dlsym(g->plugin.handle, "hct_gpu_dct_2d");
	*(void **)&t->idct_tiles = dlsym(g->plugin.handle, "hct_gpu_idct_tiles");
	return t->create && t->free && t->wait && t->dct_2d && t->idct_tiles;
}

/* One shape: tiles of a side in a square matrix, or a batch of square matrices. */
struct shape {
	const char *name;
	unsigned side;
	size_t count;  /* of matrices; 0: tiles */
	double bar_us; /* published, to beat; 0: none */
};

static double time_shape(const struct transforms *t, hct_gpu_dct *d, const struct shape *s,
			 size_t grid, const float *in, float *out)
{
	size_t n = s->side, repeat = s->count ? 200 : 10;
	double best = INFINITY;
	struct hct_diag diag;

	for (int r = 0; r < rounds + 1; r++) { /* the first makes plans */
		double start = hct_meter_now();

		for (size_t k = 0; k < repeat; k++)
			if (s->count ? t->dct_2d(d, in, out, n, n, n, s->count, n * n, &diag)
				     : t->idct_tiles(d, in, out, grid, grid, grid, s->side, s->side,
						     &diag))
				die(&diag);
		if (t->wait(d, &diag))
			die(&diag);
		if (r)
			best = fmin(best, (hct_meter_now() - start) / (double)repeat);
	}
	return best;
}

static void transform_rows(const struct gpu *g, const struct ceilings *c, size_t grid)
{
	static const struct shape shapes[] = {
		{"IDCT of tiles of 8 x 8", 8, 0, 0},
		{"IDCT of tiles of 64 x 64", 64, 0, 0},
		{"2-D DCT, 128 x 128", BATCH_SIDE, 1, 50},
		{"2-D DCT, 100 times 128 x 128", BATCH_SIDE, BATCH_COUNT, 2000},
		{"2-D DCT, 4096 times 128 x 128", BATCH_SIDE, 4096, 0},
	};
	size_t bytes = grid * grid * sizeof(float);
	float *in = take(g, bytes), *out = take(g, bytes), *zeros = take_host(g, bytes);
	struct transforms t;
	struct hct_diag diag;
	hct_gpu_dct *d;

	if (!find_transforms(g, &t)) {
		fprintf(stderr, "bench_gpu: the plug-in has no transforms\n");
		exit(1);
	}
	if (t.create(NULL, &d, &diag))
		die(&diag);
	memset(zeros, 0, bytes);
	if (g->class->copy(g->device, in, zeros, bytes, NULL, &diag))
		die(&diag);
	printf("  %-34s %9s %9s\n", "transforms on the GPU", "us", "GB/s");
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const struct shape *s = &shapes[i];
		size_t numbers = s->count ? s->count * s->side * s->side : grid * grid;
		double seconds, moved = 2 * sizeof(float) * (double)numbers;
		char note[64] = "";

		if (numbers > grid * grid)
			continue;
		seconds = time_shape(&t, d, s, grid, in, out);
		if (s->bar_us > 0)
			snprintf(note, sizeof note, "published: %.0f us", s->bar_us);
		else
			verdict(moved / seconds / c->on, BAR_COPY, note);
		printf("  %-34s %9.1f %9.1f   %s\n", s->name, 1e6 * seconds, 1e-9 * moved / seconds,
		       note);
		fflush(stdout);
	}
	t.free(d);
	g->class->free(g->device, in);
	g->class->free(g->device, out);
	g->class->free_host(g->device, zeros);
}

int main(int argc, char **argv)
{
	int quick = argc == 4 && strcmp(argv[3], "--quick") == 0;
	struct file exact, lossy;
	struct hct_diag why = {{0}};
	struct gpu g;

	if (argc != 3 && !quick) {
		fprintf(stderr, "usage: bench_gpu LOSSLESS.hct LOSSY.hct [--quick]\n");
		return 2;
	}
	if (quick)
		rounds = 1;
	open_file(argv[1], &exact);
	open_file(argv[2], &lossy);
	printf("  %-34s %9s %9s\n", "decoding", "GB/s", "G weights");
	cpu_rows(&exact, &lossy);
	if (open_gpu(&g, &why)) {
		struct ceilings c = copies(&g, quick ? COPY_BYTES / 64 : COPY_BYTES);

		gpu_rows(&g, &exact, &lossy, &c);
		transform_rows(&g, &c, quick ? GRID / 32 : GRID);
		hct_flat_cache_free(g.tables);
		g.class->close(g.device);
		hct_plugin_close(&g.plugin);
	} else {
		printf("  this ran on no GPU (%s): what a GPU does is not measured\n", why.text);
	}
	close_file(&exact);
	close_file(&lossy);
	return 0;
}
