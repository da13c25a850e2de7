#include "hct_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text.h"

static int failed; /* an item is missing for want of memory */

/* Gives child to parent, which owns it then. */
static cJSON *attach(cJSON *parent, const char *key, cJSON *child)
{
	int ok = child != NULL;

	if (ok && key)
		ok = cJSON_AddItemToObject(parent, key, child);
	else if (ok && parent)
		ok = cJSON_AddItemToArray(parent, child);
	if (!ok) {
		cJSON_Delete(child);
		child = NULL;
		failed = 1;
	}
	return child;
}

cJSON *hct_json_object(cJSON *parent, const char *key)
{
	return attach(parent, key, cJSON_CreateObject());
}

cJSON *hct_json_array(cJSON *parent, const char *key)
{
	return attach(parent, key, cJSON_CreateArray());
}

void hct_json_text(cJSON *object, const char *key, const char *text)
{
	char *valid = hct_text_utf8(text);

	attach(object, key, valid ? cJSON_CreateString(valid) : NULL);
	free(valid);
}

void hct_json_item(cJSON *array, const char *text)
{
	hct_json_text(array, NULL, text);
}

/* cJSON keeps numbers as doubles, so integers go in as text. */
static cJSON *create_u64(uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%" PRIu64, value);
	return cJSON_CreateRaw(digits);
}

void hct_json_u64(cJSON *object, const char *key, uint64_t value)
{
	attach(object, key, create_u64(value));
}

void hct_json_u64_array(cJSON *object, const char *key, const uint64_t *values, unsigned count)
{
	cJSON *array = hct_json_array(object, key);

	for (unsigned i = 0; i < count; i++)
		attach(array, NULL, create_u64(values[i]));
}

void hct_json_number(cJSON *object, const char *key, double value)
{
	char digits[32];

	if (!isfinite(value)) {
		attach(object, key, cJSON_CreateNull());
		return;
	}
	/* cJSON is content with a number that is nearly the same. */
	for (int precision = 15; precision <= 17; precision++) {
		snprintf(digits, sizeof(digits), "%.*g", precision, value);
		if (strtod(digits, NULL) == value)
			break;
	}
	attach(object, key, cJSON_CreateRaw(digits));
}

void hct_json_bool(cJSON *object, const char *key, int value)
{
	attach(object, key, cJSON_CreateBool(value));
}

void hct_json_parsed(cJSON *object, const char *key, const char *json)
{
	cJSON *value = cJSON_Parse(json);

	if (value)
		attach(object, key, value);
	else
		hct_json_text(object, key, json);
}

hct_error hct_json_print(cJSON *object)
{
	char *text = failed ? NULL : cJSON_Print(object);
	hct_error err = text ? HCT_OK : HCT_ERR_NOMEM;

	if (text)
		puts(text);
	cJSON_free(text);
	cJSON_Delete(object);
	return err;
}
