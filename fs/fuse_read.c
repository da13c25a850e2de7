#include "fuse_fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "codec/units.h"
#include "layers.h"

/* Jobs that may wait; the kernel has at most 64 requests in the background, and one for
 * each thread that reads at random. */
#define QUEUE 256

#define DEFAULT_CACHE (256ull << 20)

/* With fewer threads one slow disk read would hold up too much. */
#define LEAST_THREADS 4

struct read_job {
	struct hctfs *fs;
	fuse_req_t req;
	const struct hct_node *node;
	int fd; /* plain files */
	uint64_t offset;
	size_t size;
};

/* An answer that is put together from pinned blocks, without a copy. */
struct answer {
	struct iovec iov[HCTFS_MAX_BLOCKS + 1];
	const struct hct_cache_pin *pins[HCTFS_MAX_BLOCKS];
	size_t first, count; /* blocks */
	size_t header_bytes; /* taken from the header, before the blocks */
};

/* What the reader of a file sees when it cannot be read. */
static int errno_of(hct_error e)
{
	return e == HCT_ERR_NOMEM ? ENOMEM : EIO;
}

hct_error hctfs_fill_block(void *arg, uint64_t key, void *dst, size_t length)
{
	const struct hctfs_fill *f = arg;
	struct hct_diag diag = {{0}};
	uint8_t *out = dst;

	(void)key;
	(void)length;
	for (uint64_t k = 0; k < f->block->chunk_count; k++) {
		uint64_t number = f->block->first_chunk + k;
		struct hct_chunk chunk;
		hct_error e;

		hct_reader_chunk(f->node->reader, number, &chunk);
		e = hct_reader_decode(f->node->reader, f->fs->decoders[f->worker], number, out,
				      &diag);
		if (e) {
			hctfs_report(f->fs, f->node->first_chunk + number, &diag);
			return e;
		}
		out += chunk.length;
	}
	return HCT_OK;
}

/* Which blocks a request touches.  Returns 0 when they are too many for one answer. */
static int plan_answer(struct hctfs *fs, const struct hct_node *node, uint64_t offset, size_t size,
		       struct answer *a)
{
	const struct hct_blocks *blocks = hctfs_file_of(fs, node)->blocks;
	uint64_t header = hct_reader_safetensors(node->reader)->header_len;

	memset(a->pins, 0, sizeof a->pins);
	a->first = a->count = a->header_bytes = 0;
	if (offset < header)
		a->header_bytes = header - offset < size ? header - offset : size;
	if (a->header_bytes == size)
		return 1;
	a->first = hct_blocks_find(blocks, offset + a->header_bytes);
	a->count = hct_blocks_find(blocks, offset + size - 1) - a->first + 1;
	return a->count <= HCTFS_MAX_BLOCKS;
}

static void put_answer(struct hctfs *fs, struct answer *a)
{
	for (size_t i = 0; i < a->count; i++)
		if (a->pins[i])
			hct_cache_put(fs->cache, a->pins[i]);
}

/* Answers from the header and the pinned blocks; all pins are there. */
static void send_answer(struct hctfs *fs, fuse_req_t req, const struct hct_node *node,
			uint64_t offset, size_t size, struct answer *a)
{
	const struct hct_safetensors *st = hct_reader_safetensors(node->reader);
	const struct hct_blocks *blocks = hctfs_file_of(fs, node)->blocks;
	uint64_t end = offset + size;
	int n = 0, whole = 0;

	if (a->header_bytes)
		a->iov[n++] = (struct iovec){st->header + offset, a->header_bytes};
	for (size_t i = 0; i < a->count; i++) {
		struct hct_block block;
		size_t from, to;

		hct_blocks_get(blocks, a->first + i, &block);
		from = block.offset < offset ? (size_t)(offset - block.offset) : 0;
		to = end - block.offset < block.length ? (size_t)(end - block.offset)
						       : block.length;
		whole = to == block.length;
		a->iov[n++] =
			(struct iovec){(uint8_t *)(uintptr_t)a->pins[i]->data + from, to - from};
	}
	fuse_reply_iov(req, a->iov, n);
	/* What was read to its end lies in the page cache now.  The last block may go on. */
	for (size_t i = 0; i + 1 < a->count; i++)
		hct_cache_pass(fs->cache, a->pins[i]);
	if (a->count && whole)
		hct_cache_pass(fs->cache, a->pins[a->count - 1]);
	else if (a->count)
		hct_cache_put(fs->cache, a->pins[a->count - 1]);
}

/* Pins every block of a request.  First those that are there or that nobody is decoding,
 * so that this thread works while others finish theirs; then the rest. */
static hct_error gather(struct read_job *job, unsigned worker, struct answer *a, int *shared)
{
	struct hctfs *fs = job->fs;
	const struct hct_blocks *blocks = hctfs_file_of(fs, job->node)->blocks;
	hct_error e = HCT_OK;

	for (int wait = 0; wait < 2; wait++) {
		for (size_t i = 0; i < a->count && !e; i++) {
			struct hct_block block;
			struct hctfs_fill fill = {fs, job->node, &block, worker};
			uint64_t key;

			if (a->pins[i])
				continue;
			hct_blocks_get(blocks, a->first + i, &block);
			key = job->node->first_chunk + block.first_chunk;
			e = (wait ? hct_cache_get : hct_cache_try_get)(
				fs->cache, key, block.length, hctfs_fill_block, &fill, &a->pins[i]);
			if (e && block.chunk_count > 1)
				*shared = 1;
		}
	}
	return e;
}

/* Reads just the bytes that were asked for, chunk by chunk: when a block holds a damaged
 * chunk beside good ones, or a request touches very many. */
static hct_error read_exactly(struct read_job *job, unsigned worker, uint8_t *dst)
{
	struct hctfs *fs = job->fs;
	uint64_t at = job->offset, end = job->offset + job->size;
	hct_error e = HCT_OK;

	while (at < end && !e) {
		uint64_t number, until = hct_reader_safetensors(job->node->reader)->header_len;
		int in_chunk = hct_reader_locate(job->node->reader, at, &number);
		struct hct_diag diag = {{0}};
		struct hct_chunk chunk;

		if (in_chunk) {
			hct_reader_chunk(job->node->reader, number, &chunk);
			until = chunk.offset + chunk.length;
		}
		if (until > end)
			until = end;
		e = hct_node_pread(job->node, fs->decoders[worker], -1, at, dst, until - at, &diag);
		if (e && in_chunk)
			hctfs_report(fs, job->node->first_chunk + number, &diag);
		dst += until - at;
		at = until;
	}
	return e;
}

static hct_error read_plain(struct read_job *job, uint8_t *dst)
{
	struct hct_diag diag = {{0}};
	hct_error e = hct_node_pread(job->node, NULL, job->fd, job->offset, dst, job->size, &diag);

	if (e)
		hctfs_report(job->fs, hct_tree_chunk_count(job->fs->tree) + job->node->ino - 1,
			     &diag);
	return e;
}

static void answer_by_copy(struct read_job *job, unsigned worker)
{
	uint8_t *buf = malloc(job->size);
	hct_error e = HCT_ERR_NOMEM;

	if (buf && job->node->kind == HCT_NODE_PLAIN)
		e = read_plain(job, buf);
	else if (buf)
		e = read_exactly(job, worker, buf);
	if (e)
		fuse_reply_err(job->req, errno_of(e));
	else
		fuse_reply_buf(job->req, (const char *)buf, job->size);
	free(buf);
}

/* Whether a read is the first little one in a block that is not there: readers at random
 * mostly do not come back to it. */
static int is_first_touch(struct read_job *job, const struct answer *a)
{
	struct hctfs *fs = job->fs;
	struct hct_block block;
	uint64_t key;

	if (job->size > HCTFS_SMALL_READ || a->count != 1)
		return 0;
	hct_blocks_get(hctfs_file_of(fs, job->node)->blocks, a->first, &block);
	key = job->node->first_chunk + block.first_chunk;
	return !hct_cache_has(fs->cache, key) &&
	       atomic_exchange(&fs->touches[key % HCTFS_TOUCHES], key + 1) != key + 1;
}

static void run_read(void *arg, unsigned worker)
{
	struct read_job *job = arg;
	struct answer a;
	int shared = 0;
	hct_error e;

	if (job->node->kind == HCT_NODE_PLAIN ||
	    !plan_answer(job->fs, job->node, job->offset, job->size, &a) ||
	    is_first_touch(job, &a)) {
		answer_by_copy(job, worker);
		free(job);
		return;
	}
	e = gather(job, worker, &a, &shared);
	if (!e) {
		send_answer(job->fs, job->req, job->node, job->offset, job->size, &a);
	} else {
		put_answer(job->fs, &a);
		if (shared)
			answer_by_copy(job, worker);
		else
			fuse_reply_err(job->req, errno_of(e));
	}
	free(job);
}

/* Answers at once if everything is in the cache.  Returns whether it did. */
static int answer_from_cache(struct hctfs *fs, fuse_req_t req, const struct hct_node *node,
			     uint64_t offset, size_t size)
{
	struct answer a;

	if (!plan_answer(fs, node, offset, size, &a))
		return 0;
	for (size_t i = 0; i < a.count; i++) {
		struct hct_block block;

		hct_blocks_get(hctfs_file_of(fs, node)->blocks, a.first + i, &block);
		a.pins[i] = hct_cache_peek(fs->cache, node->first_chunk + block.first_chunk);
		if (!a.pins[i]) {
			put_answer(fs, &a);
			return 0;
		}
	}
	send_answer(fs, req, node, offset, size, &a);
	return 1;
}

static void queue_read(struct hctfs *fs, fuse_req_t req, const struct hct_node *node, int fd,
		       uint64_t offset, size_t size)
{
	struct read_job *job = malloc(sizeof *job);

	if (!job) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*job = (struct read_job){fs, req, node, fd, offset, size};
	if (fs->pool)
		hct_pool_submit(fs->pool, run_read, job);
	else
		run_read(job, 0);
}

void hctfs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi)
{
	struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *node = hctfs_node(fs, ino);
	uint64_t at = (uint64_t)offset;

	if (!node || node->kind == HCT_NODE_DIR || offset < 0) {
		fuse_reply_err(req, node && node->kind == HCT_NODE_DIR ? EISDIR : EINVAL);
		return;
	}
	if (at >= node->size)
		size = 0;
	else if (size > node->size - at)
		size = (size_t)(node->size - at);
	if (size == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (node->kind == HCT_NODE_PLAIN) {
		queue_read(fs, req, node, (int)fi->fh, at, size);
		return;
	}
	if (!answer_from_cache(fs, req, node, at, size))
		queue_read(fs, req, node, -1, at, size);
	if (fs->pool && fs->distance)
		hctfs_read_ahead(fs, node, at, size);
}

/* Every thread of the pool may hold the blocks of one request while it waits for room:
 * with room for all of them nobody waits for ever. */
static uint64_t least_cache(const struct hctfs *fs)
{
	size_t longest = fs->longest > HCT_BLOCK_BYTES ? fs->longest : HCT_BLOCK_BYTES;
	uint64_t request = 2 * (uint64_t)hct_cache_charge(longest) + HCTFS_MAX_REQUEST +
			   HCTFS_MAX_REQUEST / 4 + (uint64_t)HCTFS_MAX_BLOCKS * hct_cache_charge(1);

	/* A buffer may be twice as large as what it holds (cache.c). */
	return 2 * request * (fs->threads + 1);
}

static hct_error prepare_files(struct hctfs *fs, struct hct_diag *diag)
{
	size_t count = hct_tree_count(fs->tree);

	fs->files = calloc(count, sizeof *fs->files);
	fs->reported = calloc((hct_tree_chunk_count(fs->tree) + count) / 8 + 1, 1);
	if (!fs->files || !fs->reported)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		const struct hct_node *node = hct_tree_node(fs->tree, i);
		struct hctfs_file *file = &fs->files[i];

		fs->virtual_bytes += node->size;
		fs->stored_bytes += node->stored_bytes;
		if (node->kind != HCT_NODE_MODEL)
			continue;
		if (hct_blocks_create(node->reader, &file->blocks))
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", node->path);
		hct_streams_init(&file->streams);
		file->layers = hct_layers_most(node->reader);
		if (hct_blocks_longest(file->blocks) > fs->longest)
			fs->longest = hct_blocks_longest(file->blocks);
	}
	return HCT_OK;
}

hct_error hctfs_read_prepare(struct hctfs *fs, struct hct_diag *diag)
{
	struct hctfs_options *o = &fs->options;
	unsigned cpus = hct_pool_default_threads();
	uint64_t least;
	hct_error e = prepare_files(fs, diag);

	if (e)
		return e;
	fs->threads = o->threads ? o->threads : cpus > LEAST_THREADS ? cpus : LEAST_THREADS;
	if (o->single)
		fs->threads = 1;
	least = least_cache(fs);
	if (!o->cache_given)
		o->cache_bytes = least > DEFAULT_CACHE / 2 ? 2 * least : DEFAULT_CACHE;
	if (o->cache_bytes < least) {
		char have[HCT_UNITS_MAX], need[HCT_UNITS_MAX];

		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"cache_size: %s is too small; %u threads need at least %s here, "
				"and fewer (-o threads=) need less",
				hct_units_size(o->cache_bytes, have), fs->threads,
				hct_units_size(least, need));
	}
	/* All cores are to be at work on one stream; what lies ahead must not push out what is
	 * read now. */
	if (o->readahead) {
		fs->distance = 2ull * fs->threads * fs->longest;
		if (fs->distance < o->readahead)
			fs->distance = o->readahead;
		if (fs->distance > o->cache_bytes / 4)
			fs->distance = o->cache_bytes / 4;
	}
	e = hct_cache_create(o->cache_bytes, &fs->cache);
	return e ? hct_fail(diag, e, "out of memory") : HCT_OK;
}

hct_error hctfs_read_start(struct hctfs *fs)
{
	hct_error e = HCT_OK;

	fs->decoders = calloc(fs->threads, sizeof(hct_decoder *));
	if (!fs->decoders)
		return HCT_ERR_NOMEM;
	for (unsigned i = 0; i < fs->threads && !e; i++) {
		e = hct_decoder_create(HCT_SIMD_AUTO, &fs->decoders[i]);
		if (!e)
			hct_decoder_set_layers(fs->decoders[i], fs->options.layers);
	}
	if (!e && !fs->options.single)
		e = hct_pool_create(fs->threads, QUEUE, &fs->pool);
	if (!e && fs->pool && fs->distance)
		hctfs_gpu_start(fs);
	return e;
}

void hctfs_read_drain(struct hctfs *fs)
{
	if (fs->pool)
		hct_pool_wait(fs->pool);
}

void hctfs_read_release(struct hctfs *fs)
{
	hct_pool_free(fs->pool);
	hctfs_gpu_release(fs);
	for (unsigned i = 0; fs->decoders && i < fs->threads; i++)
		hct_decoder_free(fs->decoders[i]);
	free(fs->decoders);
	hct_cache_free(fs->cache);
	for (size_t i = 0; fs->files && i < hct_tree_count(fs->tree); i++) {
		if (!fs->files[i].blocks)
			continue;
		hct_blocks_free(fs->files[i].blocks);
		hct_streams_destroy(&fs->files[i].streams);
	}
	free(fs->files);
	free(fs->reported);
}
