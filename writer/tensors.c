#include "tensors.h"

#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

static const char *status_of(const struct mkhct_result *r, const struct mkhct_standing *s, size_t i)
{
	if (i < s->tensors)
		return r->failed ? "failed" : "completed";
	return i == s->tensors && s->chunks ? "in_progress" : "pending";
}

static int add_tensor(FILE *stream, const struct hct_tensor *t, const struct mkhct_result *r,
		      uint64_t stored, const struct mkhct_standing *s, size_t i)
{
	cJSON *object = cJSON_CreateObject();
	char *text = NULL;

	if (object && cJSON_AddStringToObject(object, "name", t->name) &&
	    cJSON_AddStringToObject(object, "status", status_of(r, s, i)) &&
	    cJSON_AddNumberToObject(object, "offset", (double)t->begin) &&
	    cJSON_AddNumberToObject(object, "size", (double)hct_tensor_bytes(t)) &&
	    (i >= s->tensors ||
	     (cJSON_AddNumberToObject(object, "stored", (double)stored) &&
	      cJSON_AddNumberToObject(object, "relative_squared_error", mkhct_result_error(r)) &&
	      cJSON_AddNumberToObject(object, "cosine", mkhct_result_cosine(r)) &&
	      cJSON_AddNumberToObject(object, "retries", r->retries))))
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	if (text)
		fprintf(stream, "%s%s", i ? "," : "", text);
	cJSON_free(text);
	return text ? 0 : -1;
}

char *mkhct_tensors_list(const struct hct_safetensors *st, const struct mkhct_result *results,
			 const uint64_t *stored, const struct mkhct_standing *s)
{
	char *list = NULL;
	size_t size;
	FILE *stream = open_memstream(&list, &size);
	int rc = stream ? 0 : -1;

	if (!stream)
		return NULL;
	fputc('[', stream);
	for (size_t i = 0; !rc && i < st->count; i++)
		rc = add_tensor(stream, &st->tensors[i], &results[i], stored[i], s, i);
	fputc(']', stream);
	rc |= fflush(stream) != 0 || ferror(stream);
	fclose(stream);
	if (rc) {
		free(list);
		return NULL;
	}
	return list;
}
