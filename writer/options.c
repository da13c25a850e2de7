#include "options.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/backend.h"
#include "codec/pool.h"
#include "writer/memory.h"
#include "writer/number.h"
#include "writer/recipe.h"

#define MAX_JOBS 1024

static const char *const transforms[] = {[MKHCT_TRANSFORM_AUTO] = "auto",
					 [MKHCT_TRANSFORM_NONE] = "none",
					 [MKHCT_TRANSFORM_DCT] = "dct"};

static const char *const encoders[] = {
	[MKHCT_ENCODER_AUTO] = "auto", [MKHCT_ENCODER_TCQ] = "tcq",
	[MKHCT_ENCODER_TOPK] = "topk", [MKHCT_ENCODER_MIXED] = "mixed",
	[MKHCT_ENCODER_SVD] = "svd",   [MKHCT_ENCODER_INT4] = "int4"};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

const char *mkhct_transform_name(enum mkhct_transform t)
{
	return transforms[t];
}

const char *mkhct_encoder_name(enum mkhct_encoder e)
{
	return encoders[e];
}

static const struct mkhct_range jobs_range = {"number of threads", "1 to 1024", 1, MAX_JOBS,
					      .whole = 1};
static const struct mkhct_range quality_range = {"quality", "between 0 and 1", 0,
						 1,         .open_low = 1,     .open_high = 1};
static const struct mkhct_range effort_range = {"level of effort", "1 to 9", 1, 9, .whole = 1};
static const struct mkhct_range layers_range = {"number of layers", "1 to 4", 1, 4, .whole = 1};
static const struct mkhct_range tensors_range = {"number of tensors", "1 to 1000000", 1, 1e6,
						 .whole = 1};
static const struct mkhct_range seconds_range = {"number of seconds", "0 to 86400", .low = 0,
						 .high = 86400};
static const struct mkhct_range fraction_range = {"fraction", "0 to 1", .low = 0, .high = 1};

enum form {
	FORM_STOP,
	FORM_FLAG,
	FORM_WISH,
	FORM_WHOLE,
	FORM_NUMBER,
	FORM_WORD,
	FORM_SIZE,
	FORM_OVERRIDE,
	FORM_SELECTION
};

/* The codes of options without a letter begin behind all letters. */
enum {
	FIRST_CODE = 256,
	CODE_WISH = FIRST_CODE, /* and one for each wish */
	CODE_POLICY = CODE_WISH + MKHCT_WISH_COUNT,
	CODE_QUALITY,
	CODE_IMPORTANCE,
	CODE_KEEP,
	CODE_TENSOR,
	CODE_EFFORT,
	CODE_TRANSFORM,
	CODE_ENCODER,
	CODE_FP16_RATIO,
	CODE_LAYERS,
	CODE_EXCLUDE,
	CODE_INCLUDE,
	CODES_OF_RECIPE_END, /* those before this one decide about the bundle's bytes */
	CODE_RESTART,
	CODE_INTERVAL,
	CODE_SHARDS,
	CODE_FINISH,
	CODE_VERIFY,
	CODE_MEMORY,
	CODE_GPU,
	CODE_LOG,
	CODE_DRY_RUN,
	CODE_QUALITY_SAMPLE,
	CODE_JSON,
	CODES_END
};

/* An option: FLAG sets an int to 1, WHOLE an int, NUMBER a double, SIZE a uint64_t and WORD an
 * enum or what its own function makes of it, at `at` of struct mkhct_options; STOP ends parsing
 * with an action. */
struct spec {
	const char *name;
	int code;
	enum form form;
	size_t at;
	const struct mkhct_range *range;
};

#define AT(member) offsetof(struct mkhct_options, member)

static const struct spec specs[] = {
	{"lossless", CODE_WISH + MKHCT_WISH_LOSSLESS, FORM_WISH, 0, NULL},
	{"retention", CODE_WISH + MKHCT_WISH_RETENTION, FORM_WISH, 0, NULL},
	{"cosine", CODE_WISH + MKHCT_WISH_COSINE, FORM_WISH, 0, NULL},
	{"snr", CODE_WISH + MKHCT_WISH_SNR, FORM_WISH, 0, NULL},
	{"bpw", CODE_WISH + MKHCT_WISH_BPW, FORM_WISH, 0, NULL},
	{"size", CODE_WISH + MKHCT_WISH_SIZE, FORM_WISH, 0, NULL},
	{"policy", CODE_POLICY, FORM_WORD, AT(policy.kind), NULL},
	{"target-quality", CODE_QUALITY, FORM_NUMBER, AT(policy.quality), &quality_range},
	{"importance", CODE_IMPORTANCE, FORM_WORD, AT(policy.importance), NULL},
	{"keep", CODE_KEEP, FORM_OVERRIDE, 0, NULL},
	{"tensor", CODE_TENSOR, FORM_OVERRIDE, 0, NULL},
	{"effort", CODE_EFFORT, FORM_WHOLE, AT(coding.effort), &effort_range},
	{"transform", CODE_TRANSFORM, FORM_WORD, AT(coding.transform), NULL},
	{"encoder", CODE_ENCODER, FORM_WORD, AT(coding.encoder), NULL},
	{"fp16-ratio", CODE_FP16_RATIO, FORM_NUMBER, AT(coding.fp16_ratio), &fraction_range},
	{"layers", CODE_LAYERS, FORM_WHOLE, AT(coding.layers), &layers_range},
	{"exclude", CODE_EXCLUDE, FORM_SELECTION, 0, NULL},
	{"include", CODE_INCLUDE, FORM_SELECTION, 0, NULL},
	{"restart", CODE_RESTART, FORM_FLAG, AT(restart), NULL},
	{"checkpoint-interval", CODE_INTERVAL, FORM_WORD, 0, NULL},
	{"shards", CODE_SHARDS, FORM_WORD, 0, NULL},
	{"finish", CODE_FINISH, FORM_FLAG, AT(finish), NULL},
	{"verify", CODE_VERIFY, FORM_FLAG, AT(verify), NULL},
	{"memory", CODE_MEMORY, FORM_SIZE, AT(memory), NULL},
	{"gpu", CODE_GPU, FORM_WORD, AT(gpu), NULL},
	{"log", CODE_LOG, FORM_WORD, AT(log), NULL},
	{"dry-run", CODE_DRY_RUN, FORM_FLAG, AT(dry_run), NULL},
	{"quality-sample", CODE_QUALITY_SAMPLE, FORM_NUMBER, AT(quality_sample), &fraction_range},
	{"jobs", 'j', FORM_WHOLE, AT(jobs), &jobs_range},
	{"force", 'f', FORM_FLAG, AT(force), NULL},
	{"quiet", 'q', FORM_FLAG, AT(quiet), NULL},
	{"verbose", 'v', FORM_FLAG, AT(verbose), NULL},
	{"json", CODE_JSON, FORM_FLAG, AT(json), NULL},
	{"version", 'V', FORM_STOP, MKHCT_VERSION, NULL},
	{"help", 'h', FORM_STOP, MKHCT_HELP, NULL},
};

struct parse {
	struct mkhct_options *out;
	const char *wish;               /* the option that gave the wish, without dashes, or NULL */
	unsigned char given[CODES_END]; /* by code */
	size_t words_max;
	struct hct_diag *diag;
};

static const struct spec *find_spec(int code)
{
	for (size_t i = 0; i < COUNT(specs); i++)
		if (specs[i].code == code)
			return &specs[i];
	return NULL;
}

static int takes_value(const struct spec *s)
{
	return s->form != FORM_STOP && s->form != FORM_FLAG &&
	       s->code != CODE_WISH + MKHCT_WISH_LOSSLESS;
}

/* What an option without its value lacks. */
static const char *value_noun(const struct spec *s)
{
	if (s->range)
		return s->range->noun;
	if (s->form == FORM_WISH)
		return mkhct_wish_noun((enum mkhct_wish_kind)(s->code - CODE_WISH));
	switch (s->code) {
	case CODE_KEEP:
		return "pattern";
	case CODE_TENSOR:
		return "PATTERN=TARGET";
	case CODE_IMPORTANCE:
	case CODE_LOG:
		return "file";
	case CODE_EXCLUDE:
	case CODE_INCLUDE:
		return "pattern";
	case CODE_INTERVAL:
		return "number of tensors, or of seconds with an s behind it";
	case CODE_SHARDS:
		return "part I/N";
	case CODE_MEMORY:
		return "size";
	case CODE_GPU:
		return "number, or auto or off";
	default:
		return "name";
	}
}

static hct_error take_word(struct parse *p, const char *option, const char *text,
			   const char *const *words, size_t count, int *out)
{
	char list[128] = "";

	for (size_t i = 0; i < count; i++) {
		if (strcmp(text, words[i]) == 0) {
			*out = (int)i;
			return HCT_OK;
		}
		if (i)
			strcat(list, i + 1 < count ? ", " : " or ");
		strcat(list, words[i]);
	}
	return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: '%s' is not known (%s)", option, text,
			list);
}

/* N tensors, or Ns seconds. */
static hct_error take_interval(struct parse *p, const char *option, const char *text)
{
	size_t n = strlen(text);
	int seconds = n > 1 && text[n - 1] == 's';
	char *number = strndup(text, seconds ? n - 1 : n);
	double value = 0;
	hct_error err;

	if (!number)
		return hct_fail(p->diag, HCT_ERR_NOMEM, "out of memory for the options");
	err = mkhct_number_parse(option, number, seconds ? &seconds_range : &tensors_range, &value,
				 p->diag);
	free(number);
	p->out->interval_tensors = seconds ? 0 : (int)value;
	p->out->interval_seconds = seconds ? value : 0;
	return err;
}

/* I/N. */
static hct_error take_shards(struct parse *p, const char *option, const char *text)
{
	unsigned part, parts;
	int end = 0;

	if (!strchr("0123456789", *text) || sscanf(text, "%5u/%5u%n", &part, &parts, &end) != 2 ||
	    text[end] || strpbrk(text, "+- ") || part < 1 || part > parts)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT,
				"%s: '%s' is no part I/N (1/4 to 4/4 are the parts of four)",
				option, text);
	p->out->part = part;
	p->out->parts = parts;
	return HCT_OK;
}

static hct_error take_gpu(struct parse *p, const char *option, const char *text)
{
	if (hct_backend_check_gpu(text, NULL))
		return hct_fail(p->diag, HCT_ERR_ARGUMENT,
				"%s: '%s' is no GPU (auto, off, or a number from 0)", option, text);
	p->out->gpu = text;
	return HCT_OK;
}

static hct_error take_size(struct parse *p, const char *option, const char *text, uint64_t *out)
{
	struct mkhct_wish size;
	hct_error err = mkhct_wish_parse(MKHCT_WISH_SIZE, option, text, &size, p->diag);

	if (!err && size.bytes < MKHCT_MEMORY_LEAST)
		err = hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: '%s' is too little (256M or more)",
			       option, text);
	if (!err)
		*out = size.bytes;
	return err;
}

static hct_error take_selection(struct parse *p, const struct spec *s, const char *option,
				const char *text)
{
	struct mkhct_options *o = p->out;

	if (!*text)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: the pattern is empty", option);
	if (!o->selections)
		o->selections = calloc(p->words_max, sizeof(*o->selections));
	if (!o->selections)
		return hct_fail(p->diag, HCT_ERR_NOMEM, "out of memory for the options");
	o->selections[o->selection_count++] =
		(struct mkhct_selection){text, s->code == CODE_INCLUDE};
	return HCT_OK;
}

/* Before the value is cut in pieces. */
static hct_error keep_word(struct parse *p, const struct spec *s, const char *value)
{
	struct mkhct_options *o = p->out;
	char *word = NULL;

	if (!o->recipe_words)
		o->recipe_words = calloc(p->words_max, sizeof(*o->recipe_words));
	if (!o->recipe_words ||
	    asprintf(&word, "--%s%s%s", s->name, value ? "=" : "", value ? value : "") < 0)
		return hct_fail(p->diag, HCT_ERR_NOMEM, "out of memory for the options");
	o->recipe_words[o->recipe_word_count++] = word;
	return HCT_OK;
}

static hct_error take_named(struct parse *p, const struct spec *s, const char *option,
			    const char *text)
{
	const char *policies[MKHCT_POLICY_COUNT];
	struct mkhct_options *o = p->out;
	hct_error err = HCT_OK;
	int word = 0;

	switch (s->code) {
	case CODE_POLICY:
		for (int k = 0; k < MKHCT_POLICY_COUNT; k++)
			policies[k] = mkhct_policy_name((enum mkhct_policy_kind)k);
		err = take_word(p, option, text, policies, COUNT(policies), &word);
		o->policy.kind = (enum mkhct_policy_kind)word;
		break;
	case CODE_TRANSFORM:
		err = take_word(p, option, text, transforms, COUNT(transforms), &word);
		o->coding.transform = (enum mkhct_transform)word;
		break;
	case CODE_ENCODER:
		err = take_word(p, option, text, encoders, COUNT(encoders), &word);
		o->coding.encoder = (enum mkhct_encoder)word;
		break;
	case CODE_INTERVAL:
		return take_interval(p, option, text);
	case CODE_SHARDS:
		return take_shards(p, option, text);
	case CODE_GPU:
		return take_gpu(p, option, text);
	default: /* CODE_IMPORTANCE, CODE_LOG */
		if (!*text)
			err = hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: the name is empty", option);
		*(s->code == CODE_LOG ? &o->log : &o->policy.importance) = text;
	}
	return err;
}

static hct_error take_wish(struct parse *p, const struct spec *s, const char *option,
			   const char *text)
{
	if (p->wish && strcmp(p->wish, s->name) == 0)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s is given twice", option);
	if (p->wish)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT,
				"--%s and %s exclude each other; give one", p->wish, option);
	p->wish = s->name;
	return mkhct_wish_parse((enum mkhct_wish_kind)(s->code - CODE_WISH), option, text,
				&p->out->policy.wish, p->diag);
}

/* Cuts PATTERN=TARGET in argv at its last '=', since names may have one. */
static hct_error take_override(struct parse *p, const struct spec *s, const char *option,
			       char *text)
{
	struct mkhct_policy_options *o = &p->out->policy;
	struct mkhct_override next = {.pattern = text,
				      .wish = {.kind = MKHCT_WISH_LOSSLESS},
				      .keep = s->code == CODE_KEEP};
	hct_error err;

	if (!next.keep) {
		char *equals = strrchr(text, '=');

		if (!equals)
			return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: '%s' is no PATTERN=TARGET",
					option, text);
		*equals = '\0';
		err = mkhct_wish_parse_target(option, equals + 1, &next.wish, p->diag);
		if (err)
			return err;
	}
	if (!*text)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s: the pattern is empty", option);
	if (!o->overrides)
		o->overrides = calloc(p->words_max, sizeof(*o->overrides));
	if (!o->overrides)
		return hct_fail(p->diag, HCT_ERR_NOMEM, "out of memory for the options");
	o->overrides[o->override_count++] = next;
	return HCT_OK;
}

static hct_error take_option(struct parse *p, const struct spec *s, char *text)
{
	char *place = (char *)p->out + s->at;
	char option[32] = "--";
	hct_error err = HCT_OK;
	double number = 0;

	strcat(option, s->name);
	p->given[s->code] = 1;
	if (s->code >= FIRST_CODE && s->code < CODES_OF_RECIPE_END)
		err = keep_word(p, s, text);
	if (err)
		return err;
	switch (s->form) {
	case FORM_STOP:
		break;
	case FORM_FLAG:
		*(int *)(void *)place = 1;
		break;
	case FORM_WISH:
		return take_wish(p, s, option, text);
	case FORM_WHOLE:
		err = mkhct_number_parse(option, text, s->range, &number, p->diag);
		*(int *)(void *)place = (int)number;
		break;
	case FORM_NUMBER:
		err = mkhct_number_parse(option, text, s->range, &number, p->diag);
		*(double *)(void *)place = number;
		break;
	case FORM_WORD:
		return take_named(p, s, option, text);
	case FORM_SIZE:
		return take_size(p, option, text, (uint64_t *)(void *)place);
	case FORM_OVERRIDE:
		return take_override(p, s, option, text);
	case FORM_SELECTION:
		return take_selection(p, s, option, text);
	}
	return err;
}

/* getopt says in optopt what was wrong: 0 for a long option that it does not know, an
 * option that it knows when that has an argument it should not have. */
static hct_error bad_option(char **argv, struct hct_diag *diag)
{
	if (optopt == 0)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no such option", argv[optind - 1]);
	if (find_spec(optopt))
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: this option takes no value",
				argv[optind - 1]);
	return hct_fail(diag, HCT_ERR_ARGUMENT, "-%c: no such option", optopt);
}

static hct_error take_operands(int argc, char **argv, struct mkhct_options *out,
			       struct hct_diag *diag)
{
	int missing = 2 - (argc - optind);

	if (out->finish && missing <= 1) {
		if (missing < 1)
			return hct_fail(diag, HCT_ERR_ARGUMENT,
					"'%s' is one argument too many: --finish takes OUT alone",
					argv[optind + 1]);
		out->action = MKHCT_FINISH;
		out->out = argv[optind];
		return *out->out ? HCT_OK : hct_fail(diag, HCT_ERR_ARGUMENT, "OUT is empty");
	}
	if (missing == 2 || (missing == 1 && !out->dry_run))
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s is missing",
				missing == 2 && !out->finish ? "SRC" : "OUT");
	if (missing < 0)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "'%s' is one argument too many",
				argv[optind + 2]);
	out->source = argv[optind];
	out->out = missing ? NULL : argv[optind + 1];
	if (!*out->source || (out->out && !*out->out))
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s is empty",
				*out->source ? "OUT" : "SRC");
	return HCT_OK;
}

/* What each option by itself cannot know. */
/* The coders that do what they do, whatever error comes of it. */
static int is_literal(enum mkhct_encoder e)
{
	return e == MKHCT_ENCODER_TOPK || e == MKHCT_ENCODER_MIXED || e == MKHCT_ENCODER_INT4;
}

/* Options that the others make void, and that do no harm. */
static void take_notes(const struct parse *p)
{
	static const struct {
		int code;
		const char *note;
	} lossy[] = {
		{CODE_EFFORT, "--effort: has no effect, since everything is lossless"},
		{CODE_TRANSFORM, "--transform: has no effect, since everything is lossless"},
		{CODE_ENCODER, "--encoder: has no effect, since everything is lossless"},
		{CODE_FP16_RATIO, "--fp16-ratio: has no effect, since everything is lossless"},
		{CODE_LAYERS, "--layers: has no effect, since everything is lossless"},
		{CODE_GPU, "--gpu: has no effect, since everything is lossless"},
	};
	struct mkhct_options *o = p->out;
	const struct mkhct_wish *wish = &o->policy.wish;
	size_t n = 0;

	if (mkhct_recipe_is_lossless(o)) {
		for (size_t i = 0; i < COUNT(lossy); i++)
			if (p->given[lossy[i].code])
				o->notes[n++] = lossy[i].note;
		return;
	}
	if (o->coding.encoder != MKHCT_ENCODER_INT4)
		return;
	if (o->coding.transform == MKHCT_TRANSFORM_DCT)
		o->notes[n++] = "--transform dct: has no effect, since --encoder int4 has no "
				"transform";
	if ((p->wish && mkhct_wish_target(wish).kind != MKHCT_TARGET_LOSSLESS) ||
	    o->policy.quality > 0)
		o->notes[n++] = "--retention, --cosine, --snr and --target-quality: have no effect "
				"on the error, which with --encoder int4 is what 4 bits leave";
}

static hct_error check_together(const struct parse *p)
{
	struct mkhct_options *o = p->out;
	struct mkhct_policy_options *policy = &o->policy;
	const char *why = NULL;

	if (policy->importance && !p->given[CODE_POLICY])
		policy->kind = MKHCT_POLICY_IMPORTANCE;
	o->sample_given = p->given[CODE_QUALITY_SAMPLE];
	if (o->memory < MKHCT_MEMORY_GPU && strcmp(o->gpu, "auto") == 0)
		o->gpu = "off";
	if (o->quiet && o->verbose)
		why = "--quiet and --verbose exclude each other";
	else if (policy->importance && policy->kind != MKHCT_POLICY_IMPORTANCE)
		why = "--importance: only --policy importance reads a file; leave one out";
	else if (p->given[CODE_QUALITY] && policy->kind != MKHCT_POLICY_ADAPTIVE)
		why = "--target-quality: give --policy adaptive with it";
	else if (p->given[CODE_FP16_RATIO] && o->coding.encoder != MKHCT_ENCODER_MIXED)
		why = "--fp16-ratio: give --encoder mixed with it";
	else if (o->finish && (o->recipe_word_count || o->parts || o->restart || o->dry_run))
		why = "--finish: takes the options that the parts were made with";
	else if (o->parts && o->dry_run)
		why = "--shards: a dry run is always of everything; leave one out";
	else if (o->parts && o->force)
		why = "--shards and --force exclude each other: make room for OUT first";
	else if (is_literal(o->coding.encoder) && o->coding.layers > 1)
		why = "--layers: topk, mixed and int4 code one; leave --encoder out";
	else if (is_literal(o->coding.encoder) && mkhct_wish_is_budget(&policy->wish))
		why = "--bpw and --size: the size of topk, mixed and int4 does not follow an "
		      "error; "
		      "leave --encoder out";
	else if (o->memory < MKHCT_MEMORY_GPU && strcmp(o->gpu, "off") != 0)
		why = "--gpu: its driver takes memory, too; give --memory 768M or more, or leave "
		      "one out";
	if (why)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT, "%s", why);
	if (p->given[CODE_QUALITY] && p->wish)
		return hct_fail(p->diag, HCT_ERR_ARGUMENT,
				"--%s and --target-quality exclude each other; give one", p->wish);
	take_notes(p);
	return mkhct_policy_check(policy, p->diag);
}

static void make_longs(struct option *longs)
{
	for (size_t i = 0; i < COUNT(specs); i++)
		longs[i] = (struct option){specs[i].name,
					   takes_value(&specs[i]) ? required_argument : no_argument,
					   NULL, specs[i].code};
}

hct_error mkhct_options_parse(int argc, char **argv, struct mkhct_options *out,
			      struct hct_diag *diag)
{
	struct option longs[COUNT(specs) + 1] = {{NULL, 0, NULL, 0}};
	struct parse p = {.out = out, .words_max = (size_t)argc, .diag = diag};
	hct_error err = HCT_OK;
	int c;

	*out = (struct mkhct_options){
		.action = MKHCT_RUN,
		.quality_sample = .05,
		.memory = 1u << 30,
		.gpu = "auto",
		.interval_seconds = 10,
		.policy = {.wish = mkhct_wish_default()},
		.coding = {.effort = 5, .fp16_ratio = .20, .layers = 1},
	};
	make_longs(longs);
	optind = 0; /* glibc: start anew, also when it was called before */
	opterr = 0;
	while (!err && (c = getopt_long(argc, argv, ":j:fqvVh", longs, NULL)) != -1) {
		const struct spec *s = find_spec(c == ':' ? optopt : c);

		if (c == ':')
			err = hct_fail(diag, HCT_ERR_ARGUMENT, "%s: needs a %s", argv[optind - 1],
				       value_noun(s));
		else if (c == '?')
			err = bad_option(argv, diag);
		else
			err = take_option(&p, s, optarg);
		if (!err && s->form == FORM_STOP) {
			out->action = (enum mkhct_action)s->at;
			return HCT_OK;
		}
	}
	if (!err)
		err = take_operands(argc, argv, out, diag);
	if (!err)
		err = check_together(&p);
	if (err)
		mkhct_options_free(out);
	if (!out->jobs)
		out->jobs = hct_pool_default_threads();
	return err;
}

void mkhct_options_free(struct mkhct_options *o)
{
	free(o->policy.overrides);
	o->policy.overrides = NULL;
	o->policy.override_count = 0;
	free(o->selections);
	o->selections = NULL;
	o->selection_count = 0;
	for (size_t i = 0; i < o->recipe_word_count; i++)
		free(o->recipe_words[i]);
	free(o->recipe_words);
	o->recipe_words = NULL;
	o->recipe_word_count = 0;
}
