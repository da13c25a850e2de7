#include "table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

struct hct_table {
	unsigned columns;
	unsigned next; /* column of the next cell */
	unsigned *width;
	unsigned char *right;
	char **cells;        /* columns for each row; a line is in the first, the others NULL */
	unsigned char *line; /* for each row */
	size_t rows, capacity;
	int failed;
};

struct hct_table *hct_table_create(const char *columns)
{
	struct hct_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->columns = (unsigned)strlen(columns);
	t->width = calloc(t->columns, sizeof(*t->width));
	t->right = calloc(t->columns, 1);
	if (!t->width || !t->right) {
		hct_table_free(t);
		return NULL;
	}
	for (unsigned i = 0; i < t->columns; i++)
		t->right[i] = columns[i] == 'r';
	return t;
}

void hct_table_free(struct hct_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t->line);
	free(t->width);
	free(t->right);
	free(t);
}

static int add_row(struct hct_table *t)
{
	if (t->rows == t->capacity) {
		size_t capacity = t->capacity ? 2 * t->capacity : 64;
		char **cells = reallocarray(t->cells, capacity * t->columns, sizeof(*cells));
		unsigned char *line;

		if (cells)
			t->cells = cells;
		line = realloc(t->line, capacity);
		if (line)
			t->line = line;
		if (!cells || !line)
			return 0;
		t->capacity = capacity;
	}
	memset(t->cells + t->rows * t->columns, 0, t->columns * sizeof(*t->cells));
	t->line[t->rows++] = 0;
	return 1;
}

/* Fills the cell of the last row at t->next. */
static void set_cell(struct hct_table *t, const char *format, va_list args)
{
	char *text = NULL, *cell = NULL;

	if (t->next == 0 && !add_row(t)) {
		t->failed = 1;
		return;
	}
	if (vasprintf(&text, format, args) >= 0) {
		cell = hct_text_printable(text);
		free(text);
	}
	if (!cell)
		t->failed = 1;
	t->cells[(t->rows - 1) * t->columns + t->next] = cell;
}

void hct_table_cell(struct hct_table *t, const char *format, ...)
{
	va_list args;

	if (!t || t->failed)
		return;
	va_start(args, format);
	set_cell(t, format, args);
	va_end(args);
	if (t->failed)
		return;
	unsigned width = hct_text_columns(t->cells[(t->rows - 1) * t->columns + t->next]);
	if (width > t->width[t->next])
		t->width[t->next] = width;
	t->next = (t->next + 1) % t->columns;
}

void hct_table_end_row(struct hct_table *t)
{
	if (t)
		t->next = 0;
}

void hct_table_line(struct hct_table *t, const char *format, ...)
{
	va_list args;

	if (!t || t->failed)
		return;
	t->next = 0;
	va_start(args, format);
	set_cell(t, format, args);
	va_end(args);
	if (!t->failed)
		t->line[t->rows - 1] = 1;
}

static void print_row(const struct hct_table *t, char *const *cells, FILE *out)
{
	unsigned blanks = 2, last = t->columns;

	while (last > 0 && (!cells[last - 1] || !*cells[last - 1]))
		last--;
	for (unsigned i = 0; i < last; i++) {
		const char *cell = cells[i] ? cells[i] : "";
		unsigned fill = t->width[i] - hct_text_columns(cell);

		/* Blanks are owed and paid before the next text, so that none ends a line. */
		fprintf(out, "%*s%s", (int)(blanks + (t->right[i] ? fill : 0)), "", cell);
		blanks = 2 + (t->right[i] ? 0 : fill);
	}
	fputc('\n', out);
}

hct_error hct_table_print(const struct hct_table *t, FILE *out)
{
	if (!t || t->failed)
		return HCT_ERR_NOMEM;
	for (size_t i = 0; i < t->rows; i++) {
		char *const *cells = t->cells + i * t->columns;

		if (t->line[i])
			fprintf(out, "%s\n", cells[0]);
		else
			print_row(t, cells, out);
	}
	return HCT_OK;
}
