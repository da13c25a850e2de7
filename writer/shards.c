#include "shards.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "codec/io.h"
#include "writer/names.h"

#define INDEX_SUFFIX MKHCT_MODEL_SUFFIX ".index.json"
#define MAX_INDEX    (1u << 30) /* 405B models have indexes of 200 KiB */

static hct_error read_index(const struct mkhct_entry *entry, cJSON **out, struct hct_diag *diag)
{
	char *text = NULL;
	hct_error err;
	int fd;

	if (entry->size > MAX_INDEX)
		return hct_fail(diag, HCT_ERR_LIMIT, "%s: too big for an index of shards",
				entry->path);
	fd = open(entry->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return hct_fail_errno(diag, errno, "%s: cannot be opened", entry->path);
	text = malloc((size_t)entry->size + 1);
	if (!text) {
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", entry->path);
		goto out;
	}
	err = hct_read_at(fd, entry->path, text, (size_t)entry->size, 0, diag);
	if (err)
		goto out;
	*out = cJSON_ParseWithLength(text, (size_t)entry->size);
	if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(*out, "weight_map"))) {
		cJSON_Delete(*out);
		*out = NULL;
		err = hct_fail(diag, HCT_ERR_SAFETENSORS,
			       "%s: not an index of shards: no JSON object with a weight_map",
			       entry->path);
	}
out:
	free(text);
	close(fd);
	return err;
}

/* Consecutive tensors mostly lie in one shard, so the last one found is remembered. */
static hct_error check_index(const struct mkhct_source *source, const struct mkhct_entry *entry,
			     const cJSON *index, struct hct_diag *diag)
{
	size_t folder_len = (size_t)(mkhct_name_base(entry->name) - entry->name);
	const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map"), *item;
	const char *last = NULL;

	cJSON_ArrayForEach(item, map)
	{
		const char *shard = cJSON_GetStringValue(item);
		const struct mkhct_entry *found;
		char *name;

		if (!shard)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"%s: the weight_map gives no file for tensor %s",
					entry->path, item->string);
		if (last && strcmp(last, shard) == 0)
			continue;
		name = malloc(folder_len + strlen(shard) + 1);
		if (!name)
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", entry->path);
		memcpy(name, entry->name, folder_len);
		strcpy(name + folder_len, shard);
		found = mkhct_source_find(source, name);
		free(name);
		if (!found || found->kind == MKHCT_FOLDER)
			return hct_fail(diag, HCT_ERR_NOT_FOUND,
					"%s: names the shard %s, which is not there; "
					"finish the download",
					entry->path, shard);
		last = shard;
	}
	return HCT_OK;
}

hct_error mkhct_shards_check(const struct mkhct_source *source, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < source->count; i++) {
		const struct mkhct_entry *entry = &source->entries[i];
		cJSON *index = NULL;

		if (entry->kind != MKHCT_CARRIED ||
		    !mkhct_name_has_suffix(entry->name, INDEX_SUFFIX))
			continue;
		err = read_index(entry, &index, diag);
		if (!err)
			err = check_index(source, entry, index, diag);
		cJSON_Delete(index);
	}
	return err;
}
