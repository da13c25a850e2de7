/* A safetensors file in memory and its .hct file in a memfd, for unit tests. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/hct.h"

enum model_data { WEIGHTS, COUNTERS, NOISE };

struct model_tensor {
	const char *name, *dtype, *shape;
	size_t bytes;
	enum model_data data;
};

struct model {
	uint8_t *file;
	size_t size;
	struct hct_safetensors st;
};

/* BF16 values around 2^-5 whose scale depends on the seed, so that tables do, too. */
static inline uint16_t model_weight(uint32_t *seed, unsigned scale)
{
	float sum = 0;
	uint32_t u;

	for (int i = 0; i < 4; i++) {
		*seed = *seed * 1664525 + 1013904223;
		sum += (float)(*seed >> 8) / 16777216.0f - 0.5f;
	}
	sum *= 0.03f * (float)(1u << scale % 12);
	memcpy(&u, &sum, 4);
	return (uint16_t)(u >> 16);
}

static inline void model_fill(uint8_t *p, const struct model_tensor *t, uint32_t seed)
{
	unsigned scale = seed;

	for (size_t i = 0; i < t->bytes; i++) {
		if (t->data == WEIGHTS && i % 2 == 0 && i + 1 < t->bytes) {
			uint16_t v = model_weight(&seed, scale);

			memcpy(p + i++, &v, 2);
			continue;
		}
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(t->data == COUNTERS ? (i % 4 ? 0 : i / 4) : seed >> 24);
	}
}

/* The tensors one after another; model_free frees. */
static inline void model_make(const struct model_tensor *t, size_t count, uint32_t seed,
			      struct model *m)
{
	size_t room = 16 + 256 * count, at = 9, data = 0, header;
	struct hct_diag d = {""};
	uint64_t n;

	for (size_t i = 0; i < count; i++)
		room += t[i].bytes;
	m->file = calloc(room, 1);
	assert_non_null(m->file);
	m->file[8] = '{';
	for (size_t i = 0; i < count; i++) {
		at += (size_t)sprintf((char *)m->file + at,
				      "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,"
				      "\"data_offsets\":[%zu,%zu]}",
				      i ? "," : "", t[i].name, t[i].dtype, t[i].shape, data,
				      data + t[i].bytes);
		data += t[i].bytes;
	}
	m->file[at++] = '}';
	header = at;
	n = header - 8;
	memcpy(m->file, &n, 8);
	for (size_t i = 0; i < count; i++) {
		model_fill(m->file + at, &t[i], seed + (uint32_t)i);
		at += t[i].bytes;
	}
	m->size = at;
	if (hct_safetensors_parse(m->file, header, m->size, &m->st, &d))
		fail_msg("%s", d.text);
}

static inline void model_free(struct model *m)
{
	hct_safetensors_free(&m->st);
	free(m->file);
}

/* Compresses, each tensor as its goal has it, or without loss where goals is NULL; returns a memfd
 * that is the caller's. */
static inline int model_compress_for(const struct model *m, const struct hct_goal *goals)
{
	struct hct_source source = {.size = m->size};
	struct hct_encoded chunk;
	hct_appender *a;
	hct_encoder *e;
	int fd = memfd_create("model", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &e), HCT_OK);
	assert_int_equal(hct_appender_create(fd, "model", &m->st, &a, NULL), HCT_OK);
	for (size_t i = 0; i < m->st.count; i++) {
		const uint8_t *data = m->file + m->st.header_len + m->st.tensors[i].begin;
		hct_plan *p;

		assert_int_equal(hct_plan_create(e, &m->st.tensors[i], data,
						 goals ? &goals[i] : NULL, &p, NULL),
				 HCT_OK);
		assert_int_equal(hct_appender_tensor(a, i, p, NULL), HCT_OK);
		for (uint64_t k = 0; k < hct_plan_chunk_count(p); k++) {
			assert_int_equal(hct_encode_chunk(e, p, k,
							  data + k * hct_plan_chunk_bytes(p),
							  &chunk, NULL),
					 HCT_OK);
			assert_int_equal(hct_appender_chunk(a, &chunk, NULL), HCT_OK);
		}
		hct_plan_free(p);
	}
	assert_int_equal(hct_appender_finish(a, &source, "{}", NULL, NULL), HCT_OK);
	hct_appender_free(a);
	hct_encoder_free(e);
	return fd;
}

static inline int model_compress(const struct model *m)
{
	return model_compress_for(m, NULL);
}

#endif
