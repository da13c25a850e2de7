#include "policy.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/importance.h"
#include "writer/layer.h"
#include "writer/names.h"
#include "writer/pattern.h"

#define NEAR_RETENTION .80
#define NEAR_LAYERS    2 /* next to either end */

struct mkhct_policy {
	const struct mkhct_policy_options *options;
	struct mkhct_target wish; /* of a tensor that neither policy nor override is about */
	double base;
	struct mkhct_layers **parts; /* the stacks of each */
	size_t part_count;
	struct mkhct_importances *importances; /* or NULL */
	unsigned char *seen;                   /* by place in it */
	unsigned char *matched;                /* by override: MATCHED bits */
	size_t *skipped;                       /* by override: tensors that it cannot change */
	size_t in_layers;                      /* tensors */
};

enum { MATCHED = 1, MATCHED_CODED = 2 };

static const char *const names[MKHCT_POLICY_COUNT] = {
	[MKHCT_POLICY_UNIFORM] = "uniform",       [MKHCT_POLICY_HYBRID] = "hybrid",
	[MKHCT_POLICY_LAYERTYPE] = "layertype",   [MKHCT_POLICY_ADAPTIVE] = "adaptive",
	[MKHCT_POLICY_IMPORTANCE] = "importance",
};

/* The retention of a kind in the policy layertype; more than 1 is lossless. */
static const struct {
	double factor, least; /* of the base */
} layertype[MKHCT_GROUP_COUNT] = {
	[MKHCT_GROUP_OTHER] = {1, 0},     [MKHCT_GROUP_EXACT] = {0, 1},
	[MKHCT_GROUP_EMBEDDING] = {0, 1}, [MKHCT_GROUP_HEAD] = {0, .90},
	[MKHCT_GROUP_QK] = {1, 0},        [MKHCT_GROUP_VO] = {1.1, 0},
	[MKHCT_GROUP_QKV] = {1.1, 0},     [MKHCT_GROUP_MLP] = {.7, .40},
};

const char *mkhct_policy_name(enum mkhct_policy_kind kind)
{
	return names[kind];
}

hct_error mkhct_policy_check(const struct mkhct_policy_options *o, struct hct_diag *diag)
{
	if (o->kind == MKHCT_POLICY_UNIFORM)
		return HCT_OK;
	if (o->wish.kind == MKHCT_WISH_LOSSLESS)
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"--policy %s: has nothing to do with --lossless; leave one out",
				names[o->kind]);
	if (mkhct_wish_is_budget(&o->wish))
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"--policy %s: sets the error of each tensor, which --%s leaves "
				"open; give --retention, --cosine or --snr with it",
				names[o->kind], mkhct_wish_name(o->wish.kind));
	return HCT_OK;
}

hct_error mkhct_policy_begin(struct mkhct_policy *p, const char *config, size_t config_length,
			     struct hct_diag *diag)
{
	struct mkhct_layers **grown =
		reallocarray(p->parts, p->part_count + 1, sizeof(struct mkhct_layers *));
	hct_error err;

	if (!grown)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the policy");
	p->parts = grown;
	err = mkhct_layers_create(config, config_length, &p->parts[p->part_count], diag);
	p->part_count += !err;
	return err;
}

hct_error mkhct_policy_create(const struct mkhct_policy_options *o, const char *config,
			      size_t config_length, struct mkhct_policy **out,
			      struct hct_diag *diag)
{
	hct_error err = mkhct_policy_check(o, diag);
	struct mkhct_policy *p;

	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the policy");
	p->options = o;
	p->wish = mkhct_wish_target(&o->wish);
	p->base = p->wish.retention;
	p->matched = calloc(o->override_count + 1, 1);
	p->skipped = calloc(o->override_count + 1, sizeof(*p->skipped));
	if (!p->matched || !p->skipped)
		err = hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the policy");
	if (!err)
		err = mkhct_policy_begin(p, config, config_length, diag);
	if (!err && o->importance)
		err = mkhct_importances_read(o->importance, &p->importances, diag);
	if (!err && p->importances) {
		p->seen = calloc(mkhct_importances_count(p->importances) + 1, 1);
		if (!p->seen)
			err = hct_fail(diag, HCT_ERR_NOMEM, "out of memory for the policy");
	}
	if (err)
		mkhct_policy_free(p);
	else
		*out = p;
	return err;
}

void mkhct_policy_free(struct mkhct_policy *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->part_count; i++)
		mkhct_layers_free(p->parts[i]);
	free(p->parts);
	mkhct_importances_free(p->importances);
	free(p->seen);
	free(p->matched);
	free(p->skipped);
	free(p);
}

/* Why a tensor cannot be coded but exactly, or NULL. */
static const char *why_never(const struct hct_tensor *t)
{
	static const unsigned char codable[HCT_DTYPE_COUNT] = {
		[HCT_DTYPE_F64] = 1,         [HCT_DTYPE_F32] = 1,         [HCT_DTYPE_F16] = 1,
		[HCT_DTYPE_BF16] = 1,        [HCT_DTYPE_F8_E4M3] = 1,     [HCT_DTYPE_F8_E5M2] = 1,
		[HCT_DTYPE_F8_E4M3FNUZ] = 1, [HCT_DTYPE_F8_E5M2FNUZ] = 1,
	};

	if (!codable[t->dtype])
		return t->dtype_name;
	return t->elements == 0 ? "empty" : NULL;
}

/* Why a tensor is exact in every policy, or NULL. */
static const char *why_exact(const struct hct_tensor *t, enum mkhct_tensor_kind kind)
{
	const char *never = why_never(t);
	unsigned dimensions = 0;

	for (unsigned d = 0; d < t->rank; d++)
		dimensions += t->shape[d] > 1;
	if (never)
		return never;
	if (mkhct_kind_group(kind) == MKHCT_GROUP_EXACT)
		return mkhct_kind_name(kind);
	if (dimensions < 2)
		return dimensions ? "1-D" : "scalar";
	return t->elements < MKHCT_SMALL ? "small" : NULL;
}

static const char *option_of(const struct mkhct_override *o)
{
	return o->keep ? "--keep" : "--tensor";
}

/* 1 when the override decides about a tensor that it matches. */
static int has_effect(const struct mkhct_override *o, const char *exact)
{
	return !exact || o->wish.kind == MKHCT_WISH_LOSSLESS || mkhct_pattern_is_name(o->pattern);
}

hct_error mkhct_policy_see(struct mkhct_policy *p, const struct hct_tensor *t,
			   struct hct_diag *diag)
{
	enum mkhct_tensor_kind kind = mkhct_kind_of(t->name, t->rank, t->shape);
	const char *exact = why_exact(t, kind);
	unsigned layer;
	size_t at;

	for (size_t i = 0; i < p->options->override_count; i++) {
		const struct mkhct_override *o = &p->options->overrides[i];

		if (!mkhct_pattern_matches(o->pattern, t->name))
			continue;
		p->matched[i] |= MATCHED;
		if (has_effect(o, exact))
			p->matched[i] |= MATCHED_CODED;
		else
			p->skipped[i]++;
		if (mkhct_pattern_is_name(o->pattern) && o->wish.kind != MKHCT_WISH_LOSSLESS &&
		    why_never(t))
			return hct_fail(diag, HCT_ERR_ARGUMENT,
					"%s %s: the tensor is %s and can only be lossless",
					option_of(o), o->pattern, why_never(t));
	}
	if (p->importances && mkhct_importances_find(p->importances, t->name, NULL, &at))
		p->seen[at] = 1;
	p->in_layers += mkhct_layer_parse(t->name, &layer, &at) != 0;
	return mkhct_layers_see(p->parts[p->part_count - 1], t->name, diag);
}

/* How many tensors of the importance file the model does not have, and the first. */
static size_t strangers(const struct mkhct_policy *p, const char **first)
{
	size_t n = 0, count = p->importances ? mkhct_importances_count(p->importances) : 0;

	for (size_t i = count; i-- > 0;) {
		if (p->seen[i])
			continue;
		*first = mkhct_importances_name(p->importances, i);
		n++;
	}
	return n;
}

uint64_t mkhct_policy_importance_checksum(const struct mkhct_policy *p)
{
	return p->importances ? mkhct_importances_checksum(p->importances) : 0;
}

hct_error mkhct_policy_ready(const struct mkhct_policy *p, struct hct_diag *diag)
{
	const struct mkhct_policy_options *o = p->options;
	const char *first = NULL;
	size_t unknown;

	for (size_t i = 0; i < o->override_count; i++)
		if (!p->matched[i])
			return hct_fail(diag, HCT_ERR_ARGUMENT,
					"%s %s: matches no tensor of the model",
					option_of(&o->overrides[i]), o->overrides[i].pattern);
	unknown = strangers(p, &first);
	if (unknown && unknown == mkhct_importances_count(p->importances))
		return hct_fail(diag, HCT_ERR_ARGUMENT,
				"%s: names no tensor of the model; the first is %s", o->importance,
				first);
	return HCT_OK;
}

int mkhct_policy_note(const struct mkhct_policy *p, unsigned i, struct hct_diag *line)
{
	const struct mkhct_policy_options *o = p->options;
	const char *first = NULL;
	size_t unknown;

	for (size_t k = 0; k < o->override_count; k++) {
		if (!p->skipped[k] || i-- > 0)
			continue;
		if (p->matched[k] == MATCHED)
			hct_fail(line, HCT_OK,
				 "%s %s: matches only tensors that are lossless in every policy; "
				 "name one in full to code it all the same",
				 option_of(&o->overrides[k]), o->overrides[k].pattern);
		else
			hct_fail(line, HCT_OK,
				 "%s %s: %zu of the tensors that it matches %s lossless in every "
				 "policy; name one in full to code it all the same",
				 option_of(&o->overrides[k]), o->overrides[k].pattern,
				 p->skipped[k], p->skipped[k] == 1 ? "is" : "are");
		return 1;
	}
	if (p->importances) {
		unsigned n = 0;

		while (mkhct_importances_note(p->importances, n, line))
			if (n++ == i)
				return 1;
		i -= n;
	}
	unknown = strangers(p, &first);
	if (unknown && i-- == 0) {
		hct_fail(line, HCT_OK,
			 "%s: %zu of its tensors %s not in the model; the first is %s",
			 o->importance, unknown, unknown == 1 ? "is" : "are", first);
		return 1;
	}
	if (o->kind == MKHCT_POLICY_HYBRID && !p->in_layers && i == 0) {
		hct_fail(line, HCT_OK,
			 "--policy hybrid: no name shows a layer; every matrix gets the base");
		return 1;
	}
	return 0;
}

static void __attribute__((format(printf, 2, 3)))
set_reason(struct mkhct_decision *d, const char *format, ...)
{
	char text[4 * MKHCT_REASON_MAX];
	va_list args;

	va_start(args, format);
	if (vsnprintf(text, sizeof(text), format, args) < 0)
		*text = '\0';
	va_end(args);
	mkhct_name_printable(text, d->reason, sizeof(d->reason));
}

static void decide_hybrid(const struct mkhct_policy *p, size_t part, const struct hct_tensor *t,
			  struct mkhct_decision *d)
{
	unsigned layer, count, from_end;

	if (!mkhct_layers_find(p->parts[part], t->name, &layer, &count)) {
		set_reason(d, "hybrid: in no layer");
		return;
	}
	from_end = layer < count ? count - 1 - layer : 0;
	if (layer == 0 || from_end == 0)
		d->target = mkhct_target_lossless();
	else if (layer <= NEAR_LAYERS || from_end <= NEAR_LAYERS)
		d->target = mkhct_target_retention(NEAR_RETENTION);
	set_reason(d, "hybrid: layer %u of 0..%u", layer, count - 1);
}

static void decide_layertype(const struct mkhct_policy *p, struct mkhct_decision *d)
{
	enum mkhct_kind_group group = mkhct_kind_group(d->kind);
	double r = layertype[group].factor * p->base;

	if (r < layertype[group].least)
		r = layertype[group].least;
	/* Not by way of r when r is the base: a cosine or SNR stays what it is to the bit. */
	if (layertype[group].factor != 1)
		d->target = mkhct_target_retention(r);
	set_reason(d, "layertype: %s", mkhct_kind_name(d->kind));
}

static void decide_adaptive(const struct mkhct_policy *p, struct mkhct_decision *d)
{
	double quality = p->options->quality;

	if (!(quality > 0))
		quality = 1 - p->wish.error;
	/* A wish of retention 1 has no error to aim at. */
	if (quality < 1)
		d->target = mkhct_target_adaptive(quality);
	set_reason(d, "adaptive: to %.6g of its energy", quality);
}

static void decide_importance(const struct mkhct_policy *p, const struct hct_tensor *t,
			      struct mkhct_decision *d)
{
	struct mkhct_importance i;
	int found = p->importances && mkhct_importances_find(p->importances, t->name, &i, NULL);

	if (!found)
		i = mkhct_importance_of_kind(d->kind);
	d->target = mkhct_target_retention(mkhct_importance_retention(&i, p->base));
	set_reason(d, "importance %.3g, %s: %s", i.importance,
		   mkhct_sensitivity_name(i.sensitivity),
		   found ? "file" : mkhct_kind_name(d->kind));
}

/* 1 when an override decided. */
static int decide_override(const struct mkhct_policy *p, const struct hct_tensor *t,
			   const char *exact, struct mkhct_decision *d)
{
	for (size_t i = p->options->override_count; i-- > 0;) {
		const struct mkhct_override *o = &p->options->overrides[i];

		if (!has_effect(o, exact) || !mkhct_pattern_matches(o->pattern, t->name))
			continue;
		d->target = mkhct_wish_target(&o->wish);
		set_reason(d, "%s %s", option_of(o), o->pattern);
		return 1;
	}
	return 0;
}

void mkhct_policy_decide(const struct mkhct_policy *p, size_t part, const struct hct_tensor *t,
			 struct mkhct_decision *d)
{
	const char *exact;

	*d = (struct mkhct_decision){.kind = mkhct_kind_of(t->name, t->rank, t->shape),
				     .target = p->wish};
	exact = why_exact(t, d->kind);
	if (decide_override(p, t, exact, d))
		return;
	if (exact) {
		d->target = mkhct_target_lossless();
		set_reason(d, "%s", exact);
		return;
	}
	switch (p->options->kind) {
	case MKHCT_POLICY_HYBRID:
		decide_hybrid(p, part, t, d);
		break;
	case MKHCT_POLICY_LAYERTYPE:
		decide_layertype(p, d);
		break;
	case MKHCT_POLICY_ADAPTIVE:
		decide_adaptive(p, d);
		break;
	case MKHCT_POLICY_IMPORTANCE:
		decide_importance(p, t, d);
		break;
	case MKHCT_POLICY_UNIFORM:
	case MKHCT_POLICY_COUNT:
		set_reason(d, "uniform");
	}
}
