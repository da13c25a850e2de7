/* Decoding one chunk of a tensor with one codec, in all variants, for its fuzz target. */
#ifndef HCT_FUZZ_CHUNK_H
#define HCT_FUZZ_CHUNK_H

#include <xxhash.h>
#include <zstd.h>

#include "codec/codec.h"
#include "fuzz.h"

struct fuzz_chunk {
	const struct hct_codec *codec;
	struct hct_tensor tensor;
	const uint8_t *params; /* tables of the tensor; only for codecs that have some */
	size_t params_length;
	uint64_t offset; /* of the chunk in the tensor, a multiple of the element's size */
	size_t length;   /* decoded */
	struct hct_payload layers[HCT_MAX_LAYERS];
	unsigned layer_count;
};

/* A payload in memory of its own, with `pad` behind it. */
static inline struct hct_payload fuzz_padded(struct hct_payload from, int pad)
{
	uint8_t *p = fuzz_alloc(from.length + HCT_PAYLOAD_PAD);

	memcpy(p, from.data, from.length);
	memset(p + from.length, pad, HCT_PAYLOAD_PAD);
	return (struct hct_payload){p, from.length};
}

/* Decodes [begin, end) into memory of just that size.  pad is what lies behind the payloads,
 * which may not matter. */
static inline hct_error fuzz_decode(const struct fuzz_chunk *c, const void *tables, hct_simd simd,
				    int pad, size_t begin, size_t end, uint8_t **out)
{
	struct hct_scratch scratch = {.simd = simd, .dctx = ZSTD_createDCtx()};
	struct hct_task task = {
		.tensor = &c->tensor,
		.tables = tables,
		.offset = c->offset,
		.length = c->length,
		.begin = begin,
		.end = end,
		.layer_count = c->layer_count,
		.scratch = &scratch,
	};
	const char *why = NULL;
	hct_error e;

	FUZZ_CHECK(scratch.dctx);
	for (unsigned l = 0; l < c->layer_count; l++)
		task.layers[l] = fuzz_padded(c->layers[l], pad);
	*out = fuzz_alloc(end - begin);
	e = c->codec->decode(&task, *out, &why);
	FUZZ_CHECK(!e || why);
	FUZZ_CHECK(!e || e == HCT_ERR_CORRUPT || e == HCT_ERR_UNSUPPORTED);
	for (unsigned l = 0; l < c->layer_count; l++)
		free((void *)task.layers[l].data);
	free(scratch.bytes);
	ZSTD_freeDCtx(scratch.dctx);
	return e;
}

/* One variant against what scalar made of the chunk (NULL when it failed with `expected`). */
static inline void fuzz_compare(const struct fuzz_chunk *c, const void *tables, hct_simd simd,
				hct_error expected, const uint8_t *reference)
{
	size_t begin, end;
	uint8_t *out;
	hct_error e = fuzz_decode(c, tables, simd, 0xff, 0, c->length, &out);

	FUZZ_CHECK(e == expected);
	FUZZ_CHECK(e || !memcmp(out, reference, c->length));
	free(out);
	/* A part of a good chunk is good; of a bad one it may be, as not all is looked at. */
	fuzz_range((uint32_t)XXH3_64bits(c->layers[0].data, c->layers[0].length), c->length, &begin,
		   &end);
	e = fuzz_decode(c, tables, simd, 0x55, begin, end, &out);
	FUZZ_CHECK(expected || (!e && !memcmp(out, reference + begin, end - begin)));
	free(out);
}

static inline void fuzz_all_variants(const struct fuzz_chunk *c)
{
	hct_error tables_error = HCT_OK, expected = HCT_OK;
	uint8_t *reference = NULL;

	for (hct_simd s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++) {
		void *tables = NULL;
		const char *why = NULL;
		hct_error e = HCT_OK;

		if (!hct_simd_supported(s))
			continue;
		if (c->codec->open_tables)
			e = c->codec->open_tables(&c->tensor, c->params, c->params_length, &tables,
						  &why);
		FUZZ_CHECK(!e || why);
		if (s == HCT_SIMD_SCALAR) {
			tables_error = e;
			if (!e)
				expected = fuzz_decode(c, tables, s, 0, 0, c->length, &reference);
		}
		FUZZ_CHECK(e == tables_error);
		if (!e)
			fuzz_compare(c, tables, s, expected, reference);
		if (!e && c->codec->free_tables)
			c->codec->free_tables(tables);
	}
	free(reference);
}

#endif
