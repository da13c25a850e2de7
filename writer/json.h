/* What checkpoints, manifests and reports ask of cJSON.
 *
 * A document that is read may have been damaged or forged: what is asked of it may be of any type,
 * or not there.  Objects may be NULL when something is read. */
#ifndef MKHCT_JSON_H
#define MKHCT_JSON_H

#include <stdint.h>

#include <cjson/cJSON.h>

/* The item of that key; NULL when there is none. */
const cJSON *mkhct_json_get(const cJSON *object, const char *key);

/* The text under a key, which belongs to the object; "" when there is none. */
const char *mkhct_json_text(const cJSON *object, const char *key);

/* A whole number that a double holds exactly; 0 when it is something else. */
uint64_t mkhct_json_whole(const cJSON *item);

/* 1 when the item is this number, which may be negative: a time before 1970. */
int mkhct_json_is_number(const cJSON *item, int64_t value);

/* What mkhct_json_put_hash wrote; 0 when there is none. */
uint64_t mkhct_json_hash(const cJSON *object, const char *key);

/* The number under a key, 0 up to 2^53, without its fraction.  0, or -1 when there is none. */
int mkhct_json_get_count(const cJSON *object, const char *key, uint64_t *out);

/* What mkhct_json_add_exact wrote, finite.  0, or -1 when there is none. */
int mkhct_json_get_exact(const cJSON *object, const char *key, double *out);

/* The following return 0, or -1 when out of memory. */

/* Puts an item in the place of the one of that key.  Takes the item, also when it fails; -1, too,
 * for NULL. */
int mkhct_json_put(cJSON *object, const char *key, cJSON *item);

/* Whole numbers up to 10^15 come out as they are; cJSON may print larger ones 2 off. */
int mkhct_json_put_number(cJSON *object, const char *key, double value);
int mkhct_json_put_text(cJSON *object, const char *key, const char *text);
/* As 16 hexadecimal digits. */
int mkhct_json_put_hash(cJSON *object, const char *key, uint64_t hash);

/* Adds an integer exactly (a cJSON number is a double). */
int mkhct_json_add_u64(cJSON *object, const char *key, uint64_t value);

/* Adds a double as text in hexadecimal: cJSON prints a number that it has parsed with the last bits
 * cut off. */
int mkhct_json_add_exact(cJSON *object, const char *key, double value);

#endif
