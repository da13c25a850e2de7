#include "fuse_fs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/hct.h"
#include "layers.h"

#define PREFIX "user.hctfs."

/* Writes the value of an attribute into a fresh string; NULL without memory. */
typedef char *(*value_of)(const struct hctfs *fs, const struct hct_node *n);

__attribute__((format(printf, 1, 2))) static char *text(const char *format, ...)
{
	char *s = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&s, format, args) < 0)
		s = NULL;
	va_end(args);
	return s;
}

static uint64_t stored(const struct hctfs *fs, const struct hct_node *n)
{
	return n->kind == HCT_NODE_DIR ? fs->stored_bytes : n->stored_bytes;
}

static char *version(const struct hctfs *fs, const struct hct_node *n)
{
	(void)fs, (void)n;
	return text("%s", HCT_VERSION);
}

static char *stored_bytes(const struct hctfs *fs, const struct hct_node *n)
{
	return text("%" PRIu64, stored(fs, n));
}

static char *ratio(const struct hctfs *fs, const struct hct_node *n)
{
	uint64_t shown = n->kind == HCT_NODE_DIR ? fs->virtual_bytes : n->size;

	return text("%.4f", stored(fs, n) ? (double)shown / (double)stored(fs, n) : 0.0);
}

static char *format_version(const struct hctfs *fs, const struct hct_node *n)
{
	unsigned v = hct_reader_version(n->reader);

	(void)fs;
	return text("%u.%u", v >> 16, v & 0xFFFF);
}

static char *sha256(const struct hctfs *fs, const struct hct_node *n)
{
	const uint8_t *sum = hct_reader_source(n->reader)->sha256;
	char *s = malloc(65);

	(void)fs;
	for (int i = 0; s && i < 32; i++)
		snprintf(s + 2 * (size_t)i, 3, "%02x", sum[i]);
	return s;
}

static char *quality(const struct hctfs *fs, const struct hct_node *n)
{
	(void)n;
	return text("%s", hct_layers_name(fs->options.layers));
}

/* "2/4": of the tensor that has most. */
static char *layers(const struct hctfs *fs, const struct hct_node *n)
{
	unsigned most = fs->files[n->ino - 1].layers;

	return text("%u/%u", hctfs_is_cut(fs, n) ? fs->options.layers : most, most);
}

static char *tensors(const struct hctfs *fs, const struct hct_node *n)
{
	(void)fs;
	return text("%zu", hct_reader_safetensors(n->reader)->count);
}

/* The codecs of the tensors, each once, in the order in which they come. */
static char *codecs(const struct hctfs *fs, const struct hct_node *n)
{
	size_t count = hct_reader_safetensors(n->reader)->count, used = 0;
	const char *seen[16];
	unsigned kinds = 0;
	char list[256] = "";

	(void)fs;
	for (size_t i = 0; i < count && kinds < 16; i++) {
		struct hct_coding coding;
		unsigned k = 0;

		hct_reader_coding(n->reader, i, &coding);
		while (k < kinds && strcmp(seen[k], coding.codec) != 0)
			k++;
		if (k < kinds || coding.chunk_count == 0)
			continue;
		seen[kinds++] = coding.codec;
		used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? "," : "",
					 coding.codec);
		if (used >= sizeof list)
			break;
	}
	return text("%s", list);
}

static char *provenance(const struct hctfs *fs, const struct hct_node *n)
{
	(void)fs;
	return text("%s", hct_reader_provenance(n->reader));
}

/* Only those that are their source bit for bit: no loss, and no layer left out. */
#define EXACT (1u << 31)

static const struct attribute {
	const char *name;
	value_of value;
	unsigned kinds; /* of nodes that have it, one bit each, and EXACT */
} attributes[] = {
	{PREFIX "version", version,
	 1u << HCT_NODE_DIR | 1u << HCT_NODE_PLAIN | 1u << HCT_NODE_MODEL},
	{PREFIX "stored_bytes", stored_bytes, 1u << HCT_NODE_PLAIN | 1u << HCT_NODE_MODEL},
	{PREFIX "ratio", ratio, 1u << HCT_NODE_MODEL},
	{PREFIX "codec", codecs, 1u << HCT_NODE_MODEL},
	{PREFIX "format", format_version, 1u << HCT_NODE_MODEL},
	{PREFIX "tensors", tensors, 1u << HCT_NODE_MODEL},
	{PREFIX "quality", quality, 1u << HCT_NODE_MODEL},
	{PREFIX "layers", layers, 1u << HCT_NODE_MODEL},
	/* People compare it with the sum of what they read. */
	{PREFIX "sha256", sha256, 1u << HCT_NODE_MODEL | EXACT},
	{PREFIX "provenance", provenance, 1u << HCT_NODE_MODEL},
	/* The root has the sums of all. */
	{PREFIX "stored_bytes", stored_bytes, 0},
	{PREFIX "ratio", ratio, 0},
	{PREFIX "quality", quality, 0},
};

#define ATTRIBUTES (sizeof attributes / sizeof attributes[0])

static int has(const struct hctfs *fs, const struct hct_node *n, const struct attribute *a)
{
	if (a->kinds & EXACT && n->reader &&
	    (hctfs_is_cut(fs, n) || !hct_reader_is_lossless(n->reader)))
		return 0;
	return a->kinds ? (int)(a->kinds >> n->kind & 1) : n->ino == FUSE_ROOT_ID;
}

/* size 0 asks for the length only. */
static void reply(fuse_req_t req, const char *data, size_t length, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, length);
	else if (length > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data, length);
}

void hctfs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	const struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *n = hctfs_node(fs, ino);

	for (size_t i = 0; n && i < ATTRIBUTES; i++) {
		char *value;

		if (!has(fs, n, &attributes[i]) || strcmp(name, attributes[i].name) != 0)
			continue;
		value = attributes[i].value(fs, n);
		if (value)
			reply(req, value, strlen(value), size);
		else
			fuse_reply_err(req, ENOMEM);
		free(value);
		return;
	}
	fuse_reply_err(req, ENODATA);
}

void hctfs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	const struct hctfs *fs = fuse_req_userdata(req);
	const struct hct_node *n = hctfs_node(fs, ino);
	char names[ATTRIBUTES * 32];
	size_t used = 0;

	for (size_t i = 0; n && i < ATTRIBUTES; i++) {
		size_t length = strlen(attributes[i].name) + 1;

		if (!has(fs, n, &attributes[i]))
			continue;
		memcpy(names + used, attributes[i].name, length);
		used += length;
	}
	reply(req, names, used, size);
}
