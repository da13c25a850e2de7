/* Tensors for tests of the lossy encoder, and what becomes of them in a file. */
#ifndef TCQ_MEASURE_H
#define TCQ_MEASURE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "codec/appender.h"
#include "codec/checksum.h"
#include "codec/dequant.h"
#include "codec/hctenc.h"

/* Numbers that look random, the same everywhere: no function of libm but sqrt and log. */
static uint64_t measure_seed = 1;

static inline double measure_uniform(void)
{
	measure_seed = measure_seed * 6364136223846793005u + 1442695040888963407u;
	return ((double)(measure_seed >> 11) + .5) * 0x1p-53;
}

/* G. Marsaglia's polar method. */
static inline double measure_gaussian(void)
{
	double x, y, r;

	do {
		x = 2 * measure_uniform() - 1;
		y = 2 * measure_uniform() - 1;
		r = x * x + y * y;
	} while (r >= 1);
	return x * sqrt(-2 * log(r) / r);
}

static inline double measure_laplacian(void)
{
	double u = 2 * measure_uniform() - 1;

	return (u < 0 ? 1 : -1) * log(fabs(u)) * sqrt(.5);
}

/* Student's t with 2 degrees of freedom. */
static inline double measure_student(void)
{
	double g = measure_gaussian();

	return g / sqrt(-log(measure_uniform()));
}

/* A tensor of at most 8 dimensions. */
struct tensor {
	hct_dtype dtype;
	unsigned rank;
	uint64_t shape[8];
	size_t n;
	uint8_t *data;
};

static inline struct tensor tensor_of_shape(hct_dtype dtype, unsigned rank, const uint64_t *shape)
{
	struct tensor t = {.dtype = dtype, .rank = rank, .n = 1};

	for (unsigned i = 0; i < rank; i++) {
		t.shape[i] = shape[i];
		t.n *= shape[i];
	}
	t.data = calloc(t.n + 1, hct_dtype_unit(dtype));
	return t;
}

static inline struct tensor tensor_of(hct_dtype dtype, uint64_t rows, uint64_t columns)
{
	const uint64_t shape[2] = {rows, columns};

	return tensor_of_shape(dtype, 2, shape);
}

static inline void tensor_set(struct tensor *t, size_t i, double v)
{
	uint8_t *p = t->data + i * hct_dtype_unit(t->dtype);
	float f = (float)v;

	if (t->dtype == HCT_DTYPE_F64)
		memcpy(p, &v, sizeof v);
	else if (t->dtype == HCT_DTYPE_F32)
		memcpy(p, &f, sizeof f);
	else
		hct_dequant_scalar.narrow[t->dtype](&f, 1, p);
}

static inline void tensor_free(struct tensor *t)
{
	free(t->data);
	t->data = NULL;
}

/* What a tensor became. */
struct outcome {
	hct_error failed; /* of hct_plan_create */
	struct hct_plan_info plan;
	double bits;    /* of an element, payloads and tables */
	double payload; /* payloads alone */
	double error;   /* relative, squared, of what a reader finds */
	double cosine;
	double recorded;                    /* in the file */
	double prefix[HCT_GOAL_MAX_LAYERS]; /* error after each layer */
	double coded[HCT_GOAL_MAX_LAYERS];  /* bits of each layer's payloads */
	uint64_t digest;                    /* of all payloads, in order */
	struct hct_coding coding;
};

/* Relative squared error of what a decoder, told so many layers, makes of the file's only tensor.
 */
static inline double outcome_error(const struct tensor *t, hct_reader *r, hct_decoder *d,
				   size_t header, double *cosine)
{
	size_t unit = hct_dtype_unit(t->dtype);
	uint8_t *found = malloc(t->n * unit + 1);
	double aa = 0, bb = 0, ab = 0, dd = 0;

	assert_int_equal(hct_reader_pread(r, d, header, found, t->n * unit, NULL), HCT_OK);
	for (size_t i = 0; i < t->n; i++) {
		double a, b;

		hct_dtype_to_double(t->dtype, t->data + i * unit, 1, &a);
		hct_dtype_to_double(t->dtype, found + i * unit, 1, &b);
		aa += a * a;
		bb += b * b;
		ab += a * b;
		dd += memcmp(t->data + i * unit, found + i * unit, unit) ? (a - b) * (a - b) : 0;
	}
	free(found);
	*cosine = aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 1;
	return dd > 0 ? dd / aa : dd;
}

/* A file of that tensor, through the public interface, and back. */
static inline struct outcome measure(const struct tensor *t, const struct hct_goal *goal,
				     hct_simd simd)
{
	size_t bytes = t->n * hct_dtype_unit(t->dtype), at = 0;
	struct outcome o = {.failed = HCT_OK};
	char header[512] = {0}, shape[256] = "";
	int fd = memfd_create("measure", MFD_CLOEXEC), length = 0, back;
	struct hct_safetensors st;
	struct hct_source source = {0};
	hct_encoder *encoder;
	hct_appender *appender;
	hct_decoder *decoder;
	hct_reader *reader;
	hct_plan *plan;

	for (unsigned i = 0; i < t->rank; i++)
		length += sprintf(shape + length, "%s%llu", i ? "," : "",
				  (unsigned long long)t->shape[i]);
	length = sprintf(header + 8,
			 "{\"w\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[0,%zu]}}",
			 hct_dtype_name(t->dtype), shape, bytes);
	memcpy(header, &length, sizeof length);
	length += 8;
	assert_int_equal(
		hct_safetensors_parse(header, (size_t)length, (size_t)length + bytes, &st, NULL),
		HCT_OK);
	assert_int_equal(hct_encoder_create(simd, &encoder), HCT_OK);
	o.failed = hct_plan_create(encoder, &st.tensors[0], t->data, goal, &plan, NULL);
	if (o.failed) {
		assert_null(plan);
		goto out;
	}
	assert_int_equal(hct_appender_create(fd, "measure", &st, &appender, NULL), HCT_OK);
	assert_int_equal(hct_appender_tensor(appender, 0, plan, NULL), HCT_OK);
	hct_plan_describe(plan, &o.plan);
	for (uint64_t n = 0; n < hct_plan_chunk_count(plan); n++) {
		struct hct_encoded e;

		assert_int_equal(hct_encode_chunk(encoder, plan, n, t->data + at, &e, NULL),
				 HCT_OK);
		assert_int_equal(hct_appender_chunk(appender, &e, NULL), HCT_OK);
		for (unsigned l = 0; l < e.layer_count; l++) {
			const struct hct_encoded_layer *x = &e.layers[l];

			o.coded[l] += 8. * x->length / (double)t->n;
			o.payload += 8. * x->length / (double)t->n;
			o.digest =
				o.digest * 31 + hct_checksum(x->payload, x->length) * 7 + x->digest;
		}
		at += hct_plan_chunk_length(plan, n);
	}
	assert_int_equal(at, bytes);
	source.size = st.file_size;
	assert_int_equal(hct_appender_finish(appender, &source, "{}", NULL, NULL), HCT_OK);
	back = dup(fd);
	assert_int_equal(hct_reader_open_fd(back, "measure", &reader, NULL), HCT_OK);
	assert_int_equal(hct_decoder_create(simd, &decoder), HCT_OK);
	hct_reader_coding(reader, 0, &o.coding);
	for (unsigned l = 1; l <= o.coding.layers; l++) {
		hct_decoder_set_layers(decoder, l);
		o.prefix[l - 1] = outcome_error(t, reader, decoder, st.header_len, &o.cosine);
	}
	o.error = o.prefix[o.coding.layers - 1];
	o.bits = 8. * (double)o.coding.stored_bytes / (double)t->n;
	o.recorded = o.coding.relative_squared_error;
	hct_decoder_free(decoder);
	hct_reader_close(reader);
	hct_plan_free(plan);
	hct_appender_free(appender);
out:
	hct_encoder_free(encoder);
	hct_safetensors_free(&st);
	close(fd);
	return o;
}

/* Retention .70. */
#define D70 0.0146

static inline struct hct_goal goal_of(double error)
{
	return (struct hct_goal){.relative_squared_error = error, .method = HCT_METHOD_TCQ};
}

static inline void fill_gaussian(struct tensor *t)
{
	for (size_t i = 0; i < t->n; i++)
		tensor_set(t, i, .02 * measure_gaussian());
}

static inline void complain(const char *name, const struct outcome *o, double error)
{
	print_error("%s at %g: %s (%s), tile %u x %u, %.4f bits, error %.4f of that asked for, "
		    "cosine %.5f\n",
		    name, error, o->plan.codec, o->plan.why ? o->plan.why : "as asked for",
		    o->plan.tile_rows, o->plan.tile_columns, o->bits, o->error / error, o->cosine);
}

#endif
