/* Any bytes as a tensor of any dtype: what goes in comes out.
 *
 * Input: u8 dtype, u8 columns, then the bytes of the tensor, which are repeated
 * to fill several chunks when the upper bit of the first byte is set. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/appender.h"

#define REPEATED_BYTES (320u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(hct_error err)
{
	if (err)
		abort();
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

static void encode(int fd, const struct hct_safetensors *st, const uint8_t *data)
{
	const struct hct_source source = {.size = st->file_size};
	struct hct_encoded coded;
	hct_appender *appender;
	hct_encoder *encoder;
	hct_plan *plan;
	uint64_t at = 0;

	must(hct_encoder_create(HCT_SIMD_AUTO, &encoder));
	must(hct_appender_create(fd, "fuzz", st, &appender, NULL));
	must(hct_plan_create(encoder, &st->tensors[0], data, NULL, &plan, NULL));
	must(hct_appender_tensor(appender, 0, plan, NULL));
	for (uint64_t n = 0; n < hct_plan_chunk_count(plan); n++) {
		must(hct_encode_chunk(encoder, plan, n, data + at, &coded, NULL));
		if (coded.layers[0].length > hct_plan_chunk_length(plan, n))
			abort();
		must(hct_appender_chunk(appender, &coded, NULL));
		at += hct_plan_chunk_length(plan, n);
	}
	must(hct_appender_finish(appender, &source, "{}", NULL, NULL));
	hct_plan_free(plan);
	hct_appender_free(appender);
	hct_encoder_free(encoder);
}

static void decode(int fd, const struct hct_safetensors *st, const uint8_t *data)
{
	uint8_t *out = malloc(st->file_size);
	hct_decoder *decoder;
	hct_reader *reader;

	must(hct_reader_open_fd(fd, "fuzz", &reader, NULL));
	for (int s = HCT_SIMD_SCALAR; s <= HCT_SIMD_AVX512; s++) {
		if (!hct_simd_supported(s))
			continue;
		must(hct_decoder_create(s, &decoder));
		must(hct_reader_pread(reader, decoder, 0, out, st->file_size, NULL));
		if (memcmp(out, st->header, st->header_len) != 0 ||
		    memcmp(out + st->header_len, data, st->file_size - st->header_len) != 0)
			abort();
		for (uint64_t n = 0; n < hct_reader_chunk_count(reader); n++)
			must(hct_reader_decode_verified(reader, decoder, n, out, NULL));
		hct_decoder_free(decoder);
	}
	hct_reader_close(reader);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hct_safetensors st;
	uint8_t header[512], *tensor;
	size_t bytes;
	int header_len, fd;

	if (size < 3 || data[1] == 0)
		return 0;
	bytes = data[0] & 0x80 ? REPEATED_BYTES + size : size - 2;
	header_len = make_header(data[0] % HCT_DTYPE_COUNT, data[1], &bytes, header);
	if (!header_len)
		return 0;
	tensor = malloc(bytes + 1);
	for (size_t i = 0; i < bytes; i++)
		tensor[i] = data[2 + i % (size - 2)];
	must(hct_safetensors_parse(header, header_len, header_len + bytes, &st, NULL));
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	encode(fd, &st, tensor);
	decode(fd, &st, tensor);
	hct_safetensors_free(&st);
	free(tensor);
	return 0;
}
