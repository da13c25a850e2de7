/* Safetensors headers: u64 size of the file, then the header, whose own length the mutator
 * makes right again most of the time. */
#include "codec/safetensors.h"
#include "fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint64_t data_bytes = size < 16 ? 0 : hct_load64(data) - (size - 8);

	size = LLVMFuzzerMutate(data, size, max_size);
	if (seed % 8 && size >= 16) {
		hct_store64(data, size - 8 + data_bytes);
		hct_store64(data + 8, size - 16);
	}
	return size;
}

/* What the parser promises to everybody behind it. */
static void check_promises(const struct hct_safetensors *st)
{
	uint64_t at = 0;

	for (size_t i = 0; i < st->count; i++) {
		const struct hct_tensor *t = &st->tensors[i];
		uint64_t elements = 1;
		size_t found;

		for (unsigned k = 0; k < t->rank; k++)
			elements *= t->shape[k];
		FUZZ_CHECK(t->begin == at && t->end >= t->begin && t->elements == elements);
		if (hct_dtype_bits(t->dtype))
			FUZZ_CHECK(t->elements * hct_dtype_bits(t->dtype) ==
				   hct_tensor_bytes(t) * 8);
		found = hct_safetensors_find(st, t->name);
		FUZZ_CHECK(found < st->count && !strcmp(st->tensors[found].name, t->name));
		at = t->end;
	}
	FUZZ_CHECK(st->header_len + at == st->file_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hct_safetensors st = {0};
	struct hct_diag diag = {{0}};
	uint64_t file_size;
	hct_error err;
	size_t len;

	if (size < 16)
		return 0;
	file_size = hct_load64(data);
	data += 8;
	size -= 8;
	if (!hct_safetensors_header_len(data, file_size, &len, NULL))
		FUZZ_CHECK(len > 8 && len <= file_size);
	err = hct_safetensors_parse(data, size, file_size, &st, &diag);
	FUZZ_CHECK(!err == !diag.text[0] && (!err || err == HCT_ERR_SAFETENSORS));
	if (!err) {
		FUZZ_CHECK(st.header_len == size && !memcmp(st.header, data, size));
		check_promises(&st);
	}
	hct_safetensors_free(&st);
	hct_safetensors_free(&st);
	return 0;
}
