#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "writer/names.h"
#include "writer/patience.h"

#define MAX_CONFIG (16u << 20) /* those of people have some KiB */
#define MAX_BROKEN 64u         /* that are looked at */

/* The bytes of the character at s, of n that are left; 0 when it is not UTF-8. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (length == 0 || s[0] > 0xf4 || length > n)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than it need be, a surrogate, or above U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return length;
}

static int is_utf8(const char *text, size_t length)
{
	for (size_t at = 0, n; at < length; at += n) {
		n = utf8_length((const unsigned char *)text + at, length - at);
		if (n == 0)
			return 0;
	}
	return 1;
}

cJSON *mkhct_config_read(const struct mkhct_entry *entry, const char **why)
{
	const char *reason = NULL;
	cJSON *root = NULL;
	char *text = NULL;
	int fd = -1;

	if (entry->size > MAX_CONFIG)
		reason = "larger than 16 MiB";
	else if ((text = malloc((size_t)entry->size + 1)) != NULL)
		fd = mkhct_patient_open(entry->path);
	if (fd >= 0 &&
	    mkhct_patient_read(fd, entry->path, text, (size_t)entry->size, 0, NULL) == HCT_OK) {
		text[entry->size] = '\0';
		if (is_utf8(text, (size_t)entry->size))
			root = cJSON_ParseWithLengthOpts(text, (size_t)entry->size + 1, NULL, 1);
		else
			reason = "not UTF-8";
		if (!root && !reason)
			reason = "no JSON";
		if (root && !cJSON_IsObject(root)) {
			cJSON_Delete(root);
			root = NULL;
			reason = "no JSON object";
		}
	}
	if (fd >= 0)
		close(fd);
	free(text);
	if (why)
		*why = reason;
	return root;
}

/* A model lies in the folder of the entry itself. */
static int is_beside_model(const struct mkhct_source *source, const struct mkhct_entry *entry)
{
	size_t n = (size_t)(mkhct_name_base(entry->name) - entry->name);

	for (size_t i = 0; i < source->count; i++) {
		const struct mkhct_entry *e = &source->entries[i];

		if (e->kind == MKHCT_MODEL && strncmp(e->name, entry->name, n) == 0 &&
		    !strchr(e->name + n, '/'))
			return 1;
	}
	return 0;
}

hct_error mkhct_config_check(struct mkhct_source *source, struct hct_diag *diag)
{
	unsigned broken = 0;

	for (size_t i = 0; source->is_folder && i < source->count && broken < MAX_BROKEN; i++) {
		const struct mkhct_entry *e = &source->entries[i];
		const char *why = NULL;

		if (e->kind != MKHCT_CARRIED ||
		    strcmp(mkhct_name_base(e->name), "config.json") != 0)
			continue;
		cJSON_Delete(mkhct_config_read(e, &why));
		broken += why != NULL;
		/* The first is enough. */
		if (why && is_beside_model(source, e))
			return mkhct_source_add_note(
				source, diag,
				"%s: is %s, so loaders cannot read it, and how many layers there "
				"are is told from the names of tensors alone; download it again",
				e->name, why);
	}
	return HCT_OK;
}
