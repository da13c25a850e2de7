#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const cJSON *mkhct_json_get(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

const char *mkhct_json_text(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(mkhct_json_get(object, key));

	return text ? text : "";
}

uint64_t mkhct_json_whole(const cJSON *item)
{
	double v = cJSON_IsNumber(item) ? item->valuedouble : 0;

	return v >= 0 && v <= 0x1p53 && v == floor(v) ? (uint64_t)v : 0;
}

int mkhct_json_is_number(const cJSON *item, int64_t value)
{
	return cJSON_IsNumber(item) && item->valuedouble == (double)value;
}

uint64_t mkhct_json_hash(const cJSON *object, const char *key)
{
	const char *text = mkhct_json_text(object, key);

	if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return 0;
	return strtoull(text, NULL, 16);
}

int mkhct_json_get_count(const cJSON *object, const char *key, uint64_t *out)
{
	const cJSON *item = mkhct_json_get(object, key);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 0x1p53))
		return -1;
	*out = (uint64_t)item->valuedouble;
	return 0;
}

int mkhct_json_get_exact(const cJSON *object, const char *key, double *out)
{
	const cJSON *item = mkhct_json_get(object, key);
	char *end;

	if (!cJSON_IsString(item))
		return -1;
	*out = strtod(item->valuestring, &end);
	return end != item->valuestring && *end == '\0' && isfinite(*out) ? 0 : -1;
}

int mkhct_json_put(cJSON *object, const char *key, cJSON *item)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, key);
	if (item && cJSON_AddItemToObject(object, key, item))
		return 0;
	cJSON_Delete(item);
	return -1;
}

int mkhct_json_put_number(cJSON *object, const char *key, double value)
{
	return mkhct_json_put(object, key, cJSON_CreateNumber(value));
}

int mkhct_json_put_text(cJSON *object, const char *key, const char *text)
{
	return mkhct_json_put(object, key, cJSON_CreateString(text));
}

int mkhct_json_put_hash(cJSON *object, const char *key, uint64_t hash)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, hash);
	return mkhct_json_put_text(object, key, text);
}

int mkhct_json_add_u64(cJSON *object, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return cJSON_AddRawToObject(object, key, text) ? 0 : -1;
}

int mkhct_json_add_exact(cJSON *object, const char *key, double value)
{
	char text[40];

	snprintf(text, sizeof(text), "%a", value);
	return cJSON_AddStringToObject(object, key, text) ? 0 : -1;
}
