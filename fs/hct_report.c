#include "hct_report.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/io.h"

#define REPORT_PATH "/.hct/report.json"

/* Beyond that of any model; a report has a line for each tensor. */
#define MAX_BYTES (INT64_C(1) << 31)

/* Above this a cJSON number is no longer exact. */
#define MAX_NUMBER 9007199254740992.0

static hct_error read_json(const char *path, cJSON **out, struct hct_diag *diag)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	hct_error err = HCT_OK;
	char *text = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		err = hct_fail_errno(diag, errno, "%s: cannot be read", path);
	} else if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > MAX_BYTES) {
		err = hct_fail(diag, HCT_ERR_CORRUPT, "%s: not a report of mkhct", path);
	} else {
		text = malloc((size_t)st.st_size);
		err = text ? hct_read_at(fd, path, text, (size_t)st.st_size, 0, diag)
			   : HCT_ERR_NOMEM;
	}
	if (!err) {
		*out = cJSON_ParseWithLength(text, (size_t)st.st_size);
		if (!*out)
			err = hct_fail(diag, HCT_ERR_CORRUPT, "%s: not valid JSON", path);
	}
	free(text);
	if (fd >= 0)
		close(fd);
	return err;
}

static const char *text_of(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

/* The name, or the bytes of one that is not UTF-8.  malloc'ed; *valid 0: neither is there. */
static char *name_of(const cJSON *item, int *valid)
{
	const char *name = text_of(item, "name"), *hex = text_of(item, "name_hex");
	size_t n = hex ? strlen(hex) : 0;
	char *bytes;

	*valid = hex ? n % 2 == 0 && strspn(hex, "0123456789abcdef") == n : name != NULL;
	if (!*valid)
		return NULL;
	if (!hex)
		return strdup(name);
	bytes = calloc(n / 2 + 1, 1);
	for (size_t i = 0; bytes && i < n / 2; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		bytes[i] = (char)strtoul(digits, NULL, 16);
	}
	return bytes;
}

/* Reads one file of the list; returns HCT_ERR_CORRUPT for what mkhct does not write. */
static hct_error read_file(const cJSON *item, struct hct_listed *file)
{
	const cJSON *size = cJSON_GetObjectItemCaseSensitive(item, "stored_bytes");
	const char *kind = text_of(item, "kind"), *sum = text_of(item, "xxh3");
	int valid;

	file->name = name_of(item, &valid);
	if (!file->name && valid)
		return HCT_ERR_NOMEM;
	if (!file->name || !kind || !cJSON_IsNumber(size) ||
	    !(size->valuedouble >= 0 && size->valuedouble <= MAX_NUMBER))
		return HCT_ERR_CORRUPT;
	file->stored_bytes = (uint64_t)size->valuedouble;
	file->kind = strcmp(kind, "model") == 0 ? HCT_NODE_MODEL : HCT_NODE_PLAIN;
	if (sum) {
		if (strlen(sum) != 16 || strspn(sum, "0123456789abcdef") != 16)
			return HCT_ERR_CORRUPT;
		file->checksum = strtoull(sum, NULL, 16);
		file->has_checksum = 1;
	}
	return HCT_OK;
}

/* NaN when there is none. */
static double number_of(const cJSON *object, const char *key)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static struct hct_report_loss read_loss(const cJSON *json)
{
	const cJSON *lossy = cJSON_GetObjectItemCaseSensitive(json, "lossy");
	const cJSON *worst = cJSON_GetObjectItemCaseSensitive(lossy, "worst");
	double tensors = number_of(lossy, "tensors"), elements = number_of(lossy, "weights");
	struct hct_report_loss loss = {.error = number_of(lossy, "relative_squared_error"),
				       .cosine = number_of(lossy, "cosine"),
				       .worst_error = number_of(worst, "relative_squared_error"),
				       .worst_cosine = number_of(worst, "cosine")};

	if (!(tensors >= 0 && tensors <= MAX_NUMBER && elements >= 0 && elements <= MAX_NUMBER))
		return (struct hct_report_loss){0};
	loss.tensors = (uint64_t)tensors;
	loss.elements = (uint64_t)elements;
	return loss;
}

hct_error hct_report_read(const char *folder, struct hct_report *out, struct hct_diag *diag)
{
	const cJSON *list, *item;
	cJSON *json = NULL;
	char *path = NULL;
	hct_error err;

	*out = (struct hct_report){0};
	if (asprintf(&path, "%s" REPORT_PATH, folder) < 0)
		return HCT_ERR_NOMEM;
	err = read_json(path, &json, diag);
	if (err)
		goto out;
	out->loss = read_loss(json);
	list = cJSON_GetObjectItemCaseSensitive(json, "files");
	if (!cJSON_IsArray(list)) {
		err = hct_fail(diag, HCT_ERR_CORRUPT, "%s: not a report of mkhct", path);
		goto out;
	}
	out->files = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*out->files));
	if (!out->files)
		err = HCT_ERR_NOMEM;
	cJSON_ArrayForEach(item, list)
	{
		if (!err)
			err = read_file(item, &out->files[out->count++]);
	}
	if (err == HCT_ERR_CORRUPT)
		hct_fail(diag, err, "%s: entry %zu is not one of mkhct", path, out->count);
out:
	cJSON_Delete(json);
	free(path);
	return err;
}

void hct_report_free(struct hct_report *report)
{
	for (size_t i = 0; i < report->count; i++)
		free(report->files[i].name);
	free(report->files);
	*report = (struct hct_report){0};
}
