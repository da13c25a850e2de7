/* Reading an .hct file: one compressed safetensors file.
 *
 * A reader is immutable after opening: any number of threads may use one at the
 * same time, each with an hct_decoder of its own.  Nothing here blocks but for
 * disk reads (pread), and no lock is held over them.
 *
 * The virtual file (the source, byte for byte when it was coded losslessly) is
 * a row of pieces: first the safetensors header, then the chunks, numbered
 * 0 .. chunk_count-1 in the order of their bytes, without holes.
 *
 * Every length and offset of the file is checked in hct_reader_open; a tensor's
 * tables and a chunk's checksum before the chunk is decoded.  A damaged file gives
 * an error and never wrong bytes. */
#ifndef HCT_READER_H
#define HCT_READER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hct_reader hct_reader;
typedef struct hct_decoder hct_decoder;

/* Which instruction set decodes.  All give the same bytes. */
typedef enum hct_simd {
	HCT_SIMD_AUTO = 0, /* the best this CPU has, or what HCT_SIMD=scalar|avx2|avx512 names */
	HCT_SIMD_SCALAR = 1,
	HCT_SIMD_AVX2 = 2,
	HCT_SIMD_AVX512 = 3
} hct_simd;

/* What HCT_SIMD_AUTO means on this machine. */
hct_simd hct_simd_best(void);
/* 1 when this CPU can run that variant. */
int hct_simd_supported(hct_simd s);
/* "scalar", "avx2", "avx512". */
const char *hct_simd_name(hct_simd s);
/* HCT_OK, or HCT_ERR_ARGUMENT (HCT_SIMD holds no name of a variant) or HCT_ERR_UNSUPPORTED
 * (this CPU cannot run it): then HCT_SIMD_AUTO passes over HCT_SIMD, and a program may
 * warn with what diag says. */
hct_error hct_simd_check_environment(struct hct_diag *diag);

/* What is known about the file that was compressed. */
struct hct_source {
	uint64_t size;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint8_t sha256[32];
};

/* How one tensor is stored. */
struct hct_coding {
	const char *codec;     /* the name that people see: "split", "zstd", "raw", or the name of
				* the codec most of its chunks use; "unknown" when that is one of
				* a newer version; "empty" without bytes */
	uint64_t first_chunk;  /* global number of its first chunk */
	uint64_t chunk_count;  /* 0 for a tensor without bytes */
	uint32_t chunk_bytes;  /* decoded bytes of every chunk but the last */
	unsigned layers;       /* 1 or more */
	uint64_t stored_bytes; /* extents and the tensor's own tables, as they lie in the file */
	double relative_squared_error; /* that the encoder measured; 0 when lossless */
};

/* One chunk of the virtual file. */
struct hct_chunk {
	size_t tensor;          /* index into hct_reader_safetensors()->tensors */
	uint64_t number;        /* global chunk number */
	uint64_t offset;        /* of its first byte in the virtual file */
	uint32_t length;        /* decoded bytes */
	uint64_t stored_offset; /* of its first extent in the .hct file */
	uint64_t stored_bytes;  /* all its extents */
	unsigned layers;        /* 1 or more */
};

/* Opens path and checks its structures.  Errors: HCT_ERR_IO, HCT_ERR_NOT_FOUND,
 * HCT_ERR_NOT_HCT, HCT_ERR_UNFINISHED, HCT_ERR_VERSION, HCT_ERR_UNSUPPORTED,
 * HCT_ERR_CORRUPT, HCT_ERR_CHECKSUM, HCT_ERR_LIMIT, HCT_ERR_SAFETENSORS (the stored
 * header), HCT_ERR_NOMEM. */
hct_error hct_reader_open(const char *path, hct_reader **out, struct hct_diag *diag);

/* The same for an open descriptor, which the reader owns from then on (also when
 * opening fails); name is for messages. */
hct_error hct_reader_open_fd(int fd, const char *name, hct_reader **out, struct hct_diag *diag);

/* NULL is allowed.  No decoder may be at work on it. */
void hct_reader_close(hct_reader *r);

/* All of these live as long as the reader. */
const char *hct_reader_name(const hct_reader *r);
const struct hct_safetensors *hct_reader_safetensors(const hct_reader *r);
const struct hct_source *hct_reader_source(const hct_reader *r);
const char *hct_reader_provenance(const hct_reader *r); /* JSON text: tool, version, options */
uint64_t hct_reader_file_bytes(const hct_reader *r);    /* of the .hct file, all included */
unsigned hct_reader_version(const hct_reader *r);       /* major << 16 | minor */
uint64_t hct_reader_chunk_count(const hct_reader *r);
/* 1 when the virtual file is the source bit for bit, 0 when some tensor has an error. */
int hct_reader_is_lossless(const hct_reader *r);

/* i < hct_reader_safetensors()->count. */
void hct_reader_coding(const hct_reader *r, size_t i, struct hct_coding *out);

/* Bytes, as they lie in the file, of the first `layers` layers of all chunks of tensor i; 0 for
 * all layers. */
uint64_t hct_reader_layer_bytes(const hct_reader *r, size_t i, unsigned layers);

/* number < hct_reader_chunk_count(). */
void hct_reader_chunk(const hct_reader *r, uint64_t number, struct hct_chunk *out);

/* The chunk that holds a byte of the virtual file.  Returns 0 when the offset
 * lies in the header or behind the end, otherwise 1 with *number set. */
int hct_reader_locate(const hct_reader *r, uint64_t offset, uint64_t *number);

/* Scratch memory of one decoding thread, for any number of readers.  HCT_ERR_UNSUPPORTED
 * when this CPU cannot run that variant. */
hct_error hct_decoder_create(hct_simd simd, hct_decoder **out);
void hct_decoder_free(hct_decoder *d);

/* From now on, decodes no more than the first `layers` layers of a chunk, a coarser version of
 * it, and reads and verifies no more of the file; 0 (the start) for all.  Where that leaves out
 * layers of a file, the kernel is kept from reading ahead on the reader's descriptor, for other
 * decoders too, and told of the wanted extents instead. */
void hct_decoder_set_layers(hct_decoder *d, unsigned layers);

/* Reads, verifies and decodes one chunk into dst (hct_chunk.length bytes).
 * Errors: HCT_ERR_IO, HCT_ERR_CHECKSUM, HCT_ERR_CORRUPT, HCT_ERR_UNSUPPORTED,
 * HCT_ERR_NOMEM, HCT_ERR_ARGUMENT (no such chunk); diag names file, tensor, chunk, expected and
 * found.  On failure the contents of dst are undefined. */
hct_error hct_reader_decode(const hct_reader *r, hct_decoder *d, uint64_t number, void *dst,
			    struct hct_diag *diag);

/* The same, and then the decoded bytes against their digest: HCT_ERR_DIGEST. */
hct_error hct_reader_decode_verified(const hct_reader *r, hct_decoder *d, uint64_t number,
				     void *dst, struct hct_diag *diag);

/* Decodes any byte range of the virtual file, header included: reads
 * [offset, offset + length), which must lie within it (HCT_ERR_ARGUMENT).  Only the
 * substreams that the range touches are decoded. */
hct_error hct_reader_pread(const hct_reader *r, hct_decoder *d, uint64_t offset, void *dst,
			   size_t length, struct hct_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
