/* How long the reports of a bundle are going to be: they are made of what is known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "writer/model.h"
#include "writer/page.h"
#include "writer/report.h"
#include "writer/survey.h"

/* One model of which nothing may be measured yet: figures as long as they will be. */
struct foreseen {
	const struct mkhct_model_goals *goals;
	const struct hct_safetensors *st;
};

static int is_open(const struct mkhct_model_goals *m, size_t i)
{
	return m->decisions[i].target.kind != MKHCT_TARGET_LOSSLESS;
}

static void coding_of(const void *arg, size_t i, struct hct_coding *out)
{
	const struct foreseen *f = arg;
	uint64_t bytes = hct_tensor_bytes(&f->st->tensors[i]);

	*out = (struct hct_coding){.codec = "split", .stored_bytes = bytes / 2};
	if (f->goals->forecasts) {
		const struct mkhct_forecast *x = &f->goals->forecasts[i];

		out->codec = x->result.plan.codec ? x->result.plan.codec : "split";
		out->stored_bytes = (uint64_t)(x->extent_bytes + x->table_bytes);
	} else if (is_open(f->goals, i)) {
		out->codec = "tcq";
		out->stored_bytes = bytes / 8;
	}
}

static struct mkhct_result result_of(const struct mkhct_model_goals *m, size_t i)
{
	if (m->forecasts)
		return m->forecasts[i].result;
	if (!is_open(m, i))
		return (struct mkhct_result){.error = 0};
	return (struct mkhct_result){.energy = 1,
				     .decoded_energy = 1,
				     .error = .01234567,
				     .plan = {.layers = 1, .tile_rows = 1, .tile_columns = 1}};
}

static hct_error add_model(struct mkhct_report *r, const struct mkhct_model_goals *m)
{
	static const uint8_t sha256[32];
	struct mkhct_result *results = calloc(m->count + 1, sizeof(*results));
	struct foreseen f = {.goals = m};
	struct mkhct_written w = {.coding = coding_of,
				  .arg = &f,
				  .sha256 = sha256,
				  .file_bytes = m->entry->size / 4,
				  .goals = m,
				  .results = results};
	struct mkhct_model model;
	hct_error err;

	if (!results)
		return HCT_ERR_NOMEM;
	err = mkhct_model_open(m->entry, &model, NULL);
	if (!err && model.st.count == m->count) {
		f.st = w.st = &model.st;
		for (size_t i = 0; i < m->count; i++)
			results[i] = result_of(m, i);
		err = mkhct_report_add(r, m->entry, &w, 0, NULL);
	}
	if (!err)
		mkhct_model_close(&model);
	free(results);
	return err;
}

/* The length of the page. */
static double page_bytes(const struct mkhct_report *r)
{
	char *text = NULL;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return 0;
	(void)mkhct_page_write(mkhct_report_document(r), stream, NULL);
	fclose(stream);
	free(text);
	return (double)size;
}

double mkhct_report_forecast(const struct mkhct_source *source, const struct mkhct_goals *goals,
			     const char *options)
{
	struct mkhct_report *r = NULL;
	hct_error err = mkhct_report_create(source, options, 0, &r, NULL);
	char *text = NULL;
	double bytes = 0;

	for (size_t i = 0; !err && i < source->count; i++)
		if (source->entries[i].kind != MKHCT_MODEL)
			err = mkhct_report_add(r, &source->entries[i], NULL, 0, NULL);
	for (size_t i = 0; !err && i < goals->count; i++)
		err = add_model(r, &goals->models[i]);
	if (!err)
		text = mkhct_report_full(r, 1.234);
	if (text)
		bytes = (double)strlen(text) + page_bytes(r);
	cJSON_free(text);
	mkhct_report_free(r);
	return bytes;
}
