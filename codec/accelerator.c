#include "accelerator.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "plugin.h"
#include "search.h"

/* Groups that are worth a GPU: the CPU searches fewer in the time of two copies, a launch and
 * waking up. */
#define LEAST_GROUPS 256

#define TRIAL_GROUPS 9 /* of the search by which a GPU is tried */

struct hct_accelerator {
	struct hct_plugin plugin;
	const struct hct_device_search_class *search;
	int number;
	atomic_int works;
	char name[320];
	void (*log)(void *arg, const char *line);
	void *log_arg;
};

static void __attribute__((format(printf, 2, 3)))
say(const struct hct_accelerator *a, const char *format, ...)
{
	char line[sizeof a->name + sizeof(struct hct_diag) + 64];
	va_list args;

	if (!a->log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	a->log(a->log_arg, line);
}

/* From now on the CPU searches, for all encoders, and somebody hears why. */
static void give_up(struct hct_accelerator *a, const struct hct_diag *why)
{
	if (atomic_exchange(&a->works, 0))
		say(a, "%s: %s; from now on the CPU encodes", a->name, why->text);
}

/* Opening ------------------------------------------------------------------------------- */

/* What both are to find in the trial. */
struct trial {
	struct hct_viterbi v;
	float x[TRIAL_GROUPS * HCT_GROUP];
	uint8_t columns[1 + HCT_GROUP], map[TRIAL_GROUPS], codes[TRIAL_GROUPS * HCT_GROUP];
	struct hct_tcq_exception exceptions[TRIAL_GROUPS * HCT_GROUP];
	struct hct_viterbi_segment segment;
};

static void set_up(struct trial *t)
{
	struct hct_tcq_layer layer = {.states_log2 = 4,
				      .column_classes = 1,
				      .row_classes = 1,
				      .run_log2 = HCT_TCQ_MIN_STATES_LOG2,
				      .step = 1};

	for (unsigned p = 0; p < 2; p++)
		memset(layer.freq[0][0][p], HCT_RANS_TOTAL / HCT_TCQ_SYMBOLS, HCT_TCQ_SYMBOLS);
	hct_viterbi_init(&t->v, &layer, .35f);
	for (unsigned i = 0; i < TRIAL_GROUPS * HCT_GROUP; i++)
		t->x[i] = (float)(i * 7919 % 1021) / 16 - 32;
	t->segment = (struct hct_viterbi_segment){.x = t->x,
						  .groups = TRIAL_GROUPS,
						  .column_classes = t->columns,
						  .period = 1,
						  .map = t->map,
						  .run_log2 = layer.run_log2,
						  .choose = 1,
						  .codes = t->codes,
						  .exceptions = t->exceptions};
}

/* Whether the GPU finds what the CPU does.  It takes the memory that kernels need by the way. */
static hct_error try_out(const struct hct_device_search_class *search, hct_device_searcher *device,
			 struct hct_diag *diag)
{
	struct trial *t = calloc(1, sizeof *t);
	void *scratch = aligned_alloc(64, (hct_viterbi_scratch(TRIAL_GROUPS) + 63) / 64 * 64);
	struct hct_viterbi_segment found;
	hct_error e = HCT_ERR_NOMEM;

	if (!t || !scratch) {
		hct_fail(diag, e, "out of memory");
		goto out;
	}
	set_up(t);
	found = t->segment;
	e = search->search(device, &t->v, &found, 1, diag);
	hct_viterbi_search_scalar(&t->v, &t->segment, scratch);
	if (!e && memcmp(found.codes, t->codes, sizeof t->codes) != 0)
		e = hct_fail(diag, HCT_ERR_IO, "GPU and CPU find different codes");
out:
	free(scratch);
	free(t);
	return e;
}

/* Sets *missing when there is no such GPU. */
static hct_error open_device(struct hct_accelerator *a, int *missing, struct hct_diag *diag)
{
	hct_device_searcher *first = NULL;
	hct_error e = hct_plugin_open(&a->plugin, diag);
	struct hct_diag why = {""};
	int count;

	*missing = e == HCT_ERR_NOT_FOUND;
	if (e)
		return *missing ? HCT_ERR_UNSUPPORTED : e;
	count = a->plugin.class->count(&why);
	*missing = count <= 0;
	a->search = a->plugin.class->search;
	if (count <= a->number)
		return hct_fail(diag, HCT_ERR_UNSUPPORTED, "no GPU %d: there %s %d%s%s", a->number,
				count == 1 ? "is" : "are", count > 0 ? count : 0,
				*why.text ? ", " : "", why.text);
	if (!a->search)
		return hct_fail(diag, HCT_ERR_UNSUPPORTED, "GPU %d cannot encode", a->number);
	e = a->search->open(a->number, &first, diag);
	if (!e)
		e = try_out(a->search, first, diag);
	if (!e)
		snprintf(a->name, sizeof a->name, "%s:%d (%s)", a->plugin.class->name, a->number,
			 a->search->describe(first));
	a->search->close(first);
	return e;
}

hct_error hct_accelerator_open(const char *gpu, void (*log)(void *arg, const char *line), void *arg,
			       hct_accelerator **out, struct hct_diag *diag)
{
	int any = !gpu || strcmp(gpu, "auto") == 0, missing = 0;
	hct_error e = hct_backend_check_gpu(gpu, diag);
	struct hct_diag why = {""};
	struct hct_accelerator *a;

	*out = NULL;
	if (e || (!any && strcmp(gpu, "off") == 0))
		return e;
	a = calloc(1, sizeof *a);
	if (!a)
		return hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	a->number = any ? 0 : atoi(gpu);
	a->works = 1;
	a->log = log;
	a->log_arg = arg;
	e = open_device(a, &missing, &why);
	if (!e) {
		*out = a;
		return HCT_OK;
	}
	if (any && !missing)
		say(a, "no GPU is used: %s", why.text);
	hct_accelerator_close(a);
	return any ? HCT_OK : hct_fail(diag, e, "%s", why.text);
}

void hct_accelerator_close(hct_accelerator *a)
{
	if (a)
		hct_plugin_close(&a->plugin);
	free(a);
}

const char *hct_accelerator_name(const hct_accelerator *a)
{
	return a->name;
}

/* Searching ----------------------------------------------------------------------------- */

void hct_searcher_close(struct hct_searcher *s)
{
	if (s->device)
		s->gpu->search->close(s->device);
	s->device = NULL;
}

void hct_searcher_begin(struct hct_searcher *s, const struct hct_viterbi *v,
			struct hct_viterbi_segment *segments, size_t count)
{
	struct hct_diag why = {""};
	hct_error e = HCT_OK;
	size_t groups = 0;

	for (size_t i = 0; i < count; i++) {
		segments[i].marks = NULL;
		groups += segments[i].groups;
	}
	if (!s->gpu || groups < LEAST_GROUPS || !atomic_load(&s->gpu->works))
		return;
	if (!s->device)
		e = s->gpu->search->open(s->gpu->number, &s->device, &why);
	if (!e)
		e = s->gpu->search->search(s->device, v, segments, count, &why);
	if (e)
		give_up(s->gpu, &why);
}

void hct_searcher_find(const struct hct_searcher *s, const struct hct_viterbi *v,
		       struct hct_viterbi_segment *segment, void *scratch)
{
	if (segment->marks)
		hct_viterbi_list_exceptions(v, segment);
	else
		hct_viterbi_find(s->simd)(v, segment, scratch);
}
