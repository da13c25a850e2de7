#include "safetensors.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

/* cJSON before 1.7.18 looks one byte past a text that ends behind a comma, so the
 * copy of the header has zeros behind it. */
#define PADDING 16

/* Largest integer that cJSON's doubles hold without loss. */
#define MAX_EXACT_INTEGER 9007199254740992.0

/* Room for a tensor's name in a message: 200 bytes shown, the last of them escaped. */
#define NAME_MAX_SHOWN 200
struct shown {
	char text[NAME_MAX_SHOWN + 16];
};

/* What struct hct_safetensors calls its arena: one block of memory. */
struct arena {
	const struct hct_tensor **by_name; /* sorted with strcmp */
	uint64_t *shapes;
	char *strings; /* names, in the order of the header */
};

/* A name as a message can show it: in quotes, control characters escaped (those of
 * C1 too, which terminals obey), and cut when it is long. */
static const char *show(const char *name, struct shown *out)
{
	const unsigned char *s = (const unsigned char *)name;
	size_t used = 0;

	out->text[used++] = '"';
	for (; *s != '\0'; s++) {
		int c1 = s[0] == 0xC2 && s[1] >= 0x80 && s[1] < 0xA0;

		if (used >= NAME_MAX_SHOWN && ((*s & 0xC0) != 0x80 || used >= NAME_MAX_SHOWN + 6)) {
			memcpy(out->text + used, "...", 3);
			used += 3;
			break;
		}
		if (c1)
			s++;
		if (*s < 0x20 || *s == 0x7F || c1)
			used += (size_t)snprintf(out->text + used, 5, "\\x%02x", *s);
		else
			out->text[used++] = (char)*s;
	}
	out->text[used++] = '"';
	out->text[used] = '\0';
	return out->text;
}

hct_error hct_safetensors_header_len(const uint8_t first[8], uint64_t file_size, size_t *len,
				     struct hct_diag *diag)
{
	if (file_size < 8 + 2)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"file is %" PRIu64 " bytes, too short for a safetensors header",
				file_size);
	if (memcmp(first, "version ", 8) == 0)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"this looks like a Git LFS pointer and not like the safetensors "
				"file itself: run \"git lfs pull\"");

	uint64_t n = hct_load64(first);
	if (n < 2)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header claims %" PRIu64 " bytes, which is too few: this is not a "
				"safetensors file",
				n);
	if (n > file_size - 8)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header claims %" PRIu64 " bytes but only %" PRIu64
				" follow: not a safetensors file, or a truncated download",
				n, file_size - 8);
	if (n > HCT_SAFETENSORS_MAX_HEADER)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header claims %" PRIu64 " bytes, more than the %u that "
				"safetensors allows",
				n, HCT_SAFETENSORS_MAX_HEADER);
	*len = (size_t)n + 8;
	return HCT_OK;
}

/* Bytes of the UTF-8 character at s, of which `left` bytes are there; 0 when invalid:
 * overlong, a surrogate, or beyond U+10FFFF. */
static size_t utf8_length(const uint8_t *s, size_t left)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;

	if (len > left || s[0] > 0xF4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	}
	if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] >= 0xA0) ||
	    (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] >= 0x90))
		return 0;
	return len;
}

static int is_blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Refuses, before cJSON sees the text, what cJSON would take silently and what would
 * make it use memory out of proportion: text that is not UTF-8, control characters,
 * NUL in names (cJSON cuts there; in __metadata__ nobody minds), and very many values
 * (each takes cJSON 64 bytes and more). */
static hct_error scan(const uint8_t *json, size_t len, struct hct_diag *diag)
{
	static const char metadata[] = "\"__metadata__\"";
	size_t values = 0, string = 0, depth = 0, step;
	int in_string = 0, in_metadata = 0;

	for (size_t i = 0; i < len; i += step) {
		uint8_t c = json[i];

		step = utf8_length(json + i, len - i);
		if (step == 0)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"header is not UTF-8 at byte %zu of the file", i + 8);
		if (c < 0x20 && (in_string || !is_blank(c)))
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"header has a control character at byte %zu of the file",
					i + 8);
		if (c == '"') {
			in_string = !in_string;
			if (in_string)
				string = i;
			else if (depth == 1 && i + 1 - string == sizeof(metadata) - 1)
				in_metadata = memcmp(json + string, metadata, i + 1 - string) == 0;
		} else if (in_string && c == '\\' && len - i >= 2 && json[i + 1] < 0x80) {
			if (!in_metadata && len - i >= 6 && memcmp(json + i + 1, "u0000", 5) == 0)
				return hct_fail(diag, HCT_ERR_SAFETENSORS,
						"header has a NUL character in a name at byte %zu "
						"of the file",
						i + 8);
			step = 2;
		} else if (!in_string) {
			depth += c == '{' || c == '[';
			depth -= depth > 0 && (c == '}' || c == ']');
			values += c == ',' || c == '{' || c == '[';
			in_metadata = in_metadata && !(c == ',' && depth == 1);
		}
	}
	if (values > HCT_SAFETENSORS_MAX_VALUES)
		return hct_fail(diag, HCT_ERR_LIMIT, "header has more than %u values",
				HCT_SAFETENSORS_MAX_VALUES);
	return HCT_OK;
}

/* Parses the JSON and checks that nothing but blanks is behind it. */
static hct_error parse_json(const uint8_t *json, size_t len, cJSON **out, struct hct_diag *diag)
{
	const char *text = (const char *)json, *end = NULL;

	*out = NULL;
	if (json[0] != '{')
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header does not begin with '{': this is not a safetensors file");
	hct_error e = scan(json, len, diag);
	if (e)
		return e;
	cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, 0);
	if (!root)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header is not valid JSON near byte %zu of the file",
				(size_t)(end ? end - text : 0) + 8);
	while (end < text + len && is_blank((uint8_t)*end))
		end++;
	if (end < text + len) {
		cJSON_Delete(root);
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header has something behind its JSON at byte %zu of the file",
				(size_t)(end - text) + 8);
	}
	*out = root;
	return HCT_OK;
}

static int is_metadata(const cJSON *item)
{
	return strcmp(item->string, "__metadata__") == 0;
}

static hct_error check_metadata(const cJSON *metadata, struct hct_diag *diag)
{
	const cJSON *item;
	struct shown key;

	if (!cJSON_IsObject(metadata))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "__metadata__ is not an object");
	cJSON_ArrayForEach(item, metadata)
	{
		if (!cJSON_IsString(item))
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"__metadata__ entry %s is not a string",
					show(item->string, &key));
	}
	return HCT_OK;
}

/* A number that is an exact, non-negative integer. */
static int to_integer(const cJSON *item, uint64_t *out)
{
	if (!cJSON_IsNumber(item) ||
	    !(item->valuedouble >= 0 && item->valuedouble <= MAX_EXACT_INTEGER))
		return 0;
	*out = (uint64_t)item->valuedouble;
	return (double)*out == item->valuedouble;
}

/* The three members of a tensor's object; others are allowed and mean nothing. */
struct members {
	const cJSON *dtype, *shape, *offsets;
};

static hct_error find_members(const cJSON *item, struct members *out, struct hct_diag *diag)
{
	struct shown name;
	const cJSON *member;

	*out = (struct members){0};
	if (!cJSON_IsObject(item))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "tensor %s is not an object",
				show(item->string, &name));
	cJSON_ArrayForEach(member, item)
	{
		const cJSON **slot = strcmp(member->string, "dtype") == 0          ? &out->dtype
				     : strcmp(member->string, "shape") == 0        ? &out->shape
				     : strcmp(member->string, "data_offsets") == 0 ? &out->offsets
										   : NULL;
		if (slot && *slot)
			return hct_fail(diag, HCT_ERR_SAFETENSORS, "tensor %s has %s twice",
					show(item->string, &name), member->string);
		if (slot)
			*slot = member;
	}
	if (!cJSON_IsString(out->dtype))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "tensor %s has no dtype",
				show(item->string, &name));
	if (!cJSON_IsArray(out->shape))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "tensor %s has no shape",
				show(item->string, &name));
	if (!cJSON_IsArray(out->offsets))
		return hct_fail(diag, HCT_ERR_SAFETENSORS, "tensor %s has no data_offsets",
				show(item->string, &name));
	return HCT_OK;
}

static char *copy_string(const char *s, struct arena *a)
{
	size_t size = strlen(s) + 1;
	char *copy = memcpy(a->strings, s, size);

	a->strings += size;
	return copy;
}

static hct_error fill_shape(const cJSON *shape, struct hct_tensor *t, struct arena *a,
			    struct hct_diag *diag)
{
	const cJSON *item;
	struct shown name;

	t->shape = a->shapes;
	t->elements = 1;
	cJSON_ArrayForEach(item, shape)
	{
		uint64_t *length = a->shapes;

		if (t->rank == HCT_SAFETENSORS_MAX_RANK)
			return hct_fail(diag, HCT_ERR_LIMIT,
					"tensor %s has more than %u dimensions",
					show(t->name, &name), HCT_SAFETENSORS_MAX_RANK);
		if (!to_integer(item, length))
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"tensor %s: length of dimension %u is not a whole number "
					"from 0 to 2^53",
					show(t->name, &name), t->rank);
		if (__builtin_mul_overflow(t->elements, *length, &t->elements))
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"tensor %s: its shape has more elements than 64 bits count",
					show(t->name, &name));
		a->shapes++;
		t->rank++;
	}
	return HCT_OK;
}

static hct_error fill_offsets(const cJSON *offsets, struct hct_tensor *t, struct hct_diag *diag)
{
	const cJSON *begin = offsets->child, *end = begin ? begin->next : NULL;
	unsigned bits = hct_dtype_bits(t->dtype);
	struct shown name;
	uint64_t need;

	if (!end || end->next || !to_integer(begin, &t->begin) || !to_integer(end, &t->end))
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"tensor %s: data_offsets are not two whole numbers from 0 to 2^53",
				show(t->name, &name));
	if (t->begin > t->end)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"tensor %s: data_offsets end at %" PRIu64
				", before they begin at %" PRIu64,
				show(t->name, &name), t->end, t->begin);
	if (t->dtype == HCT_DTYPE_UNKNOWN)
		return HCT_OK;
	if (__builtin_mul_overflow(t->elements, (uint64_t)bits, &need))
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"tensor %s: its shape has more bits than 64 bits count",
				show(t->name, &name));
	if (need % 8 != 0)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"tensor %s: %" PRIu64 " elements of %s do not fill whole bytes",
				show(t->name, &name), t->elements, t->dtype_name);
	if (need / 8 != hct_tensor_bytes(t))
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"tensor %s: dtype %s and shape need %" PRIu64
				" bytes but data_offsets hold %" PRIu64,
				show(t->name, &name), t->dtype_name, need / 8, hct_tensor_bytes(t));
	return HCT_OK;
}

static hct_error fill_tensor(const cJSON *item, struct hct_tensor *t, struct arena *a,
			     struct hct_diag *diag)
{
	struct members m;
	hct_error e = find_members(item, &m, diag);

	if (e)
		return e;
	t->name = copy_string(item->string, a);
	t->dtype = hct_dtype_from_name(m.dtype->valuestring);
	t->dtype_name = t->dtype == HCT_DTYPE_UNKNOWN ? copy_string(m.dtype->valuestring, a)
						      : hct_dtype_name(t->dtype);
	e = fill_shape(m.shape, t, a, diag);
	return e ? e : fill_offsets(m.offsets, t, diag);
}

/* By data; tensors of the same range in the order of the header, in which their names
 * lie in the arena. */
static int compare_data(const void *x, const void *y)
{
	const struct hct_tensor *a = x, *b = y;

	if (a->begin != b->begin)
		return a->begin < b->begin ? -1 : 1;
	if (a->end != b->end)
		return a->end < b->end ? -1 : 1;
	return a->name < b->name ? -1 : a->name > b->name;
}

static int compare_names(const void *x, const void *y)
{
	const struct hct_tensor *const *a = x, *const *b = y;

	return strcmp((*a)->name, (*b)->name);
}

static hct_error index_names(struct hct_safetensors *st, struct hct_diag *diag)
{
	const struct hct_tensor **by_name = ((struct arena *)st->arena)->by_name;
	struct shown name;

	for (size_t i = 0; i < st->count; i++)
		by_name[i] = &st->tensors[i];
	qsort(by_name, st->count, sizeof(*by_name), compare_names);
	for (size_t i = 1; i < st->count; i++) {
		if (strcmp(by_name[i - 1]->name, by_name[i]->name) == 0)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"tensor %s is in the header twice",
					show(by_name[i]->name, &name));
	}
	return HCT_OK;
}

/* The tensors, in order of their data, must cover the data region exactly. */
static hct_error check_cover(const struct hct_safetensors *st, struct hct_diag *diag)
{
	uint64_t data_size = st->file_size - st->header_len, covered = 0;
	struct shown name, before;

	for (size_t i = 0; i < st->count; i++) {
		const struct hct_tensor *t = &st->tensors[i];

		show(t->name, &name);
		if (t->begin < covered)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"tensor %s begins at byte %" PRIu64
					" of the data and overlaps %s, which ends at %" PRIu64,
					name.text, t->begin, show(t[-1].name, &before), covered);
		if (t->begin > covered)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"hole in the data: bytes %" PRIu64 " to %" PRIu64
					" before tensor %s belong to no tensor",
					covered, t->begin, name.text);
		covered = t->end;
		if (covered > data_size)
			return hct_fail(diag, HCT_ERR_SAFETENSORS,
					"tensor %s ends at byte %" PRIu64
					" of the data but the file has only %" PRIu64
					": a truncated download?",
					name.text, covered, data_size);
	}
	if (covered < data_size)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"the tensors end at byte %" PRIu64
				" of the data but the file has %" PRIu64,
				covered, data_size);
	return HCT_OK;
}

/* Allocates the tensors, and an arena in which everything fits that fill_tensor copies
 * from root.  The sizes are sums over parts of a header of bounded length, so they
 * cannot overflow. */
static hct_error allocate(const cJSON *root, struct hct_safetensors *st, struct arena *cursor)
{
	size_t count = 0, dimensions = 0, text = 0;
	const cJSON *item, *member, *length;

	cJSON_ArrayForEach(item, root)
	{
		if (is_metadata(item))
			continue;
		count++;
		text += strlen(item->string) + 1;
		cJSON_ArrayForEach(member, item)
		{
			if (cJSON_IsString(member))
				text += strlen(member->valuestring) + 1;
			if (cJSON_IsArray(member)) {
				cJSON_ArrayForEach(length, member) dimensions++;
			}
		}
	}
	st->tensors = calloc(count ? count : 1, sizeof(st->tensors[0]));
	struct arena *arena = malloc(sizeof(*arena) + count * sizeof(arena->by_name[0]) +
				     dimensions * sizeof(arena->shapes[0]) + text);
	st->arena = arena;
	if (!st->tensors || !arena)
		return HCT_ERR_NOMEM;
	arena->by_name = (const struct hct_tensor **)(arena + 1);
	arena->shapes = (uint64_t *)(arena->by_name + count);
	arena->strings = (char *)(arena->shapes + dimensions);
	*cursor = *arena;
	return HCT_OK;
}

static hct_error fill(const cJSON *root, struct hct_safetensors *st, struct hct_diag *diag)
{
	const cJSON *item, *metadata = NULL;
	struct arena cursor;
	hct_error e = allocate(root, st, &cursor);

	if (e)
		return hct_fail(diag, e, "out of memory for the safetensors header");
	cJSON_ArrayForEach(item, root)
	{
		if (!is_metadata(item)) {
			e = fill_tensor(item, &st->tensors[st->count++], &cursor, diag);
		} else if (metadata) {
			e = hct_fail(diag, HCT_ERR_SAFETENSORS, "__metadata__ is there twice");
		} else {
			metadata = item;
			e = check_metadata(metadata, diag);
		}
		if (e)
			return e;
	}
	qsort(st->tensors, st->count, sizeof(st->tensors[0]), compare_data);
	e = index_names(st, diag);
	return e ? e : check_cover(st, diag);
}

hct_error hct_safetensors_parse(const void *header, size_t len, uint64_t file_size,
				struct hct_safetensors *out, struct hct_diag *diag)
{
	struct hct_safetensors st = {.header_len = len, .file_size = file_size};
	cJSON *root = NULL;
	size_t expected;
	hct_error e;

	memset(out, 0, sizeof(*out));
	if (len < 8 || len > file_size)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header is cut: %zu bytes of a file of %" PRIu64, len, file_size);
	e = hct_safetensors_header_len(header, file_size, &expected, diag);
	if (e)
		return e;
	if (len != expected)
		return hct_fail(diag, HCT_ERR_SAFETENSORS,
				"header claims %zu bytes but %zu are there", expected - 8, len - 8);
	st.header = malloc(len + PADDING);
	if (!st.header)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the safetensors header");
	memcpy(st.header, header, len);
	memset(st.header + len, 0, PADDING);

	e = parse_json(st.header + 8, len - 8, &root, diag);
	if (!e)
		e = fill(root, &st, diag);
	cJSON_Delete(root);
	if (e)
		hct_safetensors_free(&st);
	else
		*out = st;
	return e;
}

void hct_safetensors_free(struct hct_safetensors *st)
{
	free(st->header);
	free(st->tensors);
	free(st->arena);
	memset(st, 0, sizeof(*st));
}

size_t hct_safetensors_find(const struct hct_safetensors *st, const char *name)
{
	if (st->count == 0)
		return SIZE_MAX;

	struct hct_tensor key = {.name = name};
	const struct hct_tensor *wanted = &key;
	const struct arena *a = st->arena;
	const struct hct_tensor *const *found =
		bsearch(&wanted, a->by_name, st->count, sizeof(a->by_name[0]), compare_names);
	return found ? (size_t)(*found - st->tensors) : SIZE_MAX;
}
