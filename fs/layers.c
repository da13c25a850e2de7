#include "layers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "codec/index.h"

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

static void weigh_tensor(const struct hct_index *x, size_t i, unsigned layers,
			 struct hct_layers_share *sum)
{
	const struct hct_tensor_record *t = &x->tensors[i];

	sum->tensors++;
	if (!t->chunk_count)
		return;
	if (t->layers > sum->most)
		sum->most = t->layers;
	sum->cut += layers && layers < t->layers;
	for (uint64_t k = 0; k < t->chunk_count; k++) {
		for (unsigned l = 0; l < t->layers; l++) {
			struct hct_extent ext;

			hct_index_extent(x, i, k, l, &ext);
			sum->stored_bytes += ext.length;
			if (!layers || l < layers)
				sum->read_bytes += ext.length;
		}
	}
}

hct_error hct_layers_weigh(const char *path, unsigned layers, struct hct_layers_share *sum,
			   struct hct_diag *diag)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct hct_index x;
	hct_error e;

	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot open", path);
	e = hct_index_read(fd, path, &x, diag);
	close(fd);
	if (e)
		return e;
	for (size_t i = 0; i < x.st.count; i++)
		weigh_tensor(&x, i, layers, sum);
	hct_index_free(&x);
	return HCT_OK;
}
