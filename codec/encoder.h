/* Turning the bytes of a tensor into chunks.
 *
 * Two steps: hct_plan_create looks at a tensor (a bounded sample of it) and fixes
 * its coding and shared tables; hct_encode_chunk then codes any of its chunks,
 * from any thread, and depends on nothing but the plan and the chunk's bytes, so a
 * file is the same whatever the number of threads.
 *
 * HCT_METHOD_AUTO and HCT_METHOD_SVD call OpenBLAS, and set it to one thread for the whole process.
 * Where they choose low-rank factors, the file depends on the CPU, too: svd.h says why. */
#ifndef HCT_ENCODER_H
#define HCT_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "reader.h"
#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_plan hct_plan;               /* immutable; shared by threads */
typedef struct hct_encoder hct_encoder;         /* scratch memory of one encoding thread */
typedef struct hct_accelerator hct_accelerator; /* a GPU; any number of encoders share one */

enum hct_transform {
	HCT_TRANSFORM_AUTO, /* whichever costs the fewest bits */
	HCT_TRANSFORM_NONE,
	HCT_TRANSFORM_DCT
};

/* How lossy tensors are coded. */
enum hct_method {
	HCT_METHOD_AUTO,  /* whichever costs the fewest bits at the error: tcq or svd */
	HCT_METHOD_TCQ,   /* the trellis-coded quantiser */
	HCT_METHOD_TOPK,  /* the largest coefficients, 4 bits each */
	HCT_METHOD_MIXED, /* the same, those of highest energy in FP16 */
	HCT_METHOD_SVD,   /* low-rank factors, coded by the quantiser, where these take fewer bits
			   * than tcq, and otherwise tcq */
	HCT_METHOD_INT4   /* 4 bits for each element, a scale for each 32 */
};

/* What is wanted of a tensor. */
struct hct_goal {
	/* sum (a - b)^2 / sum a^2 over the tensor, below 1; 0 is lossless.  TOPK, MIXED and INT4
	 * only ask whether it is 0: their error is what comes of the settings below. */
	double relative_squared_error;
	unsigned effort; /* 1, quick, to 9, small; 0 means 5 */
	enum hct_transform transform;
	enum hct_method method;
	double retention;  /* TOPK and MIXED: share of coefficients that are kept, above 0 to 1 */
	double fp16_ratio; /* MIXED: share of these in FP16, 0 to 1 */
	/* From 1 to HCT_GOAL_MAX_LAYERS, 0 means 1: refinements after each of which a reader can
	 * stop; the last one reaches the error.  A tensor has fewer where so many cannot be made,
	 * or cost more than .15 bits of an element each; with TOPK, MIXED and INT4 it has one. */
	unsigned layers;
};

#define HCT_GOAL_MAX_LAYERS 4

/* How a tensor is going to be coded. */
struct hct_plan_info {
	const char *codec; /* that its chunks are tried with first: "tcq", "coef", "split" ... */
	const char *why;   /* why it is lossless although the goal was not; otherwise NULL */
	const char *note;  /* what was not tried for want of memory; otherwise NULL */
	unsigned layers;
	unsigned tile_rows, tile_columns; /* of the transform; 1 and 1 without */
	double bits;                      /* expected, of an element, tables included */
	double relative_squared_error;    /* expected; 0 for lossless */
};

/* One coded chunk, in one or more layers.  The payloads belong to the encoder that made them and
 * are valid until its next call. */
struct hct_encoded {
	uint16_t codec; /* as FORMAT.md numbers them */
	unsigned layer_count;
	struct hct_encoded_layer {
		const uint8_t *payload;
		uint32_t length;
		uint64_t checksum; /* XXH3-64 of the payload */
		uint64_t digest;   /* XXH3-64 of the bytes decoded up to this layer */
	} layers[HCT_GOAL_MAX_LAYERS];
	/* Sums over the elements of a chunk that was coded with loss, of the source squared, of the
	 * decoded squared, and of the squared differences; for chunks of a lossy tensor that came
	 * out lossless error is 0. */
	double energy, decoded_energy, error;
};

/* simd chooses the variant of the encoder's loops; the output is the same. */
hct_error hct_encoder_create(hct_simd simd, hct_encoder **out);
void hct_encoder_free(hct_encoder *e);

/* Resident memory that an encoder takes at most while it plans or encodes, whatever the tensor and
 * the goal, plans that it hands out not included (hct_plan_memory).  It reads tensors where they
 * lie. */
size_t hct_encoder_memory(void);

/* Opens a GPU for encoders, through the plug-in of backend.h: it does the search of the
 * trellis-coded quantiser, which takes most of their time.  gpu: "auto", or NULL: the first one, if
 * there is one; "off"; or its number, from 0.  *out is NULL where the CPU does everything.
 *
 * The output is the same with and without.  A GPU that finds no memory, or is lost, is not used any
 * more, at once and for good, by any encoder; log, which may be NULL, gets a line then, once, from
 * any thread.  With "auto" a missing plug-in or GPU is no error and not logged, and one that is
 * there and does not work is logged.  Errors: HCT_ERR_ARGUMENT (no such word), HCT_ERR_UNSUPPORTED
 * (a number, and no such GPU, or no plug-in, or one of another version), HCT_ERR_IO (the GPU
 * fails), HCT_ERR_NOMEM. */
hct_error hct_accelerator_open(const char *gpu, void (*log)(void *arg, const char *line), void *arg,
			       hct_accelerator **out, struct hct_diag *diag);
/* After all encoders that it was given to.  NULL is allowed. */
void hct_accelerator_close(hct_accelerator *a);
/* "cuda:0 (NVIDIA H200)"; lives as long as it does. */
const char *hct_accelerator_name(const hct_accelerator *a);

/* Gives e a GPU, before its first use; NULL for none, as at the start. */
void hct_encoder_accelerate(hct_encoder *e, hct_accelerator *a);

/* From now on, while a tensor is planned, watch(arg, done) is called now and then when `done` of
 * its bytes have been looked at, in order: a caller may let their pages go.  With low-rank factors
 * a tensor is looked at several times, and done begins anew each time.  When it returns 1,
 * hct_plan_create gives up with HCT_ERR_INTERRUPTED.  NULL, as at the start, for none. */
void hct_encoder_watch(hct_encoder *e, int (*watch)(void *arg, uint64_t done), void *arg);

/* Plans the coding of one tensor.  goal: NULL for lossless.  A tensor that cannot be coded with
 * loss, or would be no smaller, is lossless, and hct_plan_describe says why.  data: its
 * hct_tensor_bytes() bytes, which are read here and there for lossless coding and as a whole
 * otherwise.  Errors: HCT_ERR_ARGUMENT for a goal out of range, HCT_ERR_NOMEM,
 * HCT_ERR_INTERRUPTED from the watch. */
hct_error hct_plan_create(hct_encoder *e, const struct hct_tensor *tensor, const void *data,
			  const struct hct_goal *goal, hct_plan **out, struct hct_diag *diag);
void hct_plan_free(hct_plan *p);

/* Bytes that its tables will take of the HCT_TABLES_MAX that one file holds. */
size_t hct_plan_table_bytes(const hct_plan *p);
#define HCT_TABLES_MAX (256u << 20)

/* Makes of a plan one that has no tables, and so is lossless; before any chunk of it is encoded.
 * data as for hct_plan_create. */
void hct_plan_drop_tables(hct_encoder *e, hct_plan *p, const void *data);

void hct_plan_describe(const hct_plan *p, struct hct_plan_info *out);
/* Bytes that a plan holds, about: some KiB to 4 MiB, and up to 20 MiB with low-rank factors. */
size_t hct_plan_memory(const hct_plan *p);

uint32_t hct_plan_chunk_bytes(const hct_plan *p);
uint64_t hct_plan_chunk_count(const hct_plan *p);
/* Decoded length of chunk number n of this tensor, n < hct_plan_chunk_count(). */
uint32_t hct_plan_chunk_length(const hct_plan *p, uint64_t n);

/* Codes chunk number n of the tensor, whose bytes (hct_plan_chunk_length of them,
 * not the tensor's first byte) lie at data.  Never larger than raw, unless in several layers. */
hct_error hct_encode_chunk(hct_encoder *e, const hct_plan *p, uint64_t n, const void *data,
			   struct hct_encoded *out, struct hct_diag *diag);

#define HCT_CHECK_PAD 128

/* Decodes a chunk that hct_encode_chunk has made, for instance after it was read back from a file:
 * the payloads that it points to are followed by HCT_CHECK_PAD readable bytes, and are not those of
 * the encoder.  HCT_ERR_DIGEST or HCT_ERR_CORRUPT when it does not decode, layer by layer, to the
 * bytes that it was made to decode to (the source's, without loss); HCT_ERR_NOMEM. */
hct_error hct_check_chunk(hct_encoder *e, const hct_plan *p, uint64_t n,
			  const struct hct_encoded *chunk, struct hct_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
