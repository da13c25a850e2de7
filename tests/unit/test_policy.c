/* policy.h: which target each tensor gets, by every policy, override and bad option. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "writer/policy.h"

#define LAYERS 8

/* A Llama of LAYERS layers, with what else a header may hold. */
static const struct {
	const char *name;
	hct_dtype dtype;
	uint64_t rows, columns; /* columns 0: 1-D */
} in_layer[] =
	{
		{"self_attn.q_proj.weight", HCT_DTYPE_BF16, 256, 256},
		{"self_attn.k_proj.weight", HCT_DTYPE_BF16, 64, 256},
		{"self_attn.v_proj.weight", HCT_DTYPE_BF16, 64, 256},
		{"self_attn.o_proj.weight", HCT_DTYPE_BF16, 256, 256},
		{"self_attn.qkv_proj.weight", HCT_DTYPE_BF16, 384, 256},
		{"mlp.gate_proj.weight", HCT_DTYPE_F32, 512, 256},
		{"mlp.down_proj.weight", HCT_DTYPE_F8_E4M3, 256, 512},
		{"mlp.router.weight", HCT_DTYPE_F16, 64, 256},
		{"mystery", HCT_DTYPE_F64, 64, 256},
		{"input_layernorm.weight", HCT_DTYPE_BF16, 256, 0},
		{"self_attn.q_proj.bias", HCT_DTYPE_BF16, 256, 0},
},
  outside[] = {
	  {"model.embed_tokens.weight", HCT_DTYPE_BF16, 1000, 256},
	  {"lm_head.weight", HCT_DTYPE_BF16, 1000, 256},
	  {"model.norm.weight", HCT_DTYPE_BF16, 256, 0},
	  {"long_vector", HCT_DTYPE_F32, 100000, 0},
	  {"row", HCT_DTYPE_F32, 1, 100000},
	  {"small", HCT_DTYPE_F32, 63, 65},
	  {"not_small", HCT_DTYPE_F32, 64, 64},
	  {"mask", HCT_DTYPE_BOOL, 256, 256},
	  {"ids", HCT_DTYPE_I64, 256, 256},
	  {"packed", HCT_DTYPE_F4, 256, 256},
	  {"exponents", HCT_DTYPE_F8_E8M0, 256, 256},
	  {"waves", HCT_DTYPE_C64, 256, 256},
	  {"future", HCT_DTYPE_UNKNOWN, 256, 256},
	  {"nothing", HCT_DTYPE_F32, 0, 256},
	  {"scale_2d_norm", HCT_DTYPE_F32, 256, 256},
	  {"table_bias", HCT_DTYPE_F32, 256, 256},
};

#define COUNT(a) (sizeof(a) / sizeof(*(a)))
#define TENSORS  (LAYERS * COUNT(in_layer) + COUNT(outside))

static struct hct_tensor tensors[TENSORS];
static uint64_t shapes[TENSORS][2];
static char names[TENSORS][64];

static void set_tensor(size_t i, hct_dtype dtype, uint64_t rows, uint64_t columns)
{
	shapes[i][0] = rows;
	shapes[i][1] = columns;
	tensors[i] = (struct hct_tensor){
		.name = names[i],
		.dtype_name = dtype == HCT_DTYPE_UNKNOWN ? "X9" : hct_dtype_name(dtype),
		.dtype = dtype,
		.rank = columns ? 2 : 1,
		.shape = shapes[i],
		.elements = rows * (columns ? columns : 1)};
}

static int make_model(void **state)
{
	size_t n = 0;

	(void)state;
	for (unsigned l = 0; l < LAYERS; l++)
		for (size_t i = 0; i < COUNT(in_layer); i++, n++) {
			snprintf(names[n], sizeof(names[n]), "model.layers.%u.%s", l,
				 in_layer[i].name);
			set_tensor(n, in_layer[i].dtype, in_layer[i].rows, in_layer[i].columns);
		}
	for (size_t i = 0; i < COUNT(outside); i++, n++) {
		snprintf(names[n], sizeof(names[n]), "%s", outside[i].name);
		set_tensor(n, outside[i].dtype, outside[i].rows, outside[i].columns);
	}
	return n == TENSORS ? 0 : -1;
}

static struct mkhct_policy_options options(enum mkhct_policy_kind kind, enum mkhct_wish_kind wish,
					   double value)
{
	return (struct mkhct_policy_options){.wish = {.kind = wish, .value = value}, .kind = kind};
}

/* Creates the policy and shows it all; what goes wrong on the way is returned. */
static hct_error show(const struct mkhct_policy_options *o, const char *config,
		      struct mkhct_policy **p, struct hct_diag *diag)
{
	hct_error err = mkhct_policy_create(o, config, config ? strlen(config) : 0, p, diag);

	if (err)
		return err;
	for (size_t i = 0; !err && i < TENSORS; i++)
		err = mkhct_policy_see(*p, &tensors[i], diag);
	if (!err)
		err = mkhct_policy_ready(*p, diag);
	if (err) {
		mkhct_policy_free(*p);
		*p = NULL;
	}
	return err;
}

static struct mkhct_policy *shown(const struct mkhct_policy_options *o, const char *config)
{
	struct mkhct_policy *p = NULL;
	struct hct_diag diag = {""};

	if (show(o, config, &p, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	return p;
}

static struct mkhct_decision decide(const struct mkhct_policy *p, const char *name)
{
	struct mkhct_decision d;

	for (size_t i = 0; i < TENSORS; i++)
		if (strcmp(names[i], name) == 0) {
			mkhct_policy_decide(p, 0, &tensors[i], &d);
			return d;
		}
	fail_msg("%s is not in the model", name);
	memset(&d, 0, sizeof(d));
	return d;
}

/* retention 1: lossless. */
static void assert_retention(const struct mkhct_policy *p, const char *name, double retention)
{
	struct mkhct_decision d = decide(p, name);
	double r = d.target.kind == MKHCT_TARGET_LOSSLESS ? 1 : d.target.retention;

	if (d.target.kind != (retention < 1 ? MKHCT_TARGET_ERROR : MKHCT_TARGET_LOSSLESS) ||
	    !(fabs(r - retention) < 1e-9))
		fail_msg("%s: %.12g, not %.12g (%s)", name, r, retention, d.reason);
	if (retention < 1 && !(fabs(d.target.error - mkhct_error_of_retention(retention)) < 1e-12))
		fail_msg("%s: error %g", name, d.target.error);
}

static void assert_reason(const struct mkhct_policy *p, const char *name, const char *reason)
{
	struct mkhct_decision d = decide(p, name);

	assert_string_equal(d.reason, reason);
}

static void test_exact_in_every_policy(void **state)
{
	static const struct {
		const char *name, *reason;
	} exact[] = {
		{"model.layers.3.input_layernorm.weight", "norm"},
		{"model.layers.3.self_attn.q_proj.bias", "bias"},
		{"model.norm.weight", "norm"},
		{"long_vector", "1-D"},
		{"row", "1-D"},
		{"small", "small"},
		{"mask", "BOOL"},
		{"ids", "I64"},
		{"packed", "F4"},
		{"exponents", "F8_E8M0"},
		{"waves", "C64"},
		{"future", "X9"},
		{"nothing", "empty"},
		{"scale_2d_norm", "norm"},
		{"table_bias", "bias"},
	};

	(void)state;
	for (int kind = 0; kind < MKHCT_POLICY_COUNT; kind++) {
		struct mkhct_policy_options o =
			options((enum mkhct_policy_kind)kind, MKHCT_WISH_RETENTION, .5);
		struct mkhct_policy *p = shown(&o, NULL);

		for (size_t i = 0; i < COUNT(exact); i++) {
			assert_retention(p, exact[i].name, 1);
			assert_reason(p, exact[i].name, exact[i].reason);
		}
		assert_int_not_equal(decide(p, "not_small").target.kind, MKHCT_TARGET_LOSSLESS);
		mkhct_policy_free(p);
	}
	mkhct_policy_free(NULL);
}

static void test_uniform(void **state)
{
	struct mkhct_policy_options o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_RETENTION, .7);
	struct mkhct_policy *p = shown(&o, NULL);

	(void)state;
	assert_retention(p, "model.layers.0.mystery", .7);
	assert_retention(p, "model.embed_tokens.weight", .7);
	assert_retention(p, "model.layers.7.mlp.down_proj.weight", .7);
	assert_reason(p, "lm_head.weight", "uniform");
	assert_int_equal(decide(p, "lm_head.weight").kind, MKHCT_KIND_HEAD);
	mkhct_policy_free(p);

	o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_LOSSLESS, 0);
	p = shown(&o, NULL);
	for (size_t i = 0; i < TENSORS; i++)
		assert_retention(p, names[i], 1);
	mkhct_policy_free(p);

	o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_SNR, 20);
	p = shown(&o, NULL);
	assert_true(fabs(decide(p, "lm_head.weight").target.error - .01) < 1e-15);
	mkhct_policy_free(p);
}

static void test_budget(void **state)
{
	static struct mkhct_override overrides[] = {{"lm_head*", {.kind = MKHCT_WISH_LOSSLESS}, 1}};
	struct mkhct_policy_options o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_BPW, 3);
	struct mkhct_policy *p;

	(void)state;
	o.overrides = overrides;
	o.override_count = 1;
	p = shown(&o, NULL);
	assert_int_equal(decide(p, "model.layers.0.mystery").target.kind, MKHCT_TARGET_BUDGET);
	assert_int_equal(decide(p, "model.norm.weight").target.kind, MKHCT_TARGET_LOSSLESS);
	assert_int_equal(decide(p, "lm_head.weight").target.kind, MKHCT_TARGET_LOSSLESS);
	mkhct_policy_free(p);
}

static void test_hybrid(void **state)
{
	static const double by_layer[LAYERS] = {1, .8, .8, .6, .6, .8, .8, 1};
	struct mkhct_policy_options o = options(MKHCT_POLICY_HYBRID, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p = shown(&o, NULL);
	struct hct_diag line;
	char name[64];

	(void)state;
	for (unsigned l = 0; l < LAYERS; l++) {
		snprintf(name, sizeof(name), "model.layers.%u.mlp.gate_proj.weight", l);
		assert_retention(p, name, by_layer[l]);
	}
	assert_retention(p, "lm_head.weight", .6);
	assert_retention(p, "model.embed_tokens.weight", .6);
	assert_reason(p, "model.layers.3.mystery", "hybrid: layer 3 of 0..7");
	assert_reason(p, "lm_head.weight", "hybrid: in no layer");
	assert_false(mkhct_policy_note(p, 0, &line));
	mkhct_policy_free(p);

	/* The names are a part of the model that config.json tells of. */
	p = shown(&o, "{\"num_hidden_layers\": 10}");
	assert_retention(p, "model.layers.2.mystery", .8);
	assert_retention(p, "model.layers.6.mystery", .6);
	assert_retention(p, "model.layers.7.mystery", .8);
	mkhct_policy_free(p);

	/* A layer for multi-token prediction behind the last. */
	p = shown(&o, "{\"num_hidden_layers\": 7, \"num_nextn_predict_layers\": 1}");
	assert_retention(p, "model.layers.7.mystery", 1);
	assert_retention(p, "model.layers.6.mystery", 1);
	assert_retention(p, "model.layers.5.mystery", .8);
	assert_retention(p, "model.layers.4.mystery", .8);
	assert_retention(p, "model.layers.3.mystery", .6);
	mkhct_policy_free(p);
}

static void test_hybrid_without_layers(void **state)
{
	struct mkhct_policy_options o = options(MKHCT_POLICY_HYBRID, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p;
	struct hct_diag line;

	(void)state;
	assert_int_equal(mkhct_policy_create(&o, NULL, 0, &p, NULL), HCT_OK);
	assert_int_equal(mkhct_policy_see(p, &tensors[TENSORS - 1], NULL), HCT_OK);
	assert_int_equal(mkhct_policy_ready(p, NULL), HCT_OK);
	assert_true(mkhct_policy_note(p, 0, &line));
	assert_non_null(strstr(line.text, "no name shows a layer"));
	assert_false(mkhct_policy_note(p, 1, &line));
	mkhct_policy_free(p);
}

static void test_layertype(void **state)
{
	static const struct {
		const char *name;
		double at_70, at_50, at_95;
	} cases[] = {
		{"model.embed_tokens.weight", 1, 1, 1},
		{"lm_head.weight", .9, .9, .9},
		{"model.layers.2.mlp.gate_proj.weight", .49, .40, .665},
		{"model.layers.2.mlp.down_proj.weight", .49, .40, .665},
		{"model.layers.2.self_attn.q_proj.weight", .7, .5, .95},
		{"model.layers.2.self_attn.k_proj.weight", .7, .5, .95},
		{"model.layers.2.self_attn.v_proj.weight", .77, .55, 1},
		{"model.layers.2.self_attn.o_proj.weight", .77, .55, 1},
		{"model.layers.2.self_attn.qkv_proj.weight", .77, .55, 1},
		{"model.layers.2.mlp.router.weight", .7, .5, .95},
		{"model.layers.2.mystery", .7, .5, .95},
	};
	static const double bases[] = {.70, .50, .95};

	(void)state;
	for (int b = 0; b < 3; b++) {
		struct mkhct_policy_options o =
			options(MKHCT_POLICY_LAYERTYPE, MKHCT_WISH_RETENTION, bases[b]);
		struct mkhct_policy *p = shown(&o, NULL);

		for (size_t i = 0; i < COUNT(cases); i++)
			assert_retention(p, cases[i].name,
					 b == 0   ? cases[i].at_70
					 : b == 1 ? cases[i].at_50
						  : cases[i].at_95);
		assert_reason(p, "lm_head.weight", "layertype: head");
		mkhct_policy_free(p);
	}
}

/* The base of a cosine is the retention with the same error. */
static void test_base_of_cosine(void **state)
{
	double d = mkhct_error_of_retention(.7);
	struct mkhct_policy_options o =
		options(MKHCT_POLICY_LAYERTYPE, MKHCT_WISH_COSINE, sqrt(1 - d));
	struct mkhct_policy *p = shown(&o, NULL);

	(void)state;
	assert_retention(p, "model.layers.2.self_attn.v_proj.weight", .77);
	assert_retention(p, "model.layers.2.self_attn.q_proj.weight", .7);
	mkhct_policy_free(p);
}

static void test_adaptive(void **state)
{
	struct mkhct_policy_options o = options(MKHCT_POLICY_ADAPTIVE, MKHCT_WISH_RETENTION, .7);
	struct mkhct_policy *p;
	struct mkhct_decision d;

	(void)state;
	o.quality = .9;
	p = shown(&o, NULL);
	d = decide(p, "model.layers.2.mystery");
	assert_int_equal(d.target.kind, MKHCT_TARGET_ADAPTIVE);
	assert_true(d.target.quality == .9);
	assert_string_equal(d.reason, "adaptive: to 0.9 of its energy");
	mkhct_policy_free(p);
	/* Without one, that of the wish. */
	o.quality = 0;
	p = shown(&o, NULL);
	d = decide(p, "model.layers.2.mystery");
	assert_int_equal(d.target.kind, MKHCT_TARGET_ADAPTIVE);
	assert_true(fabs(d.target.quality - (1 - mkhct_error_of_retention(.7))) < 1e-12);
	mkhct_policy_free(p);
	o.wish.value = 1;
	p = shown(&o, NULL);
	assert_retention(p, "model.layers.2.mystery", 1);
	mkhct_policy_free(p);
}

static void test_importance_by_kind(void **state)
{
	struct mkhct_policy_options o = options(MKHCT_POLICY_IMPORTANCE, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p = shown(&o, NULL);

	(void)state;
	assert_retention(p, "model.embed_tokens.weight", .6 * .975 * 1.5);
	assert_retention(p, "lm_head.weight", .6 * .95 * 1.2);
	assert_retention(p, "model.layers.0.self_attn.v_proj.weight", .6 * .9 * 1.2);
	assert_retention(p, "model.layers.0.self_attn.q_proj.weight", .6 * .875);
	assert_retention(p, "model.layers.0.self_attn.qkv_proj.weight", .6 * .875);
	assert_retention(p, "model.layers.0.mlp.gate_proj.weight", .6 * .75 * .7);
	assert_retention(p, "model.layers.0.mystery", .6 * .75);
	assert_reason(p, "lm_head.weight", "importance 0.9, high: head");
	mkhct_policy_free(p);
}

static char file[] = "/tmp/hct-policy-XXXXXX";

static void write_importance(const char *text)
{
	int fd;
	size_t n = strlen(text);

	strcpy(file + strlen(file) - 6, "XXXXXX");
	fd = mkstemp(file);
	assert_true(fd >= 0 && write(fd, text, n) == (ssize_t)n);
	close(fd);
}

static void test_importance_file(void **state)
{
	struct mkhct_policy_options o = options(MKHCT_POLICY_IMPORTANCE, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p;
	struct hct_diag diag;

	(void)state;
	o.importance = file;
	write_importance("{\"version\": 1, \"tensors\": {\n"
			 "\"lm_head.weight\": {\"importance\": 0, \"sensitivity\": \"very_low\"},\n"
			 "\"model.norm.weight\": {\"importance\": 0},\n"
			 "\"stranger\": {\"importance\": 1}}}");
	p = shown(&o, NULL);
	assert_retention(p, "lm_head.weight", .15);
	assert_retention(p, "model.norm.weight", 1); /* exact in every policy */
	assert_retention(p, "model.layers.0.mystery", .45);
	assert_reason(p, "lm_head.weight", "importance 0, very_low: file");
	assert_true(mkhct_policy_note(p, 0, &diag));
	assert_non_null(strstr(diag.text, "1 of its tensors is not in the model; the first is "
					  "stranger"));
	assert_false(mkhct_policy_note(p, 1, &diag));
	mkhct_policy_free(p);
	unlink(file);

	write_importance("{\"version\": 1, \"tensors\": {\"a\": {\"importance\": 0},\n"
			 "\"b\": {\"importance\": 0}}}");
	assert_int_equal(show(&o, NULL, &p, &diag), HCT_ERR_ARGUMENT);
	assert_non_null(strstr(diag.text, "names no tensor of the model; the first is a"));
	unlink(file);

	write_importance("{\"version\": 1, \"tensors\": {\n\"a\": {\"importance\": 7}}}");
	assert_int_equal(show(&o, NULL, &p, &diag), HCT_ERR_ARGUMENT);
	assert_non_null(strstr(diag.text, ": line 2: a: the importance"));
	unlink(file);
	assert_int_equal(show(&o, NULL, &p, &diag), HCT_ERR_NOT_FOUND);
}

static void test_overrides(void **state)
{
	static struct mkhct_override overrides[] = {
		{"*.layers.3.*", {MKHCT_WISH_RETENTION, .9, 0}, 0},
		{"*.q_proj.*", {MKHCT_WISH_LOSSLESS, 0, 0}, 1},
		{"model.layers.3.self_attn.q_proj.weight", {MKHCT_WISH_COSINE, .9, 0}, 0},
		{"long_vector", {MKHCT_WISH_RETENTION, .5, 0}, 0},
		{"smal[l]", {MKHCT_WISH_RETENTION, .5, 0}, 0},
		{"lm_head.weight", {MKHCT_WISH_RETENTION, 1, 0}, 0},
		{"*.bias", {MKHCT_WISH_LOSSLESS, 0, 0}, 1},
	};
	struct mkhct_policy_options o = options(MKHCT_POLICY_HYBRID, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p;
	struct hct_diag line;

	(void)state;
	o.overrides = overrides;
	o.override_count = COUNT(overrides);
	p = shown(&o, NULL);
	assert_retention(p, "model.layers.3.self_attn.k_proj.weight", .9);
	assert_reason(p, "model.layers.3.self_attn.k_proj.weight", "--tensor *.layers.3.*");
	assert_retention(p, "model.layers.4.self_attn.q_proj.weight", 1);
	assert_reason(p, "model.layers.4.self_attn.q_proj.weight", "--keep *.q_proj.*");
	/* The last one counts. */
	assert_true(fabs(decide(p, "model.layers.3.self_attn.q_proj.weight").target.error - .19) <
		    1e-12);
	/* Wildcards leave exact tensors exact, a name does not. */
	assert_retention(p, "model.layers.3.input_layernorm.weight", 1);
	assert_reason(p, "model.layers.3.input_layernorm.weight", "norm");
	assert_retention(p, "long_vector", .5);
	assert_retention(p, "small", 1);
	assert_retention(p, "lm_head.weight", 1);
	assert_reason(p, "model.layers.3.self_attn.q_proj.bias", "--keep *.bias");
	assert_retention(p, "model.layers.4.mystery", .6);
	assert_true(mkhct_policy_note(p, 0, &line));
	assert_non_null(strstr(line.text, "--tensor *.layers.3.*: 2 of the tensors that it matches "
					  "are lossless in every policy"));
	assert_true(mkhct_policy_note(p, 1, &line));
	assert_non_null(strstr(line.text, "--tensor smal[l]: matches only tensors that are "));
	assert_false(mkhct_policy_note(p, 2, &line));
	mkhct_policy_free(p);
}

static void assert_refused(const struct mkhct_policy_options *o, const char *message)
{
	struct mkhct_policy *p = NULL;
	struct hct_diag diag = {""};

	assert_int_equal(show(o, NULL, &p, &diag), HCT_ERR_ARGUMENT);
	assert_null(p);
	if (!strstr(diag.text, message))
		fail_msg("'%s' is not in: %s", message, diag.text);
}

static void test_refused(void **state)
{
	static struct mkhct_override one = {"lm_head", {MKHCT_WISH_RETENTION, .9, 0}, 0};
	struct mkhct_policy_options o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_RETENTION, .6);

	(void)state;
	o.overrides = &one;
	o.override_count = 1;
	assert_refused(&o, "--tensor lm_head: matches no tensor of the model");
	one.keep = 1;
	assert_refused(&o, "--keep lm_head: matches no tensor of the model");
	one = (struct mkhct_override){"ids", {MKHCT_WISH_RETENTION, .9, 0}, 0};
	assert_refused(&o, "--tensor ids: the tensor is I64 and can only be lossless");
	one.pattern = "nothing";
	assert_refused(&o, "--tensor nothing: the tensor is empty and can only be lossless");
	o = options(MKHCT_POLICY_HYBRID, MKHCT_WISH_BPW, 4);
	assert_refused(&o, "--policy hybrid: sets the error of each tensor, which --bpw leaves");
	o = options(MKHCT_POLICY_IMPORTANCE, MKHCT_WISH_SIZE, 4000);
	assert_refused(&o, "--policy importance: sets the error of each tensor, which --size");
	o = options(MKHCT_POLICY_ADAPTIVE, MKHCT_WISH_LOSSLESS, 0);
	assert_refused(&o, "--policy adaptive: has nothing to do with --lossless");
}

/* A reason goes to terminals and reports. */
static void test_reasons_are_printable(void **state)
{
	static char pattern[2000];
	static struct mkhct_override one = {pattern, {MKHCT_WISH_LOSSLESS, 0, 0}, 1};
	struct mkhct_policy_options o = options(MKHCT_POLICY_UNIFORM, MKHCT_WISH_RETENTION, .6);
	struct mkhct_policy *p;
	struct mkhct_decision d;

	(void)state;
	memset(pattern, '*', sizeof(pattern) - 1);
	memcpy(pattern + 10, "[!\x1b\xff]", 5);
	o.overrides = &one;
	o.override_count = 1;
	p = shown(&o, NULL);
	d = decide(p, "lm_head.weight");
	assert_null(strchr(d.reason, '\x1b'));
	assert_null(strchr(d.reason, '\xff'));
	assert_true(strlen(d.reason) < MKHCT_REASON_MAX);
	mkhct_policy_free(p);
}

/* Layers of one part are not those of another. */
static void test_parts(void **state)
{
	static const char *const layers[] = {"layers.0.w", "layers.1.w", "layers.2.w",
					     "layers.3.w"};
	struct mkhct_policy_options o = options(MKHCT_POLICY_HYBRID, MKHCT_WISH_RETENTION, .5);
	uint64_t shape[2] = {100, 100};
	struct hct_tensor t = {.dtype_name = "F32",
			       .dtype = HCT_DTYPE_F32,
			       .rank = 2,
			       .shape = shape,
			       .elements = 10000};
	static const char config[] = "{\"num_hidden_layers\": 9}";
	struct mkhct_policy *p;
	struct mkhct_decision d;

	(void)state;
	assert_int_equal(mkhct_policy_create(&o, config, strlen(config), &p, NULL), HCT_OK);
	for (int i = 0; i < 4; i++) {
		t.name = (char *)layers[i];
		assert_int_equal(mkhct_policy_see(p, &t, NULL), HCT_OK);
	}
	assert_int_equal(mkhct_policy_begin(p, NULL, 0, NULL), HCT_OK);
	for (int i = 0; i < 3; i++) {
		t.name = (char *)layers[i];
		assert_int_equal(mkhct_policy_see(p, &t, NULL), HCT_OK);
	}
	assert_int_equal(mkhct_policy_ready(p, NULL), HCT_OK);
	t.name = (char *)layers[2];
	mkhct_policy_decide(p, 0, &t, &d);
	assert_true(d.target.kind == MKHCT_TARGET_ERROR && d.target.retention == .8);
	mkhct_policy_decide(p, 1, &t, &d);
	assert_int_equal(d.target.kind, MKHCT_TARGET_LOSSLESS);
	assert_true(mkhct_policy_importance_checksum(p) == 0);
	mkhct_policy_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_in_every_policy),
		cmocka_unit_test(test_uniform),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_hybrid),
		cmocka_unit_test(test_hybrid_without_layers),
		cmocka_unit_test(test_layertype),
		cmocka_unit_test(test_base_of_cosine),
		cmocka_unit_test(test_adaptive),
		cmocka_unit_test(test_importance_by_kind),
		cmocka_unit_test(test_importance_file),
		cmocka_unit_test(test_overrides),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_reasons_are_printable),
		cmocka_unit_test(test_parts),
	};

	return cmocka_run_group_tests(tests, make_model, NULL);
}
