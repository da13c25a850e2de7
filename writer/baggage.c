#include "baggage.h"

#include <stdio.h>
#include <string.h>

#include "codec/units.h"
#include "writer/names.h"

#define WORTH_A_LINE (1u << 20) /* bytes */

/* A file counts for the first that fits. */
static const struct kind {
	const char *folder, *suffix; /* one of them */
} kinds[] = {
	{".git", NULL},    {".cache/huggingface", NULL},
	{NULL, ".bin"},    {NULL, ".pt"},
	{NULL, ".pth"},    {NULL, ".ckpt"},
	{NULL, ".onnx"},   {NULL, ".onnx_data"},
	{NULL, ".gguf"},   {NULL, ".h5"},
	{NULL, ".npz"},    {NULL, ".msgpack"},
	{NULL, ".tflite"}, {NULL, ".ot"},
};

#define KINDS (sizeof(kinds) / sizeof(*kinds))

static size_t kind_of(const char *name)
{
	for (size_t k = 0; k < KINDS; k++) {
		const char *folder = kinds[k].folder;
		size_t n = folder ? strlen(folder) : 0;

		if (folder ? strncmp(name, folder, n) == 0 && name[n] == '/'
			   : mkhct_name_has_suffix(name, kinds[k].suffix))
			return k;
	}
	return KINDS;
}

int mkhct_baggage_note(const struct mkhct_source *source, unsigned i, struct hct_diag *line)
{
	uint64_t bytes[KINDS + 1] = {0};
	size_t files[KINDS + 1] = {0}, k = 0;
	char size[HCT_UNITS_MAX];

	for (size_t e = 0; e < source->count; e++) {
		const struct mkhct_entry *entry = &source->entries[e];
		size_t kind = entry->kind == MKHCT_FOLDER ? KINDS : kind_of(entry->name);

		bytes[kind] += entry->size;
		files[kind]++;
	}
	for (; k < KINDS; k++)
		if (bytes[k] > WORTH_A_LINE && i-- == 0)
			break;
	if (k == KINDS)
		return 0;
	hct_units_size(bytes[k], size);
	if (kinds[k].folder)
		snprintf(line->text, sizeof(line->text),
			 "the bundle takes along %s (%s); --exclude %s leaves it out",
			 kinds[k].folder, size, kinds[k].folder);
	else
		snprintf(line->text, sizeof(line->text),
			 "the bundle takes along %zu %s file%s as %s (%s); --exclude '*%s' leaves "
			 "%s out",
			 files[k], kinds[k].suffix, files[k] == 1 ? "" : "s",
			 files[k] == 1 ? "it is" : "they are", size, kinds[k].suffix,
			 files[k] == 1 ? "it" : "them");
	return 1;
}
