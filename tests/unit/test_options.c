/* options.h: the command line of mkhct, and that help, manual page and completions agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/options.h"

#define MAX_WORDS 32
#define MAX_TEXT  65536

/* Splits words at blanks into an argv of its own; '_' stands for an empty word. */
static int split(const char *words, char *buf, char **argv)
{
	int n = 0;

	strcpy(buf, words);
	argv[n++] = (char *)"mkhct";
	for (char *w = strtok(buf, " "); w && n < MAX_WORDS - 1; w = strtok(NULL, " "))
		argv[n++] = strcmp(w, "_") == 0 ? w + 1 : w;
	argv[n] = NULL;
	return n;
}

static char buffer[1024]; /* what the options point into */

static struct mkhct_options parsed(const char *words)
{
	struct mkhct_options o;
	struct hct_diag diag = {""};
	char *argv[MAX_WORDS];
	int argc = split(words, buffer, argv);

	if (mkhct_options_parse(argc, argv, &o, &diag) != HCT_OK)
		fail_msg("%s: %s", words, diag.text);
	return o;
}

static void test_defaults(void **state)
{
	struct mkhct_options o = parsed("a b");

	(void)state;
	assert_int_equal(o.action, MKHCT_RUN);
	assert_string_equal(o.source, "a");
	assert_string_equal(o.out, "b");
	assert_true(o.jobs >= 1);
	assert_string_equal(o.gpu, "auto");
	assert_false(o.force || o.quiet || o.verbose || o.json || o.dry_run);
	assert_true(o.quality_sample == .05);
	assert_int_equal(o.policy.wish.kind, MKHCT_WISH_RETENTION);
	assert_true(o.policy.wish.value == .70);
	assert_int_equal(o.policy.kind, MKHCT_POLICY_UNIFORM);
	assert_true(o.policy.quality == 0);
	assert_null(o.policy.importance);
	assert_int_equal(o.policy.override_count, 0);
	assert_int_equal(o.coding.effort, 5);
	assert_int_equal(o.coding.transform, MKHCT_TRANSFORM_AUTO);
	assert_int_equal(o.coding.encoder, MKHCT_ENCODER_AUTO);
	assert_true(o.coding.fp16_ratio == .20);
	assert_int_equal(o.coding.layers, 1);
	mkhct_options_free(&o);
	mkhct_options_free(&o);
}

static void test_wishes(void **state)
{
	static const struct {
		const char *words;
		enum mkhct_wish_kind kind;
		double value;
	} cases[] = {
		{"--lossless a b", MKHCT_WISH_LOSSLESS, 0},
		{"--retention .5 a b", MKHCT_WISH_RETENTION, .5},
		{"a --retention=1 b", MKHCT_WISH_RETENTION, 1},
		{"a b --cosine .999", MKHCT_WISH_COSINE, .999},
		{"--snr 20 a b", MKHCT_WISH_SNR, 20},
		{"--bpw 3.5 a b", MKHCT_WISH_BPW, 3.5},
		{"--size 1.5K a b", MKHCT_WISH_SIZE, 1536},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mkhct_options o = parsed(cases[i].words);

		assert_int_equal(o.policy.wish.kind, cases[i].kind);
		assert_true(o.policy.wish.value == cases[i].value);
		assert_string_equal(o.source, "a");
		mkhct_options_free(&o);
	}
}

static void test_policies(void **state)
{
	static const char *const words[] = {"uniform", "hybrid", "layertype", "adaptive",
					    "importance"};
	struct mkhct_options o;
	char line[64];

	(void)state;
	for (int k = 0; k < MKHCT_POLICY_COUNT; k++) {
		snprintf(line, sizeof(line), "--policy %s a b", words[k]);
		o = parsed(line);
		assert_int_equal(o.policy.kind, k);
		mkhct_options_free(&o);
	}
	o = parsed("--policy adaptive --target-quality .9 a b");
	assert_true(o.policy.quality == .9);
	mkhct_options_free(&o);
	/* A file is enough to ask for the policy. */
	o = parsed("--importance f.json a b");
	assert_int_equal(o.policy.kind, MKHCT_POLICY_IMPORTANCE);
	assert_string_equal(o.policy.importance, "f.json");
	mkhct_options_free(&o);
	o = parsed("--policy importance --importance f.json --snr 30 a b");
	assert_int_equal(o.policy.kind, MKHCT_POLICY_IMPORTANCE);
	mkhct_options_free(&o);
}

static void test_overrides(void **state)
{
	static const struct mkhct_override expected[] = {
		{"*.bias", {MKHCT_WISH_LOSSLESS, 0, 0}, 1},
		{"*mlp*", {MKHCT_WISH_RETENTION, .5, 0}, 0},
		{"a=b", {MKHCT_WISH_SNR, 20, 0}, 0},
		{"x", {MKHCT_WISH_LOSSLESS, 0, 0}, 0},
	};
	struct mkhct_options o = parsed("--keep *.bias --tensor *mlp*=.5 a --tensor=a=b=snr:20 b "
					"--tensor x=lossless --lossless");

	(void)state;
	assert_int_equal(o.policy.override_count, 4);
	for (size_t i = 0; i < 4; i++) {
		const struct mkhct_override *x = &o.policy.overrides[i];

		assert_string_equal(x->pattern, expected[i].pattern);
		assert_int_equal(x->wish.kind, expected[i].wish.kind);
		assert_true(x->wish.value == expected[i].wish.value);
		assert_int_equal(x->keep, expected[i].keep);
	}
	mkhct_options_free(&o);
	assert_null(o.policy.overrides);
}

static void test_coding(void **state)
{
	struct mkhct_options o = parsed("--effort 9 --transform dct --encoder mixed "
					"--fp16-ratio .5 a b");
	static const char *const encoders[] = {"auto", "tcq", "topk", "mixed", "svd", "int4"};

	(void)state;
	assert_int_equal(o.coding.effort, 9);
	assert_int_equal(o.coding.transform, MKHCT_TRANSFORM_DCT);
	assert_int_equal(o.coding.encoder, MKHCT_ENCODER_MIXED);
	assert_true(o.coding.fp16_ratio == .5);
	assert_int_equal(o.coding.layers, 1);
	mkhct_options_free(&o);
	o = parsed("--layers 4 a b");
	assert_int_equal(o.coding.layers, 4);
	mkhct_options_free(&o);
	for (int e = 0; e < 6; e++) {
		char line[64];

		snprintf(line, sizeof(line), "--encoder %s a b", encoders[e]);
		o = parsed(line);
		assert_int_equal(o.coding.encoder, e);
		assert_string_equal(mkhct_encoder_name(o.coding.encoder), encoders[e]);
		mkhct_options_free(&o);
	}
	o = parsed("--transform none a b");
	assert_string_equal(mkhct_transform_name(o.coding.transform), "none");
	mkhct_options_free(&o);
}

static void test_running(void **state)
{
	struct mkhct_options o = parsed("-j7 -fv --json --quality-sample 1 a b");

	(void)state;
	assert_int_equal(o.jobs, 7);
	assert_true(o.force && o.verbose && o.json && !o.quiet);
	assert_true(o.quality_sample == 1);
	mkhct_options_free(&o);
	o = parsed("--gpu 3 a b");
	assert_string_equal(o.gpu, "3");
	assert_int_equal(o.recipe_word_count, 0);
	mkhct_options_free(&o);
	o = parsed("--memory 767M a b"); /* which is too little for a GPU */
	assert_string_equal(o.gpu, "off");
	mkhct_options_free(&o);
	/* A dry run needs no place to write to. */
	o = parsed("--dry-run a");
	assert_true(o.dry_run);
	assert_null(o.out);
	mkhct_options_free(&o);
	o = parsed("--dry-run a b");
	assert_string_equal(o.out, "b");
	mkhct_options_free(&o);
	o = parsed("--keep x --help");
	assert_int_equal(o.action, MKHCT_HELP);
	mkhct_options_free(&o);
	o = parsed("-V --nonsense");
	assert_int_equal(o.action, MKHCT_VERSION);
	mkhct_options_free(&o);
	o = parsed("-- --lossless b");
	assert_string_equal(o.source, "--lossless");
	mkhct_options_free(&o);
}

static const struct {
	const char *words, *message;
} refused[] = {
	{"", "SRC is missing"},
	{"a", "OUT is missing"},
	{"--dry-run", "SRC is missing"},
	{"a b c", "'c' is one argument too many"},
	{"_ b", "SRC is empty"},
	{"a _", "OUT is empty"},
	{"--dry-run a _", "OUT is empty"},
	{"--nonsense a b", "--nonsense: no such option"},
	{"-z a b", "-z: no such option"},
	{"--lossless=1 a b", "--lossless=1: this option takes no value"},
	{"--dry-run=1 a", "--dry-run=1: this option takes no value"},
	{"a b -j", "-j: needs a number of threads"},
	{"a b --retention", "--retention: needs a retention"},
	{"a b --snr", "--snr: needs a number of decibels"},
	{"a b --size", "--size: needs a size"},
	{"a b --policy", "--policy: needs a name"},
	{"a b --importance", "--importance: needs a file"},
	{"a b --keep", "--keep: needs a pattern"},
	{"a b --tensor", "--tensor: needs a PATTERN=TARGET"},
	{"a b --effort", "--effort: needs a level of effort"},
	{"a b --layers", "--layers: needs a number of layers"},
	{"-j0 a b", "--jobs: '0' is no number of threads (1 to 1024)"},
	{"-j1025 a b", "--jobs: '1025' is no number of threads"},
	{"-j2.5 a b", "--jobs: '2.5' is no number of threads"},
	{"--gpu first a b", "--gpu: 'first' is no GPU (auto, off, or a number from 0)"},
	{"--gpu=_ a b", "--gpu: '_' is no GPU"},
	{"--gpu 0 --memory 767M a b", "--gpu: its driver takes memory, too"},
	{"--retention 1.5 a b", "--retention: '1.5' is no retention (above 0, at most 1)"},
	{"--retention 0 a b", "--retention: '0' is no retention"},
	{"--retention=_ a b", "--retention: '_' is no retention"},
	{"--cosine 1 a b", "--cosine: '1' is no cosine (between 0 and 1)"},
	{"--snr -3 a b", "--snr: '-3' is no number of decibels"},
	{"--bpw .5 a b", "--bpw: '.5' is no number of bits a weight (1 to 16)"},
	{"--size lots a b", "--size: 'lots' is no size"},
	{"--retention .5 --cosine .9 a b", "--retention and --cosine exclude each other; give one"},
	{"--lossless --size 3G a b", "--lossless and --size exclude each other"},
	{"--bpw 3 --bpw 4 a b", "--bpw is given twice"},
	{"--policy best a b", "--policy: 'best' is not known (uniform, hybrid, layertype, "
			      "adaptive or importance)"},
	{"--policy Uniform a b", "--policy: 'Uniform' is not known"},
	{"--policy hybrid --lossless a b", "--policy hybrid: has nothing to do with --lossless"},
	{"--policy hybrid --bpw 3 a b", "--policy hybrid: sets the error of each tensor, "
					"which --bpw leaves open"},
	{"--importance f --size 3G a b", "--policy importance: sets the error"},
	{"--importance f --policy hybrid a b",
	 "--importance: only --policy importance reads a file"},
	{"--importance _ a b", "--importance: the name is empty"},
	{"--target-quality .9 a b", "--target-quality: give --policy adaptive with it"},
	{"--target-quality 1 --policy adaptive a b", "'1' is no quality (between 0 and 1)"},
	{"--policy adaptive --target-quality .9 --snr 20 a b",
	 "--snr and --target-quality exclude each other"},
	{"--keep _ a b", "--keep: the pattern is empty"},
	{"--tensor x a b", "--tensor: 'x' is no PATTERN=TARGET"},
	{"--tensor =.5 a b", "--tensor: the pattern is empty"},
	{"--tensor x=2 a b", "--tensor: '2' is no retention"},
	{"--tensor x= a b", "--tensor: '' is no target"},
	{"--tensor x=bpw:3 a b", "--tensor: 'bpw:3' is no target"},
	{"--keep y --tensor x=snr:0 a b", "--tensor: '0' is no number of decibels"},
	{"--effort 0 a b", "--effort: '0' is no level of effort (1 to 9)"},
	{"--effort 10 a b", "--effort: '10' is no level of effort"},
	{"--effort 5.5 a b", "--effort: '5.5' is no level of effort"},
	{"--transform dst a b", "--transform: 'dst' is not known (auto, none or dct)"},
	{"--encoder zip a b",
	 "--encoder: 'zip' is not known (auto, tcq, topk, mixed, svd or int4)"},
	{"--fp16-ratio .3 a b", "--fp16-ratio: give --encoder mixed with it"},
	{"--encoder mixed --fp16-ratio 1.1 a b", "'1.1' is no fraction (0 to 1)"},
	{"--layers 5 a b", "--layers: '5' is no number of layers (1 to 4)"},
	{"--quality-sample -1 a b", "--quality-sample: '-1' is no fraction (0 to 1)"},
	{"-q -v a b", "--quiet and --verbose exclude each other"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct mkhct_options o;
		struct hct_diag diag = {""};
		char *argv[MAX_WORDS];
		int argc = split(refused[i].words, buffer, argv);
		hct_error err = mkhct_options_parse(argc, argv, &o, &diag);

		if (err != HCT_ERR_ARGUMENT || !strstr(diag.text, refused[i].message))
			fail_msg("mkhct %s: error %d, '%s', not: %s", refused[i].words, err,
				 diag.text, refused[i].message);
		assert_null(o.policy.overrides);
	}
}

static void test_help_fits_a_terminal(void **state)
{
	(void)state;
	for (const char *s = mkhct_options_help; *s;) {
		size_t n = strcspn(s, "\n");

		if (n > 80)
			fail_msg("%zu columns: %.*s", n, (int)n, s);
		s += n + 1;
	}
}

/* The part of a file of the tree from one mark to another; NULL elsewhere than in the tree. */
static char *part_of(const char *path, const char *from, const char *to)
{
	FILE *f = fopen(path, "r");
	char *text, *start, *end;

	if (!f)
		return NULL;
	text = calloc(1, MAX_TEXT);
	assert_true(fread(text, 1, MAX_TEXT - 1, f) > 0);
	fclose(f);
	start = strstr(text, from);
	end = start ? strstr(start, to) : NULL;
	if (!end)
		fail_msg("%s has no part from '%s' to '%s'", path, from, to);
	*end = '\0';
	memmove(text, start, (size_t)(end - start) + 1);
	return text;
}

/* 1 when text has the option --word, as dashes spell it and nothing longer. */
static int has_option(const char *text, const char *dashes, const char *word, size_t n)
{
	char option[64];
	size_t length;

	snprintf(option, sizeof(option), "%s%.*s", dashes, (int)n, word);
	length = strlen(option);
	for (const char *s = text; (s = strstr(s, option)); s++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", s[length]) || !s[length])
			return 1;
	return 0;
}

/* Every option that one text has, the other has as well. */
static void assert_covers(const char *path, const char *a, const char *a_dashes, const char *b,
			  const char *b_dashes)
{
	unsigned count = 0;

	for (const char *s = a; (s = strstr(s, a_dashes)); count++) {
		size_t n;

		s += strlen(a_dashes);
		n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");
		if (n && !has_option(b, b_dashes, s, n))
			fail_msg("%s: --%.*s is missing in one of it and --help", path, (int)n, s);
	}
	assert_true(count >= 25);
}

static void test_all_texts_have_all_options(void **state)
{
	static const struct {
		const char *path, *from, *to, *dashes;
	} texts[] = {
		{"contrib/completion.bash", "_mkhct()", "_hctfs()", "--"},
		{"contrib/completion.zsh", "common=(", "hctfs)\n", "--"},
		{"writer/mkhct.1", "The options are:", ".Ss When", "Fl -"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		char *text = part_of(texts[i].path, texts[i].from, texts[i].to);

		if (!text)
			skip();
		assert_covers(texts[i].path, mkhct_options_help, "--", text, texts[i].dashes);
		assert_covers(texts[i].path, text, texts[i].dashes, mkhct_options_help, "--");
		free(text);
	}
}

/* What help speaks of is parsed. */
static void test_help_has_what_is_parsed(void **state)
{
	static const char *const flags[] = {"lossless", "dry-run", "json", "force", "quiet"};

	(void)state;
	for (const char *s = mkhct_options_help; (s = strstr(s, "--"));) {
		char word[64], *argv[] = {(char *)"mkhct", word, NULL};
		struct mkhct_options o;
		struct hct_diag diag = {""};
		size_t n = 2 + strspn(s + 2, "abcdefghijklmnopqrstuvwxyz0123456789-");

		snprintf(word, sizeof(word), "%.*s", (int)n, s);
		s += n;
		mkhct_options_parse(2, argv, &o, &diag);
		if (strstr(diag.text, "no such option"))
			fail_msg("%s", diag.text);
		mkhct_options_free(&o);
	}
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		assert_true(has_option(mkhct_options_help, "--", flags[i], strlen(flags[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_wishes),
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_overrides),
		cmocka_unit_test(test_coding),
		cmocka_unit_test(test_running),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_help_fits_a_terminal),
		cmocka_unit_test(test_all_texts_have_all_options),
		cmocka_unit_test(test_help_has_what_is_parsed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
