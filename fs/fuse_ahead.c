/* What is decoded before it is asked for: by the threads of the pool, a block each, or many blocks
 * at a time by a GPU. */
#include "fuse_fs.h"

#include <stdlib.h>

/* Blocks of a batch, and how far ahead of a stream a GPU decodes: it wants much at a time. */
#define BATCH_BLOCKS 128
#define GPU_DISTANCE (32ull << 20)

/* Fewer blocks are decoded by the CPU, each for itself. */
#define LEAST_BLOCKS 4

struct prefetch_job {
	struct hctfs *fs;
	const struct hct_node *node;
	hct_backend *backend; /* NULL for one block, by the CPU */
	size_t count;
	size_t blocks[];
};

static uint64_t key_of(const struct hct_node *node, const struct hct_block *block)
{
	return node->first_chunk + block->first_chunk;
}

static void run_prefetch(void *arg, unsigned worker)
{
	struct prefetch_job *job = arg;
	struct hctfs *fs = job->fs;
	const struct hct_cache_pin *pin = NULL;
	struct hct_block block;
	struct hctfs_fill fill = {fs, job->node, &block, worker};

	hct_blocks_get(hctfs_file_of(fs, job->node)->blocks, job->blocks[0], &block);
	hct_cache_try_get(fs->cache, key_of(job->node, &block), block.length, hctfs_fill_block,
			  &fill, &pin);
	if (pin)
		hct_cache_put(fs->cache, pin);
	atomic_fetch_sub(&fs->prefetches, 1);
	free(job);
}

/* A block that is being filled. */
struct filling {
	struct hct_block block;
	const struct hct_cache_pin *pin;
	uint8_t *dst;
	size_t first; /* of its chunks among those that are wanted */
};

/* Begins to fill those of the job's blocks that nobody else does.  Returns how many, with the
 * number of their chunks. */
static size_t begin_blocks(struct prefetch_job *job, struct filling *filling, size_t *chunks)
{
	size_t n = 0;

	*chunks = 0;
	for (size_t i = 0; i < job->count; i++) {
		struct filling *f = &filling[n];
		void *dst;

		hct_blocks_get(hctfs_file_of(job->fs, job->node)->blocks, job->blocks[i],
			       &f->block);
		f->pin = hct_cache_begin(job->fs->cache, key_of(job->node, &f->block),
					 f->block.length, &dst);
		if (!f->pin)
			continue;
		f->dst = dst;
		f->first = *chunks;
		*chunks += f->block.chunk_count;
		n++;
	}
	return n;
}

static void list_chunks(const struct hct_node *node, const struct filling *f,
			struct hct_wanted *wanted)
{
	uint8_t *dst = f->dst;

	for (uint64_t k = 0; k < f->block.chunk_count; k++) {
		struct hct_chunk chunk;

		hct_reader_chunk(node->reader, f->block.first_chunk + k, &chunk);
		wanted[f->first + k] = (struct hct_wanted){chunk.number, dst, HCT_OK};
		dst += chunk.length;
	}
}

/* Whether all chunks of a block came out. */
static int is_filled(const struct filling *f, const struct hct_wanted *wanted)
{
	for (uint64_t k = 0; k < f->block.chunk_count; k++)
		if (wanted[f->first + k].error)
			return 0;
	return 1;
}

/* Fills blocks together.  One that does not come out is decoded again by itself, which reports the
 * chunk that is bad. */
static void run_batch(void *arg, unsigned worker)
{
	struct prefetch_job *job = arg;
	struct hctfs *fs = job->fs;
	struct filling filling[BATCH_BLOCKS];
	size_t chunks, n = begin_blocks(job, filling, &chunks);
	struct hct_wanted *wanted = malloc((chunks ? chunks : 1) * sizeof *wanted);

	for (size_t i = 0; wanted && i < n; i++)
		list_chunks(job->node, &filling[i], wanted);
	if (wanted)
		hct_backend_decode(job->backend, job->node->reader, fs->options.layers, 0, wanted,
				   chunks, NULL);
	for (size_t i = 0; i < n; i++) {
		struct filling *f = &filling[i];
		struct hctfs_fill fill = {fs, job->node, &f->block, worker};
		hct_error e = HCT_OK;

		if (!wanted || !is_filled(f, wanted))
			e = hctfs_fill_block(&fill, 0, f->dst, f->block.length);
		hct_cache_end(fs->cache, f->pin, e);
	}
	free(wanted);
	atomic_fetch_sub(&fs->prefetches, 1);
	free(job);
}

struct want {
	struct hctfs *fs;
	const struct hct_node *node;
	size_t count; /* of blocks, for a batch */
	size_t blocks[BATCH_BLOCKS];
};

/* Queues the decoding of blocks, if few others are queued: what somebody waits for comes behind
 * them.  Returns whether it did. */
static int queue(struct want *w, hct_backend *backend)
{
	struct prefetch_job *job;

	if (atomic_fetch_add(&w->fs->prefetches, 1) >= 2 * w->fs->threads)
		goto refuse;
	job = malloc(sizeof *job + w->count * sizeof *job->blocks);
	if (!job)
		goto refuse;
	*job = (struct prefetch_job){w->fs, w->node, backend, w->count};
	for (size_t i = 0; i < w->count; i++)
		job->blocks[i] = w->blocks[i];
	if (hct_pool_try_submit(w->fs->pool, backend ? run_batch : run_prefetch, job))
		return 1;
	free(job);
refuse:
	atomic_fetch_sub(&w->fs->prefetches, 1);
	return 0;
}

/* Finds the block that holds a byte.  Returns 0 when it is in the cache or comes there, or there is
 * none; *next is where to go on. */
static int find_block(const struct want *w, uint64_t offset, size_t *index, uint64_t *next)
{
	const struct hct_blocks *blocks = hctfs_file_of(w->fs, w->node)->blocks;
	struct hct_block block;

	*next = hct_reader_safetensors(w->node->reader)->header_len;
	if (offset < *next)
		return 0;
	*index = hct_blocks_find(blocks, offset);
	hct_blocks_get(blocks, *index, &block);
	*next = block.offset + block.length;
	return !hct_cache_has(w->fs->cache, key_of(w->node, &block));
}

static uint64_t want_block(void *arg, uint64_t offset)
{
	struct want *w = arg;
	uint64_t next;

	if (!find_block(w, offset, &w->blocks[0], &next))
		return next;
	w->count = 1;
	return queue(w, NULL) ? next : 0;
}

/* Collects what one batch is to hold. */
static uint64_t want_batch(void *arg, uint64_t offset)
{
	struct want *w = arg;
	uint64_t next;

	if (w->count == BATCH_BLOCKS)
		return 0;
	if (find_block(w, offset, &w->blocks[w->count], &next))
		w->count++;
	return next;
}

void hctfs_read_ahead(struct hctfs *fs, const struct hct_node *node, uint64_t offset, size_t size)
{
	struct hct_streams *streams = &hctfs_file_of(fs, node)->streams;
	hct_backend *gpu = hctfs_gpu_backend(fs);
	struct want want = {.fs = fs, .node = node};
	uint64_t distance = fs->distance;

	if (!gpu) {
		hct_streams_note(streams, offset, size, node->size, distance, 0, want_block, &want);
		return;
	}
	if (distance < GPU_DISTANCE)
		distance = GPU_DISTANCE < fs->options.cache_bytes / 4 ? GPU_DISTANCE
								      : fs->options.cache_bytes / 4;
	hct_streams_note(streams, offset, size, node->size, distance, 1, want_batch, &want);
	/* What is refused is decoded when it is read. */
	if (want.count >= LEAST_BLOCKS) {
		queue(&want, gpu);
		return;
	}
	for (size_t n = want.count; n > 0; n--) {
		want.blocks[0] = want.blocks[n - 1];
		want.count = 1;
		queue(&want, NULL);
	}
}
