/* Headers of safetensors files in memory of exactly their size, parsed, for unit tests.  Include
 * cmocka.h first. */
#ifndef MAKE_SAFETENSORS_H
#define MAKE_SAFETENSORS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/safetensors.h"

/* A header of this JSON in memory of exactly its size, so that ASan sees each byte that
 * is read too much. */
static inline uint8_t *make(const char *json, size_t json_len, size_t *len)
{
	uint8_t *header = malloc(8 + json_len);

	assert_non_null(header);
	for (int i = 0; i < 8; i++)
		header[i] = (uint8_t)((uint64_t)json_len >> 8 * i);
	memcpy(header + 8, json, json_len);
	*len = 8 + json_len;
	return header;
}

static inline hct_error parse_bytes(const char *json, size_t json_len, uint64_t data_bytes,
				    struct hct_safetensors *st, struct hct_diag *diag)
{
	size_t len;
	uint8_t *header = make(json, json_len, &len);
	hct_error e = hct_safetensors_parse(header, len, len + data_bytes, st, diag);

	free(header);
	return e;
}

static inline hct_error parse(const char *json, uint64_t data_bytes, struct hct_safetensors *st,
			      struct hct_diag *diag)
{
	return parse_bytes(json, strlen(json), data_bytes, st, diag);
}

static inline void accept(const char *json, uint64_t data_bytes, struct hct_safetensors *st)
{
	struct hct_diag diag = {""};

	if (parse(json, data_bytes, st, &diag) != HCT_OK)
		fail_msg("%s: %s", json, diag.text);
}

/* The text of a tensor. */
#define T(name, dtype, shape, begin, end)                                                          \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin      \
	"," #end "]}"

#endif
