#include "trial.h"

#include "codec.h"
#include "split.h"

/* Bytes of the tensor with which codecs are compared, from its middle, or in so many places of a
 * large one. */
#define TRIAL_BYTES  (256u * 1024u)
#define TRIAL_PIECES 2
/* Bytes of each place for a quick try, four times that by place of byte, where repetitions show
 * best; and how near to the best its result must come. */
#define QUICK_BYTES  (4u * 1024u)
#define QUICK_MARGIN 1.06

/* Parts of the tensor that codecs are compared on. */
struct trial {
	const uint8_t *data, *piece[TRIAL_PIECES];
	size_t length, unit; /* length: of each */
	unsigned count;
};

static struct trial place_trial(const hct_plan *p, const uint8_t *data)
{
	struct trial t = {.data = data, .unit = hct_dtype_unit(p->tensor->dtype), .count = 1};
	uint64_t n = p->bytes < TRIAL_BYTES ? p->bytes : TRIAL_BYTES;

	if (p->bytes >= 4 * TRIAL_BYTES) {
		t.count = TRIAL_PIECES;
		n /= TRIAL_PIECES;
	}
	t.length = (size_t)(n / t.unit * t.unit);
	for (unsigned i = 0; i < t.count; i++) {
		uint64_t middle = p->bytes / (2 * t.count) * (2 * i + 1);

		t.piece[i] = data + (middle - t.length / 2) / t.unit * t.unit;
	}
	return t;
}

/* Bytes of the split codec, `limit` where it is no better. */
static size_t try_split(hct_encoder *e, const hct_plan *p, const struct trial *t, size_t limit)
{
	const struct hct_layout *l = hct_layout_find(p->tensor->dtype);
	size_t sum = 0;

	for (unsigned i = 0; i < t->count; i++) {
		size_t n = hct_split_encode(e, p->split, t->piece[i], t->length / l->unit,
					    (uint64_t)(t->piece[i] - t->data) / l->unit, t->length);

		sum += n ? n : t->length;
	}
	return sum < limit ? sum : limit;
}

/* The same for zstd.  Where the split codec is there it is seldom beaten, and a quick try with less
 * tells: it must come near. */
static size_t try_zstd(hct_encoder *e, const hct_plan *p, const struct trial *t, unsigned stride,
		       size_t limit)
{
	size_t part = (stride > 1 ? 4 : 1) * QUICK_BYTES, sum = 0;

	part = (part < t->length ? part : t->length) / t->unit * t->unit;
	for (unsigned i = 0; p->split && i < t->count; i++) {
		size_t n = hct_zstd_encode(e, t->piece[i], part, stride, 1, part);

		sum += n ? n : part;
	}
	if ((double)sum * (double)t->length > QUICK_MARGIN * (double)limit * (double)part)
		return limit;
	sum = 0;
	for (unsigned i = 0; i < t->count; i++) {
		size_t n = hct_zstd_encode(e, t->piece[i], t->length, stride, p->level, t->length);

		sum += n ? n : t->length;
	}
	return sum < limit ? sum : limit;
}

void hct_trial_choose(hct_encoder *e, hct_plan *p, const uint8_t *data)
{
	struct trial t = place_trial(p, data);
	size_t all = t.count * t.length, best = all, length;
	const unsigned strides[] = {1, (unsigned)t.unit};

	p->codec = HCT_CODEC_RAW;
	if (p->split && all) {
		length = try_split(e, p, &t, best);
		if (length < best) {
			best = length;
			p->codec = HCT_CODEC_SPLIT;
		}
	}
	for (size_t i = 0; all && i < (t.unit > 1 ? 2 : 1); i++) {
		length = try_zstd(e, p, &t, strides[i], best);
		if (length < best) {
			best = length;
			p->codec = HCT_CODEC_ZSTD;
			p->stride = strides[i];
		}
	}
	if (all)
		p->bits = 8 * (double)best / (double)(all / t.unit);
}
