#include "goals.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/checksum.h"
#include "writer/interrupt.h"
#include "writer/model.h"
#include "writer/names.h"
#include "writer/patience.h"

/* The text of a config.json, or NULL when there is none to be had: nothing depends on it but
 * the number of layers, which names tell as well. */
static char *read_config(const char *path, size_t *length)
{
	char *text = NULL;
	struct stat sb;
	int fd = mkhct_patient_open(path);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) && sb.st_size > 0 &&
	    sb.st_size <= MKHCT_CONFIG_MAX)
		text = malloc((size_t)sb.st_size);
	if (text && mkhct_patient_read(fd, path, text, (size_t)sb.st_size, 0, NULL) != HCT_OK) {
		free(text);
		text = NULL;
	}
	close(fd);
	*length = text ? (size_t)sb.st_size : 0;
	return text;
}

/* The length of a name's folder, with the '/' behind it. */
static size_t folder_length(const char *name)
{
	return (size_t)(mkhct_name_base(name) - name);
}

static int same_folder(const char *a, const char *b)
{
	size_t n = folder_length(a);

	return n == folder_length(b) && memcmp(a, b, n) == 0;
}

/* The config.json beside a model, which is carried with it when the source is a folder. */
static char *config_of(const struct mkhct_source *source, const struct mkhct_entry *model,
		       size_t *length)
{
	const char *beside = source->is_folder ? model->name : model->path;
	const struct mkhct_entry *entry = NULL;
	char *folder = strndup(beside, folder_length(beside)), *text = NULL, *path = NULL;

	*length = 0;
	if (!folder)
		return NULL;
	path = malloc(strlen(folder) + sizeof("config.json"));
	if (path)
		strcat(strcpy(path, folder), "config.json");
	if (path && source->is_folder) {
		entry = mkhct_source_find(source, path);
		text = entry && entry->kind == MKHCT_CARRIED ? read_config(entry->path, length)
							     : NULL;
	} else if (path) {
		text = read_config(path, length);
	}
	free(path);
	free(folder);
	return text;
}

/* The part of each model: the first of its folder begins it. */
static size_t first_of_folder(const struct mkhct_goals *g, size_t model)
{
	for (size_t i = 0; i < model; i++)
		if (same_folder(g->models[i].entry->name, g->models[model].entry->name))
			return i;
	return model;
}

static hct_error see_model(struct mkhct_goals *g, size_t i, struct hct_diag *diag)
{
	struct mkhct_model_goals *m = &g->models[i];
	struct mkhct_model model;
	hct_error err = mkhct_model_open(m->entry, &model, diag);

	if (err)
		return err;
	m->count = model.st.count;
	m->header_checksum = hct_checksum(model.st.header, model.st.header_len);
	for (size_t t = 0; !err && t < model.st.count; t++) {
		m->elements += model.st.tensors[t].elements;
		m->name_bytes += strlen(model.st.tensors[t].name);
		err = mkhct_policy_see(g->policy, &model.st.tensors[t], diag);
	}
	mkhct_model_close(&model);
	return err ? err : mkhct_interrupt_check(diag);
}

/* Shows the policy everything, folder by folder. */
static hct_error see_all(struct mkhct_goals *g, const struct mkhct_source *source,
			 const struct mkhct_options *options, size_t *parts, struct hct_diag *diag)
{
	size_t count = 0;
	hct_error err = HCT_OK;

	for (size_t i = 0; !err && i < g->count; i++) {
		size_t length;
		char *config;

		if (first_of_folder(g, i) != i)
			continue;
		config = config_of(source, g->models[i].entry, &length);
		err = count ? mkhct_policy_begin(g->policy, config, length, diag)
			    : mkhct_policy_create(&options->policy, config, length, &g->policy,
						  diag);
		free(config);
		for (size_t k = i; !err && k < g->count; k++) {
			if (!same_folder(g->models[k].entry->name, g->models[i].entry->name))
				continue;
			parts[k] = count;
			err = see_model(g, k, diag);
		}
		count++;
	}
	return err ? err : mkhct_policy_ready(g->policy, diag);
}

static enum hct_transform transform_of(enum mkhct_transform t)
{
	return t == MKHCT_TRANSFORM_NONE  ? HCT_TRANSFORM_NONE
	       : t == MKHCT_TRANSFORM_DCT ? HCT_TRANSFORM_DCT
					  : HCT_TRANSFORM_AUTO;
}

static enum hct_method method_of(enum mkhct_encoder e)
{
	static const enum hct_method methods[] = {
		[MKHCT_ENCODER_AUTO] = HCT_METHOD_AUTO, [MKHCT_ENCODER_TCQ] = HCT_METHOD_TCQ,
		[MKHCT_ENCODER_TOPK] = HCT_METHOD_TOPK, [MKHCT_ENCODER_MIXED] = HCT_METHOD_MIXED,
		[MKHCT_ENCODER_SVD] = HCT_METHOD_SVD,   [MKHCT_ENCODER_INT4] = HCT_METHOD_INT4,
	};

	return methods[e];
}

static hct_error decide(struct mkhct_goals *g, size_t i, size_t part,
			const struct mkhct_coding_options *coding, struct hct_diag *diag)
{
	struct mkhct_model_goals *m = &g->models[i];
	struct mkhct_model model;
	hct_error err = mkhct_model_open(m->entry, &model, diag);

	if (err)
		return err;
	m->decisions = calloc(m->count + 1, sizeof(*m->decisions));
	m->goals = calloc(m->count + 1, sizeof(*m->goals));
	if (!m->decisions || !m->goals)
		err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", m->entry->path);
	for (size_t t = 0; !err && t < m->count; t++) {
		const struct mkhct_target *target = &m->decisions[t].target;

		mkhct_policy_decide(g->policy, part, &model.st.tensors[t], &m->decisions[t]);
		m->goals[t] = (struct hct_goal){.effort = (unsigned)coding->effort,
						.transform = transform_of(coding->transform),
						.method = method_of(coding->encoder),
						.retention = target->retention,
						.fp16_ratio = coding->fp16_ratio,
						.layers = (unsigned)coding->layers};
		if (target->kind == MKHCT_TARGET_ERROR)
			m->goals[t].relative_squared_error = target->error;
		g->open |= target->kind == MKHCT_TARGET_ADAPTIVE ||
			   target->kind == MKHCT_TARGET_BUDGET;
	}
	mkhct_model_close(&model);
	return err ? err : mkhct_interrupt_check(diag);
}

hct_error mkhct_goals_create(const struct mkhct_source *source, const struct mkhct_options *options,
			     struct mkhct_goals *out, struct hct_diag *diag)
{
	size_t *parts = calloc(source->model_count + 1, sizeof(*parts));
	hct_error err = HCT_OK;

	*out = (struct mkhct_goals){.models =
					    calloc(source->model_count + 1, sizeof(*out->models))};
	if (!parts || !out->models)
		err = hct_fail(diag, HCT_ERR_NOMEM, "out of memory");
	for (size_t i = 0; !err && i < source->count; i++)
		if (source->entries[i].kind == MKHCT_MODEL)
			out->models[out->count++].entry = &source->entries[i];
	if (!err)
		err = see_all(out, source, options, parts, diag);
	for (size_t i = 0; !err && i < out->count; i++)
		err = decide(out, i, parts[i], &options->coding, diag);
	free(parts);
	return err;
}

void mkhct_goals_free(struct mkhct_goals *g)
{
	for (size_t i = 0; i < g->count; i++) {
		free(g->models[i].decisions);
		free(g->models[i].goals);
		free(g->models[i].forecasts);
	}
	free(g->models);
	mkhct_policy_free(g->policy);
	*g = (struct mkhct_goals){.models = NULL};
}

int mkhct_goals_lossless(const struct mkhct_goals *g)
{
	for (size_t i = 0; i < g->count; i++)
		for (size_t t = 0; t < g->models[i].count; t++)
			if (g->models[i].decisions[t].target.kind != MKHCT_TARGET_LOSSLESS)
				return 0;
	return 1;
}
