/* Small .hct files for unit tests, written by the library itself. */
#ifndef MAKE_HCT_H
#define MAKE_HCT_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/hct.h"

/* The safetensors file of F32 vectors with these element counts, named t0, t1 ...
 * Free it. */
static uint8_t *make_safetensors(const unsigned *counts, size_t tensors, size_t *size)
{
	char *json = calloc(tensors + 1, 128);
	size_t at = 1, data = 0, header, total;
	uint64_t n;
	uint8_t *file;
	uint32_t seed = 1;

	assert_non_null(json);
	json[0] = '{';
	for (size_t i = 0; i < tensors; i++) {
		at += (size_t)sprintf(json + at,
				      "%s\"t%03zu\":{\"dtype\":\"F32\",\"shape\":[%u],"
				      "\"data_offsets\":[%zu,%zu]}",
				      i ? "," : "", i, counts[i], data,
				      data + 4 * (size_t)counts[i]);
		data += 4 * (size_t)counts[i];
	}
	json[at++] = '}';
	header = 8 + at;
	total = header + data;
	file = malloc(total);
	assert_non_null(file);
	n = at;
	memcpy(file, &n, 8);
	memcpy(file + 8, json, at);
	for (size_t i = header; i < total; i++) {
		seed = seed * 1664525u + 1013904223u;
		file[i] = (uint8_t)(i % 4 == 3 ? 0x3D : seed >> 24);
	}
	free(json);
	*size = total;
	return file;
}

static void make_hct(const char *path, const uint8_t *file, size_t size,
		     const struct hct_source *source)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	struct hct_safetensors st;
	hct_appender *a;
	hct_encoder *enc;
	size_t len;

	assert_true(fd >= 0);
	assert_int_equal(hct_safetensors_header_len(file, size, &len, NULL), HCT_OK);
	assert_int_equal(hct_safetensors_parse(file, len, size, &st, NULL), HCT_OK);
	assert_int_equal(hct_encoder_create(HCT_SIMD_SCALAR, &enc), HCT_OK);
	assert_int_equal(hct_appender_create(fd, path, &st, &a, NULL), HCT_OK);
	for (size_t i = 0; i < st.count; i++) {
		const uint8_t *data = file + len + st.tensors[i].begin;
		hct_plan *plan;

		assert_int_equal(hct_plan_create(enc, &st.tensors[i], data, NULL, &plan, NULL),
				 HCT_OK);
		assert_int_equal(hct_appender_tensor(a, i, plan, NULL), HCT_OK);
		for (uint64_t n = 0; n < hct_plan_chunk_count(plan); n++) {
			struct hct_encoded chunk;

			assert_int_equal(hct_encode_chunk(enc, plan, n, data, &chunk, NULL),
					 HCT_OK);
			assert_int_equal(hct_appender_chunk(a, &chunk, NULL), HCT_OK);
			data += hct_plan_chunk_length(plan, n);
		}
		hct_plan_free(plan);
	}
	assert_int_equal(hct_appender_finish(a, source, "{}", NULL, NULL), HCT_OK);
	hct_appender_free(a);
	hct_encoder_free(enc);
	hct_safetensors_free(&st);
	close(fd);
}

#endif
