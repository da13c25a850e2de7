/* Any bytes as a tensor of any dtype: what goes in comes out, or what is near enough.
 *
 * Input: u8 dtype, u8 columns, then the bytes of the tensor, which are repeated to fill several
 * chunks when the upper bit of the first byte is set; last the goal: u8 effort, transform and
 * layers, u8 method, u8 error (0 is lossless).  When bit 6 of the first byte is set, elements of
 * floating-point dtypes are drawn instead: with a scale, outliers and zeros as the bytes say. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/appender.h"
#include "codec/dequant.h"
#include "codec/tcq.h"

#define REPEATED_BYTES (320u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(hct_error err)
{
	if (err) {
		fprintf(stderr, "%s\n", hct_error_string(err));
		abort();
	}
}

/* A header for one matrix of columns; *bytes is cut to whole rows.  0: no such matrix. */
static int make_header(hct_dtype dtype, unsigned columns, size_t *bytes, uint8_t out[512])
{
	unsigned bits = hct_dtype_bits(dtype);
	uint64_t rows;
	int n;

	if (!bits)
		return 0;
	columns = bits < 8 ? columns * 4 : columns; /* rows of whole bytes */
	rows = *bytes * 8 / ((uint64_t)columns * bits);
	*bytes = rows * columns * bits / 8;
	n = snprintf((char *)out + 8, 504,
		     "{\"w\":{\"dtype\":\"%s\",\"shape\":[%" PRIu64
		     ",%u],\"data_offsets\":[0,%zu]}}",
		     hct_dtype_name(dtype), rows, columns, *bytes);
	memset(out, 0, 8);
	memcpy(out, &n, sizeof(n));
	return 8 + n;
}

/* Codes a tensor; 1 when with loss, and otherwise the plan says why not. */
static int encode(int fd, const struct hct_safetensors *st, const uint8_t *data,
		  const struct hct_goal *goal)
{
	const struct hct_source source = {.size = st->file_size};
	struct hct_plan_info info;
	struct hct_encoded coded;
	hct_appender *appender;
	hct_encoder *encoder;
	hct_plan *plan;
	uint64_t at = 0;

	must(hct_encoder_create(HCT_SIMD_AUTO, &encoder));
	must(hct_appender_create(fd, "fuzz", st, &appender, NULL));
	must(hct_plan_create(encoder, &st->tensors[0], data, goal, &plan, NULL));
	hct_plan_describe(plan, &info);
	must(hct_appender_tensor(appender, 0, plan, NULL));
	for (uint64_t n = 0; n < hct_plan_chunk_count(plan); n++) {
		must(hct_encode_chunk(encoder, plan, n, data + at, &coded, NULL));
		if (coded.layer_count == 1 &&
		    coded.layers[0].length > hct_plan_chunk_length(plan, n))
			abort();
		must(hct_appender_chunk(appender, &coded, NULL));
		at += hct_plan_chunk_length(plan, n);
	}
	must(hct_appender_finish(appender, &source, "{}", NULL, NULL));
	hct_plan_free(plan);
	hct_appender_free(appender);
	hct_encoder_free(encoder);
	return goal->relative_squared_error > 0 && !info.why;
}

/* Distance of neighbours among the numbers of a dtype, about where v is. */
static double spacing(hct_dtype dtype, double v)
{
	static const struct {
		hct_dtype dtype;
		int least, bits; /* log2 of the least normal number, bits of the mantissa */
	} dtypes[] = {
		{HCT_DTYPE_BF16, -126, 7},      {HCT_DTYPE_F16, -14, 10},
		{HCT_DTYPE_F8_E4M3, -6, 3},     {HCT_DTYPE_F8_E5M2, -14, 2},
		{HCT_DTYPE_F8_E4M3FNUZ, -7, 3}, {HCT_DTYPE_F8_E5M2FNUZ, -15, 2},
		{HCT_DTYPE_F32, -126, 23},      {HCT_DTYPE_F64, -126, 23},
	};

	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
		if (dtypes[i].dtype == dtype)
			return fmax(fabs(v), ldexp(1, dtypes[i].least)) * ldexp(1, -dtypes[i].bits);
	return 0;
}

/* The error is at most what was asked for, but for what rounding to the dtype adds. */
static void judge(hct_dtype dtype, const uint8_t *data, const uint8_t *found, size_t bytes,
		  double wanted)
{
	size_t unit = hct_dtype_unit(dtype);
	double energy = 0, error = 0, rounding = 0;

	for (size_t i = 0; i < bytes; i += unit) {
		double a, b;

		hct_dtype_to_double(dtype, data + i, 1, &a);
		hct_dtype_to_double(dtype, found + i, 1, &b);
		energy += a * a;
		error += (a - b) * (a - b);
		rounding += spacing(dtype, a) * spacing(dtype, a);
	}
	if (!(error <= 1.1 * wanted * energy + rounding)) {
		fprintf(stderr, "%s: error %g instead of %g\n", hct_dtype_name(dtype),
			error / energy, wanted);
		abort();
	}
}

static void decode(int fd, const struct hct_safetensors *st, const uint8_t *data,
		   const struct hct_goal *goal, int lossy)
{
	uint8_t *out = malloc(st->file_size), *first = malloc(st->file_size);
	size_t bytes = st->file_size - st->header_len;
	hct_decoder *decoder;
	hct_reader *reader;
	struct hct_coding coding;

	must(hct_reader_open_fd(fd, "fuzz", &reader, NULL));
	hct_reader_coding(reader, 0, &coding);
	for (int s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++) {
		if (!hct_simd_supported(s))
			continue;
		must(hct_decoder_create(s, &decoder));
		must(hct_reader_pread(reader, decoder, 0, out, st->file_size, NULL));
		if (memcmp(out, st->header, st->header_len) != 0)
			abort();
		if (!lossy && memcmp(out + st->header_len, data, bytes) != 0)
			abort();
		if (s == HCT_SIMD_SCALAR)
			memcpy(first, out, st->file_size);
		if (memcmp(first, out, st->file_size) != 0)
			abort();
		for (unsigned l = 1; l <= coding.layers; l++) {
			hct_decoder_set_layers(decoder, l);
			for (uint64_t n = 0; n < hct_reader_chunk_count(reader); n++)
				must(hct_reader_decode_verified(reader, decoder, n, out, NULL));
		}
		hct_decoder_free(decoder);
	}
	if (lossy && goal->method <= HCT_METHOD_TCQ)
		judge(st->tensors[0].dtype, data, first + st->header_len, bytes,
		      goal->relative_squared_error);
	hct_reader_close(reader);
	free(out);
	free(first);
}

/* Bytes of the input, over and over, or numbers drawn as they say. */
static void fill(hct_dtype dtype, int drawn, const uint8_t *data, size_t size, uint8_t *out,
		 size_t bytes)
{
	size_t unit = hct_dtype_unit(dtype);
	uint64_t seed = data[0] | (uint64_t)size << 8;
	double scale = ldexp(1, (int8_t)data[0] / 2);

	for (size_t i = 0; i < bytes; i++)
		out[i] = data[i % size];
	if (!drawn || !hct_tcq_has_dtype(dtype))
		return;
	for (size_t i = 0; i + unit <= bytes; i += unit) {
		uint8_t kind = data[i / unit % size];
		float v = 0;

		for (unsigned k = 0; k < 4; k++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			v += (float)(int32_t)(seed >> 32) * 0x1p-31f;
		}
		v = (float)(v * scale) * (kind == 255 ? 1e4f : kind == 254 ? 0 : 1);
		if (dtype == HCT_DTYPE_F64) {
			double d = v;

			memcpy(out + i, &d, sizeof d);
		} else {
			hct_dequant_scalar.narrow[dtype](&v, 1, out + i);
		}
	}
}

static struct hct_goal goal_of(const uint8_t byte[3])
{
	return (struct hct_goal){.relative_squared_error =
					 byte[2] ? .9 * exp2(-(byte[2] % 64) / 2.) : 0,
				 .effort = byte[0] % 4,
				 .transform = (byte[0] >> 2) % 3,
				 .layers = (byte[0] >> 4) % 5,
				 .method = byte[1] % (HCT_METHOD_INT4 + 1),
				 .retention = (byte[1] >> 3) / 32. + .02,
				 .fp16_ratio = (byte[1] >> 3) / 31.};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hct_safetensors st;
	uint8_t header[512], *tensor;
	struct hct_goal goal;
	hct_dtype dtype;
	size_t bytes;
	int header_len, fd;

	if (size < 6 || data[1] == 0)
		return 0;
	size -= 3;
	goal = goal_of(data + size);
	dtype = (data[0] & 0x3f) % HCT_DTYPE_COUNT;
	bytes = data[0] & 0x80 ? REPEATED_BYTES + size : size - 2;
	header_len = make_header(dtype, data[1], &bytes, header);
	if (!header_len)
		return 0;
	tensor = malloc(bytes + 1);
	fill(dtype, data[0] & 0x40, data + 2, size - 2, tensor, bytes);
	must(hct_safetensors_parse(header, header_len, header_len + bytes, &st, NULL));
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	decode(fd, &st, tensor, &goal, encode(fd, &st, tensor, &goal));
	hct_safetensors_free(&st);
	free(tensor);
	return 0;
}
