/* The header of a safetensors file: parsed, checked, and kept verbatim.
 *
 * A safetensors file is u64 N (little-endian), N bytes of JSON, then the data
 * of all tensors without holes.  Names, shapes and offsets from a file are
 * hostile: parse checks each before anybody uses it. */
#ifndef HCT_SAFETENSORS_H
#define HCT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HCT_SAFETENSORS_MAX_HEADER 100000000u /* bytes of JSON, as the reference has it */
#define HCT_SAFETENSORS_MAX_RANK   64u
/* Objects, arrays and their members in one header, about eight for each tensor. */
#define HCT_SAFETENSORS_MAX_VALUES 4000000u

struct hct_tensor {
	const char *name;       /* UTF-8, NUL-terminated; may hold any character, also '/' */
	const char *dtype_name; /* as the header spells it */
	hct_dtype dtype;
	unsigned rank;         /* 0 for a scalar */
	const uint64_t *shape; /* rank entries, row-major */
	uint64_t elements;     /* product of shape; 1 for rank 0 */
	uint64_t begin, end;   /* byte range within the data region */
};

/* Read-only after parsing, so any number of threads may share it. */
struct hct_safetensors {
	uint8_t *header;            /* the first header_len bytes of the file, verbatim */
	size_t header_len;          /* 8 + N */
	uint64_t file_size;         /* header_len + data bytes */
	struct hct_tensor *tensors; /* in order of their data */
	size_t count;
	void *arena; /* owns names and shapes */
};

/* Bytes that hct_safetensors_parse needs, read from the first 8 bytes of a
 * file: 8 + N.  Fails when N is impossible for a file of file_size bytes. */
hct_error hct_safetensors_header_len(const uint8_t first[8], uint64_t file_size, size_t *len,
				     struct hct_diag *diag);

/* Parses header (len bytes, copied) of a file of file_size bytes.  On success
 * *out is filled and must go to hct_safetensors_free.  Checks: JSON, every
 * tensor has dtype, shape and data_offsets, offsets agree with dtype and shape,
 * the tensors cover the data region without hole or overlap.
 * Errors: HCT_ERR_SAFETENSORS with the tensor's name, HCT_ERR_LIMIT (rank, values),
 * HCT_ERR_NOMEM. */
hct_error hct_safetensors_parse(const void *header, size_t len, uint64_t file_size,
				struct hct_safetensors *out, struct hct_diag *diag);

/* Frees what parse filled; harmless on a zeroed struct and when repeated. */
void hct_safetensors_free(struct hct_safetensors *st);

/* Index of the tensor of that name, or SIZE_MAX.  O(log n). */
size_t hct_safetensors_find(const struct hct_safetensors *st, const char *name);

/* The parameters a person would count: elements for known types. */
static inline uint64_t hct_tensor_bytes(const struct hct_tensor *t)
{
	return t->end - t->begin;
}

#ifdef __cplusplus
}
#endif
#endif
