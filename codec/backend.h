/* Where chunks are decoded: on the CPU, or on a GPU through the plug-in libhct_cuda.so, which is
 * looked for beside libhct and where the linker looks, or is what HCT_CUDA_PLUGIN names.
 *
 * All backends give the same bytes.  One that is on a GPU and finds no memory there, or loses the
 * device, goes on with the CPU at once and for good, after one line to the log.  Any number of
 * threads may use one. */
#ifndef HCT_BACKEND_H
#define HCT_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "reader.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_backend hct_backend;

struct hct_backend_options {
	const char *gpu; /* "auto": the first GPU, or the CPU where there is none; "off": the CPU;
			  * or the number of a GPU, from 0.  NULL is "auto". */
	uint64_t gpu_memory; /* bytes that batches may take of the GPU; 0: half of what is free, and
			      * at most 2 GiB */
	unsigned threads; /* that read and verify, and decode without a GPU; 0: one for each CPU */
	hct_simd simd;    /* of the CPU */
	void (*log)(void *arg, const char *line); /* may be NULL; any thread, one at a time */
	void *log_arg;
};

/* HCT_OK, or HCT_ERR_ARGUMENT for what hct_backend_options.gpu cannot be.  Looks for no GPU. */
hct_error hct_backend_check_gpu(const char *gpu, struct hct_diag *diag);

/* options may be NULL.  With "auto" a missing plug-in or GPU is no error and nothing is logged; a
 * GPU that is there and fails is logged.  Errors: HCT_ERR_ARGUMENT (no such word),
 * HCT_ERR_UNSUPPORTED (a number, and no such GPU, or no plug-in, or one of another version),
 * HCT_ERR_IO (the GPU fails), HCT_ERR_NOMEM. */
hct_error hct_backend_open(const struct hct_backend_options *options, hct_backend **out,
			   struct hct_diag *diag);
/* NULL is allowed.  Nothing may be under way. */
void hct_backend_close(hct_backend *b);

/* "cpu (avx512)", or "cuda:0 (NVIDIA H200)"; of what it is now.  Lives as long as the backend. */
const char *hct_backend_name(const hct_backend *b);
/* The number of its GPU, or -1 on the CPU; of what it is now, too.  Memory from hct_backend_alloc
 * stays where it is. */
int hct_backend_gpu(const hct_backend *b);

/* One of many chunks that are decoded together. */
struct hct_wanted {
	uint64_t number; /* of the reader's chunks */
	void *dst;       /* hct_chunk.length bytes of the host's memory */
	hct_error error; /* found */
};

/* Decodes chunks of one reader into the host's memory: those of a few megabytes or more together
 * are worth a GPU.  layers as in hct_decoder_set_layers; verified: as hct_reader_decode_verified
 * does.  Returns the error of the first of them that has one, with its line in diag; the others
 * are decoded all the same. */
hct_error hct_backend_decode(hct_backend *b, const hct_reader *r, unsigned layers, int verified,
			     struct hct_wanted *wanted, size_t count, struct hct_diag *diag);

/* Straight to the device ---------------------------------------------------------------- */

/* Rows of a tensor (of its first dimension; a scalar has one), and where they go.  Of dtypes below
 * a byte only rows that begin and end with a whole one. */
struct hct_load {
	size_t tensor; /* index into hct_reader_safetensors()->tensors */
	uint64_t first_row, rows;
	void *dst; /* memory of the device that the backend was opened on (of the host without
		    * one), 16 bytes aligned; NULL is allowed for no bytes */
};

/* Bytes of such rows; 0 also when there are no such. */
uint64_t hct_load_bytes(const hct_reader *r, const struct hct_load *load);

/* Decodes them into device memory; reads no chunk that has none of the rows, and returns when all
 * is there.  Many loads in one call are faster than one in each.  stream: a cudaStream_t, or NULL
 * for the default one (the legacy one): what is in it comes before the first write; ignored on the
 * CPU.  Payloads are verified as always, decoded bytes are not compared with their digests. Errors:
 * HCT_ERR_ARGUMENT (no such tensor or rows), those of hct_reader_decode, of the first that has one,
 * and then the contents of all dst are undefined; HCT_ERR_IO when the device is lost, which nothing
 * can replace here. */
hct_error hct_load_device(hct_backend *b, const hct_reader *r, const struct hct_load *loads,
			  size_t count, unsigned layers, void *stream, struct hct_diag *diag);

/* Memory of the device that hct_load_device writes to, 256 bytes aligned: of the GPU that the
 * backend was opened on, or of the host without one.  The caller frees it before the backend is
 * closed.  Errors: HCT_ERR_NOMEM; HCT_ERR_IO when the device is lost. */
hct_error hct_backend_alloc(hct_backend *b, size_t bytes, void **out, struct hct_diag *diag);
void hct_backend_free(hct_backend *b, void *p);
/* Copies between that memory and the host's, either way, after what is in the default stream; done
 * when it returns.  Errors: HCT_ERR_IO when the device is lost. */
hct_error hct_backend_copy(hct_backend *b, void *to, const void *from, size_t bytes,
			   struct hct_diag *diag);

#ifdef __cplusplus
}
#endif

#endif
