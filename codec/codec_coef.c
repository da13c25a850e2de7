/* Decoding of the coef codec: masks, values, inverse transform. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "codec.h"
#include "coef.h"
#include "dequant.h"
#include "idct.h"
#include "tcq.h"

/* Elements that go through all stages at a time where tiles have one row. */
#define BLOCK_ELEMENTS 4096

/* A tensor's tables as decoding wants them. */
struct tables {
	hct_dtype dtype;
	size_t unit;
	unsigned tile_rows, tile_columns;
	uint32_t columns;
	float power;
};

/* Where a chunk is being read. */
struct cursor {
	size_t element, kept, half; /* the next ones; half: among the FP16 ones */
};

/* A chunk while it is decoded. */
struct job {
	const struct hct_task *task;
	const struct tables *tables;
	uint8_t *dst;
	size_t elements, kept, halves;
	size_t begin, end;               /* elements that are wanted; whole tiles */
	const uint8_t *mask, *half_mask; /* 8 readable bytes behind each; NULL: all, and none */
	int all_half;                    /* whatever half_mask is */
	const uint8_t *scales, *nibbles, *half;
	float *values; /* a band, or a block */
	size_t pitch;  /* floats from one of its rows to the next */
	float *dense;  /* kept ones of a row */
	float *split;  /* the same, INT4 first */
	uint8_t *out;  /* elements of a row */
	hct_narrow *narrow;
	hct_idct *idct; /* NULL without transform */
	const char **why;
};

static hct_error corrupt(const struct job *j, const char *why)
{
	*j->why = why;
	return HCT_ERR_CORRUPT;
}

static hct_error open_tables(const struct hct_tensor *tensor, const uint8_t *params, size_t length,
			     void **out, const char **why)
{
	struct hct_coef_tables t;
	struct tables *x;
	hct_error e;

	*out = NULL;
	if (!hct_tcq_has_dtype(tensor->dtype)) {
		*why = "the coef codec on a dtype that it does not code";
		return HCT_ERR_CORRUPT;
	}
	e = hct_coef_tables_unpack(params, length, &t, why);
	if (e)
		return e;
	x = malloc(sizeof *x);
	if (!x)
		return HCT_ERR_NOMEM;
	*x = (struct tables){.dtype = tensor->dtype,
			     .unit = hct_dtype_unit(tensor->dtype),
			     .tile_rows = 1u << t.tile_rows_log2,
			     .tile_columns = 1u << t.tile_columns_log2,
			     .columns = t.columns,
			     .power = hct_coef_power(t.exponent)};
	*out = x;
	return HCT_OK;
}

static void free_tables(void *p)
{
	free(p);
}

/* Ones among the first n bits; 8 readable bytes behind them. */
static size_t count_ones(const uint8_t *bits, size_t n)
{
	size_t sum = 0, i;

	for (i = 0; i + 64 <= n; i += 64)
		sum += (size_t)__builtin_popcountll(hct_load64(bits + i / 8));
	if (i < n)
		sum += (size_t)__builtin_popcountll(hct_load64(bits + i / 8) &
						    ((UINT64_C(1) << (n - i)) - 1));
	return sum;
}

static size_t count_ones_between(const uint8_t *bits, size_t begin, size_t end)
{
	size_t first = begin / 8 * 8;

	return count_ones(bits + first / 8, end - first) -
	       count_ones(bits + first / 8, begin - first);
}

static unsigned bit_of(const uint8_t *bits, size_t i)
{
	return bits[i / 8] >> i % 8 & 1u;
}

/* Finds a mask of n bits that lies, in `length` bytes, at p; *out: NULL when there is none. */
static hct_error open_mask(const struct job *j, unsigned form, const uint8_t *p, size_t length,
			   size_t n, uint8_t *room, const uint8_t **out)
{
	size_t bytes = (n + 7) / 8;

	*out = NULL;
	if (form == HCT_MASK_STORED) {
		*out = p;
		return length == bytes ? HCT_OK : corrupt(j, "a mask of the wrong length");
	}
	if (form == HCT_MASK_ZSTD) {
		*out = room;
		if (hct_zstd_decode(j->task->scratch, p, length, room, bytes))
			return corrupt(j, "a damaged mask");
		return HCT_OK;
	}
	return length ? corrupt(j, "a mask where there is none") : HCT_OK;
}

/* Finds the parts of the payload.  room: of two masks. */
static hct_error open_payload(struct job *j, uint8_t *room, size_t mask_room)
{
	const struct hct_payload *payload = &j->task->layers[0];
	const uint8_t *p = payload->data;
	uint64_t mask, half, left, fours;
	hct_error e;

	if (payload->length < HCT_COEF_HEAD_BYTES)
		return corrupt(j, "a payload that is too short");
	mask = hct_load32(p + 4);
	half = hct_load32(p + 8);
	left = payload->length - HCT_COEF_HEAD_BYTES;
	if (p[0] > HCT_MASK_ZSTD || p[1] > HCT_MASK_ALL)
		return corrupt(j, "an unknown form of mask");
	if (mask + half > left)
		return corrupt(j, "masks that do not fit their payload");
	left -= mask + half;
	p += HCT_COEF_HEAD_BYTES;
	e = open_mask(j, payload->data[0], p, mask, j->elements, room, &j->mask);
	if (e)
		return e;
	j->kept = j->mask ? count_ones(j->mask, j->elements) : j->elements;
	e = open_mask(j, payload->data[1], p + mask, half, j->kept, room + mask_room,
		      &j->half_mask);
	if (e)
		return e;
	j->all_half = payload->data[1] == HCT_MASK_ALL;
	j->halves = j->half_mask ? count_ones(j->half_mask, j->kept) : j->all_half ? j->kept : 0;
	fours = j->kept - j->halves;
	j->scales = p + mask + half;
	j->nibbles = j->scales + 2 * ((fours + HCT_COEF_BLOCK - 1) / HCT_COEF_BLOCK);
	j->half = j->nibbles + (fours + 1) / 2;
	if (2 * ((fours + HCT_COEF_BLOCK - 1) / HCT_COEF_BLOCK) + (fours + 1) / 2 +
		    2 * (uint64_t)j->halves !=
	    left)
		return corrupt(j, "values that do not fill their payload");
	return HCT_OK;
}

/* n FP16 numbers from number `first` on. */
static hct_error read_halves(const struct job *j, size_t first, size_t n, float *dst)
{
	unsigned special = 0;

	for (size_t i = 0; i < n; i++) {
		uint16_t h = hct_load16(j->half + 2 * (first + i));

		special |= (unsigned)hct_half_is_special(h);
		dst[i] = hct_half_value(h) * j->tables->power;
	}
	return special ? corrupt(j, "a value that is not finite") : HCT_OK;
}

/* n INT4 numbers from number `first` on. */
static hct_error read_fours(const struct job *j, size_t first, size_t n, float *dst)
{
	for (size_t i = 0, m; i < n; i += m) {
		size_t at = first + i;
		uint16_t h = hct_load16(j->scales + at / HCT_COEF_BLOCK * 2);
		float scale = hct_half_value(h) * j->tables->power;

		if (hct_half_is_special(h))
			return corrupt(j, "a scale that is not finite");
		m = HCT_COEF_BLOCK - at % HCT_COEF_BLOCK;
		m = m < n - i ? m : n - i;
		for (size_t k = 0; k < m; k++) {
			int v = j->nibbles[(at + k) / 2] >> (at + k) % 2 * 4 & 15;

			dst[i + k] = (float)((v ^ 8) - 8) * scale;
		}
	}
	return HCT_OK;
}

/* The n kept coefficients that come next, of both kinds. */
static hct_error read_kept(const struct job *j, struct cursor *c, size_t n, float *dst)
{
	size_t halves, four = 0, half;
	float *fours = j->split;
	hct_error e;

	if (!j->half_mask) {
		e = j->all_half ? read_halves(j, c->kept, n, dst) : read_fours(j, c->kept, n, dst);
		c->kept += n;
		return e;
	}
	halves = count_ones_between(j->half_mask, c->kept, c->kept + n);
	e = read_fours(j, c->kept - c->half, n - halves, fours);
	if (!e)
		e = read_halves(j, c->half, halves, fours + (n - halves));
	half = n - halves;
	for (size_t i = 0; i < n; i++) {
		unsigned is_half = bit_of(j->half_mask, c->kept + i);

		dst[i] = fours[is_half ? half : four];
		half += is_half;
		four += !is_half;
	}
	c->kept += n;
	c->half += halves;
	return e;
}

/* v, or 0 when bit is 0. */
static float keep_if(unsigned bit, float v)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof bits);
	bits &= 0 - (uint32_t)bit;
	memcpy(&v, &bits, sizeof v);
	return v;
}

/* The n coefficients that come next. */
static hct_error read_row(const struct job *j, struct cursor *c, size_t n, float *dst)
{
	size_t kept, at = c->element;
	hct_error e;

	c->element += n;
	if (!j->mask)
		return read_kept(j, c, n, dst);
	kept = count_ones_between(j->mask, at, at + n);
	e = read_kept(j, c, kept, j->dense);
	j->dense[kept] = 0; /* looked at below */
	kept = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned bit = bit_of(j->mask, at + i);

		dst[i] = keep_if(bit, j->dense[kept]); /* no branches: half would be mispredicted */
		kept += bit;
	}
	return e;
}

/* Hands out what is wanted of the n values from element e on. */
static void hand_out(const struct job *j, const float *values, size_t e, size_t n)
{
	size_t unit = j->tables->unit, first = e * unit, begin = first, end = (e + n) * unit;

	begin = begin > j->task->begin ? begin : j->task->begin;
	end = end < j->task->end ? end : j->task->end;
	if (begin >= end)
		return;
	if (end - begin == n * unit) {
		j->narrow(values, n, j->dst + (begin - j->task->begin));
		return;
	}
	j->narrow(values, n, j->out);
	memcpy(j->dst + (begin - j->task->begin), j->out + (begin - first), end - begin);
}

/* Decodes the wanted tiles. */
static hct_error run(const struct job *j)
{
	const struct tables *x = j->tables;
	struct cursor c = {.element = j->begin, .kept = j->begin};
	size_t rows = x->tile_rows, width;
	hct_error e;

	if (j->mask)
		c.kept = count_ones(j->mask, j->begin);
	if (j->half_mask)
		c.half = count_ones(j->half_mask, c.kept);
	for (size_t at = j->begin; at < j->end; at += rows * width) {
		width = rows > 1 ? x->columns : j->end - at;
		width = rows > 1 || width < BLOCK_ELEMENTS ? width : BLOCK_ELEMENTS;
		for (size_t r = 0; r < rows; r++) {
			e = read_row(j, &c, width, j->values + r * j->pitch);
			if (e)
				return e;
		}
		if (j->idct)
			j->idct(j->values, j->pitch, width, x->tile_rows, x->tile_columns);
		for (size_t r = 0; r < rows; r++)
			hand_out(j, j->values + r * j->pitch, at + r * width, width);
	}
	return HCT_OK;
}

/* Checks how a chunk is cut, and finds what of it has to be decoded. */
static hct_error measure(struct job *j)
{
	const struct tables *x = j->tables;
	const struct hct_task *task = j->task;
	size_t whole = x->tile_rows > 1 ? (size_t)x->tile_rows * x->columns : x->tile_columns;
	uint64_t first = task->offset / x->unit;

	if (task->length % x->unit || task->offset % x->unit)
		return corrupt(j, "a chunk that is not whole elements");
	j->elements = task->length / x->unit;
	if (j->elements % whole || first % (x->tile_rows > 1 ? x->columns : whole))
		return corrupt(j, "a chunk that is not whole tiles");
	j->begin = task->begin / x->unit;
	j->end = (task->end + x->unit - 1) / x->unit;
	j->begin -= j->begin % whole;
	j->end += (whole - j->end % whole) % whole;
	return HCT_OK;
}

static size_t round_up(size_t n)
{
	return (n + 63) / 64 * 64;
}

static hct_error decode(const struct hct_task *task, uint8_t *dst, const char **why)
{
	const struct tables *x = task->tables;
	int tiles = x->tile_rows * x->tile_columns > 1;
	struct job j = {.task = task,
			.tables = x,
			.dst = dst,
			.narrow = hct_dequant_find(task->scratch->simd)->narrow[x->dtype],
			.idct = tiles ? hct_idct_find(task->scratch->simd) : NULL,
			.why = why};
	size_t width, values, dense, mask;
	uint8_t *scratch, *masks;
	hct_error e = measure(&j);

	if (e)
		return e;
	width = x->tile_rows > 1 ? x->columns : BLOCK_ELEMENTS;
	j.pitch = width % 512 ? (width + 15) / 16 * 16 : width + 16; /* see idct.h */
	values = round_up(x->tile_rows * j.pitch * sizeof(float));
	dense = round_up((width + 16) * sizeof(float));
	mask = round_up(j.elements / 8 + 16);
	scratch = hct_scratch_reserve(task->scratch,
				      values + 2 * dense + 2 * mask + round_up(width * x->unit));
	if (!scratch)
		return HCT_ERR_NOMEM;
	j.values = (void *)scratch;
	j.dense = (void *)(scratch + values);
	j.split = (void *)(scratch + values + dense);
	masks = scratch + values + 2 * dense;
	memset(masks, 0, 2 * mask);
	j.out = masks + 2 * mask;
	e = open_payload(&j, masks, mask);
	return e ? e : run(&j);
}

const struct hct_codec hct_codec_coef = {.id = HCT_CODEC_COEF,
					 .name = "coef",
					 .max_layers = 1,
					 .open_tables = open_tables,
					 .free_tables = free_tables,
					 .decode = decode};
