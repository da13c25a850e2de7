/* JSON output of hct, by cJSON.
 *
 * Numbers are exact, those that are not finite become null, and text becomes valid UTF-8.
 * Objects may be NULL; that memory ran out is reported once, by hct_json_print. */
#ifndef HCT_JSON_H
#define HCT_JSON_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "codec/error.h"

/* A new object or array as a member of an object, or (key NULL) as the next item of an
 * array; parent and key NULL: on its own. */
cJSON *hct_json_object(cJSON *parent, const char *key);
cJSON *hct_json_array(cJSON *parent, const char *key);

void hct_json_text(cJSON *object, const char *key, const char *text);
void hct_json_u64(cJSON *object, const char *key, uint64_t value);
void hct_json_number(cJSON *object, const char *key, double value);
void hct_json_bool(cJSON *object, const char *key, int value);
/* Adds text to an array. */
void hct_json_item(cJSON *array, const char *text);
/* JSON text as it is; text that is not JSON becomes a string. */
void hct_json_parsed(cJSON *object, const char *key, const char *json);
void hct_json_u64_array(cJSON *object, const char *key, const uint64_t *values, unsigned count);

/* Prints it on stdout and deletes it.  Errors: HCT_ERR_NOMEM. */
hct_error hct_json_print(cJSON *object);

#endif
