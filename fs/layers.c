#include "layers.h"

#include <string.h>

/* By the number of layers. */
static const char *const names[] = {"full", "essentials", "quick", "balanced"};

#define NAMES (sizeof names / sizeof names[0])

int hct_layers_parse(const char *name, unsigned *layers)
{
	for (unsigned i = 0; i < NAMES; i++) {
		if (strcmp(name, names[i]) == 0) {
			*layers = i;
			return 1;
		}
	}
	return 0;
}

const char *hct_layers_name(unsigned layers)
{
	return layers < NAMES ? names[layers] : "full";
}

unsigned hct_layers_most(const hct_reader *r)
{
	unsigned most = 1;

	for (size_t i = 0; i < hct_reader_safetensors(r)->count; i++) {
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		if (coding.chunk_count && coding.layers > most)
			most = coding.layers;
	}
	return most;
}

void hct_layers_weigh(const hct_reader *r, unsigned layers, struct hct_layers_share *sum)
{
	size_t count = hct_reader_safetensors(r)->count;

	sum->tensors += count;
	for (size_t i = 0; i < count; i++) {
		struct hct_coding coding;

		hct_reader_coding(r, i, &coding);
		if (!coding.chunk_count)
			continue;
		if (coding.layers > sum->most)
			sum->most = coding.layers;
		sum->cut += layers && layers < coding.layers;
		sum->stored_bytes += hct_reader_layer_bytes(r, i, 0);
		sum->read_bytes += hct_reader_layer_bytes(r, i, layers);
	}
}
