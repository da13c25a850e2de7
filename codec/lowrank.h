/* Internal: the lowrank codec.  A matrix as the product of two factors that the tcq codec
 * codes (FORMAT.md section 7). */
#ifndef HCT_LOWRANK_H
#define HCT_LOWRANK_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "reader.h"

#define HCT_LOWRANK_HEAD_BYTES   20
#define HCT_LOWRANK_MAX_RANK     1024
#define HCT_LOWRANK_MAX_ELEMENTS (1u << 22) /* of V */

/* The tables of a tensor as they lie in PARAMS. */
struct hct_lowrank_tables {
	uint32_t rank, columns;
	const uint8_t *scales; /* an f32 for each of the rank rows of V */
	const uint8_t *v_tables, *u_tables;
	const uint8_t *v_payload;
	uint32_t v_tables_length, u_tables_length, v_length;
};

/* Reads and checks them, but for the tcq tables and the payload in them; pointers are into params.
 * On error *why says what. */
hct_error hct_lowrank_tables_unpack(const uint8_t *params, size_t length,
				    struct hct_lowrank_tables *t, const char **why);
size_t hct_lowrank_tables_length(const struct hct_lowrank_tables *t);
void hct_lowrank_tables_pack(const struct hct_lowrank_tables *t, uint8_t *out);

/* Multiplies rows x rank numbers u with rank rows of `columns` numbers v, `pitch` apart:
 *
 *   w[i][c] = ((u[i][0] v[0][c] + u[i][1] v[1][c]) + u[i][2] v[2][c]) + ...
 *
 * each product and each sum rounded to float32.  w is rows x columns, without gaps.  Every variant
 * gives the same bits. */
typedef void hct_lowrank_multiply(const float *u, size_t rows, size_t rank, const float *v,
				  size_t pitch, size_t columns, float *w);

hct_lowrank_multiply hct_lowrank_multiply_scalar, hct_lowrank_multiply_avx2,
	hct_lowrank_multiply_avx512;

/* The variant for an instruction set, never HCT_SIMD_AUTO. */
hct_lowrank_multiply *hct_lowrank_find(hct_simd simd);

/* From the decoded V to what is multiplied: row k times scale k. */
void hct_lowrank_scale(const struct hct_lowrank_tables *t, float *v);

#endif
