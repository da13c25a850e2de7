/* One way of coding a model, tried: how small, how good, how fast.  Any failure ends the program
 * with a line. */
#ifndef BENCH_TRIAL_H
#define BENCH_TRIAL_H

#include <stdint.h>

#include "codec/encoder.h"
#include "codec/metrics.h"
#include "model.h"

/* What became of one tensor. */
struct trial_tensor {
	struct hct_plan_info plan; /* .codec: of the plan; single chunks may differ */
	uint64_t bytes;            /* its extents and tables, as they lie in the file */
	struct hct_metrics sums;
};

struct trial {
	int fd; /* an unnamed file, the .hct */
	uint64_t file_bytes, weights;
	double encode_seconds; /* best of the rounds, planning and writing included */
	double decode_seconds[HCT_SIMD_AVX512 + 1]; /* by instruction set; 0: not timed */
	unsigned layers;
	uint64_t layer_bytes[HCT_GOAL_MAX_LAYERS]; /* payloads of all chunks */
	struct hct_metrics sums;                   /* of all tensors */
	int identical;                             /* every byte is the source's */
	size_t tensors;
	struct trial_tensor *tensor;
};

/* Codes m with a goal, NULL meaning lossless, `rounds` times, and decodes it once through the
 * reader, digests verified, to compare it with the source.  trial_free it. */
void trial_run(const struct model *m, const struct hct_goal *goal, hct_simd simd, int rounds,
	       struct trial *out);
void trial_free(struct trial *t);

/* Sums of differences with only the first `layers` layers decoded. */
void trial_measure_layers(const struct model *m, const struct trial *t, unsigned layers,
			  struct hct_metrics *sums);

/* NULL, or why this goal cannot be tried: the encoder refuses it, or codes the first tensor with
 * another method than the one that was asked for. */
const char *trial_refusal(const struct model *m, const struct hct_goal *goal);

/* Seconds of decoding every chunk, best of the rounds: through the reader, with pread and
 * checksums, or the codec alone, payloads in memory and already verified. */
double trial_decode_reader(const struct trial *t, hct_simd simd, int rounds);
double trial_decode_codec(const struct trial *t, hct_simd simd, int rounds);

/* Whole-file bits a weight, and the same moved along the slope of D(R), 6 dB a bit, to another
 * relative squared error, for comparing at equal error. */
double trial_bits(const struct trial *t);
double trial_bits_at(const struct trial *t, double error);
double trial_error(const struct trial *t);

/* The tensor whose error is the largest; 0 when all are lossless. */
size_t trial_worst(const struct trial *t);
/* Tensors whose chunks are planned in that codec. */
size_t trial_count(const struct trial *t, const char *codec);

#endif
