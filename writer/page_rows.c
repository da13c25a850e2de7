#include "page_rows.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "writer/layer.h"
#include "writer/node.h"

/* Text ------------------------------------------------------------------------------ */

/* Controls, and what is invisible or changes the direction of writing. */
static int is_unseen(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || (c >= 0xfff9 && c <= 0xffff) || c == 0xfeff ||
	       c >= 0xe0000;
}

/* The character at *s, which moves on; bytes that are no UTF-8 are U+FFFD. */
static uint32_t next_character(const unsigned char **s)
{
	unsigned char a = **s;
	size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
	uint32_t c = n < 2 ? a : a & (0x7fu >> n);

	for (size_t i = 1; i < n; i++) {
		if (((*s)[i] & 0xc0) != 0x80) {
			n = 0;
			break;
		}
		c = c << 6 | ((*s)[i] & 0x3fu);
	}
	if ((n == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) ||
	    (n == 4 && (c < 0x10000 || c > 0x10ffff)))
		n = 0;
	*s += n ? n : 1;
	return n ? c : 0xfffd;
}

void mkhct_page_text(FILE *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		const unsigned char *from = s;
		uint32_t c = next_character(&s);

		if (c == 0xfffd)
			fputs("\xef\xbf\xbd", out);
		else if (is_unseen(c))
			fprintf(out, "\\u{%x}", c);
		else if (c == '&')
			fputs("&amp;", out);
		else if (c == '<')
			fputs("&lt;", out);
		else if (c == '>')
			fputs("&gt;", out);
		else if (c == '"')
			fputs("&quot;", out);
		else if (c == '\'')
			fputs("&#39;", out);
		else
			fwrite(from, 1, (size_t)(s - from), out);
	}
}

/* A long name loses its middle, between characters. */
static char *shorten(const char *text)
{
	size_t n = strlen(text), head = MKHCT_PAGE_NAME / 2, tail = n - MKHCT_PAGE_NAME / 3;
	char *copy;

	if (n <= MKHCT_PAGE_NAME)
		return strdup(text);
	while (((unsigned char)text[head] & 0xc0) == 0x80)
		head--;
	while (((unsigned char)text[tail] & 0xc0) == 0x80)
		tail++;
	if (asprintf(&copy, "%.*s [... %zu bytes in all ...] %s", (int)head, text, n, text + tail) <
	    0)
		return NULL;
	return copy;
}

/* Rows ------------------------------------------------------------------------------ */

static double number_of(const cJSON *object, const char *key, double otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

static const char *string_of(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static enum mkhct_page_part part_of(enum mkhct_tensor_kind kind)
{
	switch (mkhct_kind_group(kind)) {
	case MKHCT_GROUP_QK:
	case MKHCT_GROUP_VO:
	case MKHCT_GROUP_QKV:
		return MKHCT_PAGE_ATTENTION;
	case MKHCT_GROUP_MLP:
		return MKHCT_PAGE_MLP;
	default:
		return MKHCT_PAGE_REST;
	}
}

/* Why a tensor is lossless: what the encoder said, or else the policy. */
static const char *why_of(const cJSON *tensor)
{
	const char *why = string_of(tensor, "lossless_because");

	return *why ? why : string_of(tensor, "reason");
}

static void read_shape(const cJSON *tensor, struct mkhct_page_row *row)
{
	const cJSON *shape = cJSON_GetObjectItemCaseSensitive(tensor, "shape"), *item;
	uint64_t sizes[64];
	unsigned rank = 0;

	row->elements = 1;
	cJSON_ArrayForEach(item, shape)
	{
		double size = cJSON_IsNumber(item) ? item->valuedouble : 0;

		row->elements *= size;
		if (rank < 64)
			sizes[rank++] = size >= 0 && size < 0x1p63 ? (uint64_t)size : 0;
	}
	row->kind = mkhct_kind_of(string_of(tensor, "name"), rank, sizes);
	row->part = part_of(row->kind);
	row->shape = cJSON_PrintUnformatted(shape);
	if (!row->shape)
		row->shape = strdup("");
}

static int add_row(struct mkhct_page_rows *rows, const char *file, const cJSON *tensor)
{
	struct mkhct_page_row *row;
	unsigned layer;

	if (rows->count == rows->capacity) {
		size_t capacity = 2 * rows->capacity + 64;
		void *grown = realloc(rows->rows, capacity * sizeof(*rows->rows));

		if (!grown)
			return -1;
		rows->rows = grown;
		rows->capacity = capacity;
	}
	row = &rows->rows[rows->count++];
	*row = (struct mkhct_page_row){.layer = -1};
	row->name = shorten(string_of(tensor, "name"));
	row->file = shorten(file);
	row->dtype = shorten(string_of(tensor, "dtype"));
	row->codec = shorten(string_of(tensor, "codec"));
	row->source = number_of(tensor, "source_bytes", 0);
	row->stored = number_of(tensor, "stored_bytes", 0);
	row->error = number_of(tensor, "relative_squared_error", 0);
	row->cosine = number_of(tensor, "cosine", 1);
	row->lossy = row->error > 0;
	row->why = row->lossy ? NULL : shorten(why_of(tensor));
	read_shape(tensor, row);
	/* A stack whose name is cut cannot be told from another. */
	if (mkhct_layer_parse(string_of(tensor, "name"), &layer, &row->stack) &&
	    row->stack < MKHCT_PAGE_NAME / 3)
		row->layer = (int)layer;
	return row->name && row->file && row->dtype && row->codec && row->shape &&
			       (row->lossy || row->why)
		       ? 0
		       : -1;
}

/* One after the other, so that only one is in memory as objects. */
static int read_text(struct mkhct_page_rows *rows, const char *file, const char *list)
{
	const char *behind = list + strlen(list);

	while (*list) {
		const char *end = NULL;
		cJSON *tensor;
		int rc;

		list += strspn(list, "[], \t\r\n");
		if (*list != '{')
			return 0;
		/* With the length, or each call would look for the end of the text. */
		tensor = cJSON_ParseWithLengthOpts(list, (size_t)(behind - list), &end, 0);
		if (!tensor)
			return -1;
		rc = add_row(rows, file, tensor);
		cJSON_Delete(tensor);
		if (rc)
			return -1;
		list = end;
	}
	return 0;
}

int mkhct_page_rows_read(const cJSON *report, struct mkhct_page_rows *out)
{
	const cJSON *file, *tensor;
	int rc = 0;

	*out = (struct mkhct_page_rows){.count = 0};
	cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(report, "files"))
	{
		const cJSON *list = cJSON_GetObjectItemCaseSensitive(file, MKHCT_NODE_LIST);
		const char *name = string_of(file, "name");

		if (!rc && cJSON_IsRaw(list))
			rc = read_text(out, name, list->valuestring);
		else if (!rc && cJSON_IsArray(list))
			cJSON_ArrayForEach(tensor, list) rc |= rc ? rc : add_row(out, name, tensor);
	}
	return rc;
}

void mkhct_page_rows_free(struct mkhct_page_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		free(rows->rows[i].name);
		free(rows->rows[i].file);
		free(rows->rows[i].dtype);
		free(rows->rows[i].codec);
		free(rows->rows[i].shape);
		free(rows->rows[i].why);
	}
	free(rows->rows);
	*rows = (struct mkhct_page_rows){.count = 0};
}

void mkhct_page_sum_add(struct mkhct_page_sum *sum, const struct mkhct_page_row *row)
{
	sum->tensors++;
	sum->source += row->source;
	sum->stored += row->stored;
	sum->elements += row->elements;
	sum->stored_part[row->part] += row->stored;
	if (!row->lossy)
		return;
	if (!sum->lossy || row->error < sum->least)
		sum->least = row->error;
	if (!sum->lossy || row->error > sum->most)
		sum->most = row->error;
	if (!sum->lossy || row->cosine < sum->worst)
		sum->worst = row->cosine;
	sum->lossy++;
	sum->lossy_elements += row->elements;
	sum->errors += row->error * row->elements;
}
