#include "tcq.h"

#include <string.h>

#include "bytes.h"
#include "classmap.h"
#include "split.h"

int hct_tcq_has_dtype(hct_dtype dtype)
{
	switch (dtype) {
	case HCT_DTYPE_BF16:
	case HCT_DTYPE_F16:
	case HCT_DTYPE_F32:
	case HCT_DTYPE_F64:
	case HCT_DTYPE_F8_E5M2:
	case HCT_DTYPE_F8_E4M3:
	case HCT_DTYPE_F8_E5M2FNUZ:
	case HCT_DTYPE_F8_E4M3FNUZ:
		return 1;
	default:
		return 0;
	}
}

static size_t column_bytes(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l)
{
	return (size_t)(((uint64_t)t->columns * hct_tcq_column_bits(l->column_classes) + 7) / 8);
}

static size_t layer_length(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l)
{
	return HCT_TCQ_LAYER_BYTES + (l->raw_bits ? 0 : HCT_TCQ_POINTS) +
	       (size_t)l->row_classes * l->column_classes * HCT_TCQ_POINTS + column_bytes(t, l);
}

size_t hct_tcq_tables_length(const struct hct_tcq_tables *t)
{
	size_t n = HCT_TCQ_HEAD_BYTES;

	for (unsigned i = 0; i < t->layer_count; i++)
		n += layer_length(t, &t->layers[i]);
	return n;
}

static uint8_t *pack_layer(const struct hct_tcq_tables *t, const struct hct_tcq_layer *l,
			   uint8_t *out)
{
	size_t columns = column_bytes(t, l);

	out[0] = (uint8_t)l->states_log2;
	out[1] = (uint8_t)l->column_classes;
	out[2] = (uint8_t)l->row_classes;
	out[3] = (uint8_t)l->run_log2;
	out[4] = (uint8_t)l->raw_bits;
	memset(out + 5, 0, 3);
	memcpy(out + 8, &l->step, sizeof l->step);
	out += HCT_TCQ_LAYER_BYTES;
	if (!l->raw_bits) {
		memcpy(out, l->offset, HCT_TCQ_POINTS);
		out += HCT_TCQ_POINTS;
	}
	for (unsigned k = 0; k < l->row_classes; k++) {
		size_t n = (size_t)l->column_classes * HCT_TCQ_POINTS;

		memcpy(out, l->freq[k], n);
		out += n;
	}
	if (columns)
		memcpy(out, l->column_class, columns);
	return out + columns;
}

void hct_tcq_tables_pack(const struct hct_tcq_tables *t, uint8_t *out)
{
	out[0] = (uint8_t)t->layer_count;
	out[1] = (uint8_t)t->tile_rows_log2;
	out[2] = (uint8_t)t->tile_columns_log2;
	out[3] = (uint8_t)t->segment_log2;
	hct_store32(out + 4, t->columns);
	out += HCT_TCQ_HEAD_BYTES;
	for (unsigned i = 0; i < t->layer_count; i++)
		out = pack_layer(t, &t->layers[i], out);
}

/* The frequencies at p; 0 when some do not sum to 256. */
static int unpack_freq(struct hct_tcq_layer *l, const uint8_t *p)
{
	for (unsigned k = 0; k < l->row_classes; k++)
		for (unsigned q = 0; q < l->column_classes; q++)
			for (unsigned parity = 0; parity < 2; parity++, p += HCT_TCQ_SYMBOLS) {
				unsigned sum = 0;

				for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
					sum += l->freq[k][q][parity][s] = p[s];
				if (sum != HCT_RANS_TOTAL)
					return 0;
			}
	return 1;
}

/* One layer at p, of at most `left` bytes.  Returns its length, 0 when it breaks a rule. */
static size_t unpack_layer(const struct hct_tcq_tables *t, struct hct_tcq_layer *l,
			   const uint8_t *p, size_t left)
{
	size_t length;

	if (left < HCT_TCQ_LAYER_BYTES)
		return 0;
	l->states_log2 = p[0];
	l->column_classes = p[1];
	l->row_classes = p[2];
	l->run_log2 = p[3];
	l->raw_bits = p[4];
	memcpy(&l->step, p + 8, sizeof l->step);
	if (l->states_log2 < HCT_TCQ_MIN_STATES_LOG2 || l->states_log2 > HCT_TCQ_MAX_STATES_LOG2 ||
	    (l->column_classes != 1 && l->column_classes != 2 && l->column_classes != 4) ||
	    l->row_classes < 1 || l->row_classes > HCT_TCQ_MAX_ROWS ||
	    l->run_log2 > HCT_MAX_RUN_LOG2 || l->raw_bits > HCT_TCQ_MAX_RAW ||
	    !(l->step >= HCT_TCQ_MIN_STEP && l->step <= HCT_TCQ_MAX_STEP) ||
	    (l->column_classes > 1 && t->columns > HCT_TCQ_MAX_PERIOD))
		return 0;
	length = layer_length(t, l);
	if (length > left)
		return 0;
	p += HCT_TCQ_LAYER_BYTES;
	if (!l->raw_bits) {
		memcpy(l->offset, p, HCT_TCQ_POINTS);
		p += HCT_TCQ_POINTS;
	}
	if (!unpack_freq(l, p))
		return 0;
	p += (size_t)l->row_classes * l->column_classes * HCT_TCQ_POINTS;
	l->column_class = l->column_classes > 1 ? p : NULL;
	return length;
}

hct_error hct_tcq_tables_unpack(const uint8_t *params, size_t length, struct hct_tcq_tables *t,
				const char **why)
{
	size_t at = HCT_TCQ_HEAD_BYTES;

	memset(t, 0, sizeof *t);
	if (length < HCT_TCQ_HEAD_BYTES)
		goto corrupt;
	t->layer_count = params[0];
	t->tile_rows_log2 = params[1];
	t->tile_columns_log2 = params[2];
	t->segment_log2 = params[3];
	t->columns = hct_load32(params + 4);
	if (t->layer_count < 1 || t->layer_count > HCT_TCQ_MAX_LAYERS ||
	    t->tile_rows_log2 > HCT_TCQ_MAX_TILE_LOG2 ||
	    t->tile_columns_log2 > HCT_TCQ_MAX_TILE_LOG2 ||
	    t->segment_log2 < HCT_MIN_SEGMENT_LOG2 || t->segment_log2 > HCT_MAX_SEGMENT_LOG2 ||
	    !t->columns)
		goto corrupt;
	if (t->tile_rows_log2 + t->tile_columns_log2 &&
	    (t->columns > HCT_TCQ_MAX_PERIOD || t->columns % (1u << t->tile_columns_log2)))
		goto corrupt;
	for (unsigned i = 0; i < t->layer_count; i++) {
		size_t n = unpack_layer(t, &t->layers[i], params + at, length - at);

		if (!n)
			goto corrupt;
		at += n;
	}
	if (at == length)
		return HCT_OK;
corrupt:
	*why = "damaged tables of the tcq codec";
	return HCT_ERR_CORRUPT;
}

size_t hct_tcq_map_bytes(const struct hct_tcq_layer *l, size_t groups)
{
	return hct_class_map_bytes(l->row_classes, l->run_log2, groups);
}

int hct_tcq_map_unpack(const struct hct_tcq_layer *l, const uint8_t *bits, size_t groups,
		       uint8_t *map)
{
	return hct_class_map_unpack(bits, l->row_classes, l->run_log2, groups, map);
}

/* A queue that each symbol enters at most once. */
struct queue {
	uint8_t symbol[HCT_TCQ_SYMBOLS];
	unsigned first, end;
};

int hct_alias_init(struct hct_alias *a, const uint8_t freq[HCT_TCQ_SYMBOLS])
{
	struct queue small = {.end = 0}, large = {.end = 0};
	unsigned left[HCT_TCQ_SYMBOLS], rank[HCT_TCQ_SYMBOLS], sum = 0;

	for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++) {
		sum += left[s] = freq[s];
		a->own[s] = HCT_TCQ_BUCKET;
		a->other[s] = (uint8_t)s;
		a->shift[s] = 0;
		if (left[s] < HCT_TCQ_BUCKET)
			small.symbol[small.end++] = (uint8_t)s;
		if (left[s] > HCT_TCQ_BUCKET)
			large.symbol[large.end++] = (uint8_t)s;
	}
	if (sum != HCT_RANS_TOTAL)
		return -1;
	/* What is left of the symbols without a bucket is 8 for each of them: while there is a
	 * small one there is a large one. */
	while (small.first < small.end) {
		unsigned i = small.symbol[small.first++], j = large.symbol[large.first];

		a->own[i] = (uint8_t)left[i];
		a->other[i] = (uint8_t)j;
		left[j] -= HCT_TCQ_BUCKET - left[i];
		if (left[j] <= HCT_TCQ_BUCKET)
			large.first++;
		if (left[j] < HCT_TCQ_BUCKET)
			small.symbol[small.end++] = (uint8_t)j;
	}
	for (unsigned s = 0; s < HCT_TCQ_SYMBOLS; s++)
		rank[s] = a->own[s];
	for (unsigned i = 0; i < HCT_TCQ_SYMBOLS; i++) {
		unsigned *r = &rank[a->other[i]];

		if (a->own[i] == HCT_TCQ_BUCKET)
			continue;
		a->shift[i] = (uint8_t)(*r - a->own[i]);
		*r += HCT_TCQ_BUCKET - a->own[i];
	}
	return 0;
}

void hct_trellis_init(unsigned log2, uint8_t next[HCT_TCQ_MAX_STATES][2])
{
	static const uint8_t g[] = {013, 023, 045}, f[] = {04, 04, 010};
	unsigned v = log2 - HCT_TCQ_MIN_STATES_LOG2, mask = (1u << log2) - 1;

	memset(next, 0, HCT_TCQ_MAX_STATES * sizeof next[0]);
	for (unsigned t = 0; t <= mask; t++)
		for (unsigned z = 0; z < 2; z++)
			next[t][z] =
				(uint8_t)((t >> 1 ^ (t & 1 ? g[v] >> 1 : 0) ^ (z ? f[v] >> 1 : 0)) &
					  mask);
}
