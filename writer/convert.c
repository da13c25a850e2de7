#include "convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/config.h"
#include "writer/names.h"
#include "writer/shards.h"

#define CLASS_MAX 128

/* A state dict.  Tensors that share memory are cloned: safetensors refuses these. */
#define TORCH                                                                                      \
	"python3 -c \"import sys,torch,safetensors.torch as s;"                                    \
	"d=torch.load(sys.argv[1],'cpu',weights_only=True);d=d.get('state_dict',d);"               \
	"s.save_file({k:v.clone().contiguous() for k,v in d.items() if torch.is_tensor(v)},"       \
	"sys.argv[2],{'format':'pt'})\""

/* safetensors takes the bytes of an array in Fortran's order as if they were in C's. */
#define NUMPY                                                                                      \
	"python3 -c \"import sys,numpy as n,safetensors.numpy as s;d=n.load(sys.argv[1]);"         \
	"s.save_file({k:n.array(d[k],order='C') for k in d},sys.argv[2])\""

enum way { BY_TORCH, BY_GGUF, BY_TF, BY_FLAX, BY_NUMPY, BY_NOTHING };

/* What can be converted comes first. */
static const struct format {
	const char *suffix;
	enum way way;
} formats[] = {
	{".bin", BY_TORCH},    {".pt", BY_TORCH},  {".pth", BY_TORCH},
	{".ckpt", BY_TORCH},   {".gguf", BY_GGUF}, {".h5", BY_TF},
	{".msgpack", BY_FLAX}, {".npz", BY_NUMPY}, {".onnx", BY_NOTHING},
};

/* What trainers leave beside the weights. */
static int is_no_weights(const char *name)
{
	static const char *const others[] = {"training_args.", "optimizer.", "scheduler.",
					     "rng_state"};
	const char *base = mkhct_name_base(name);

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (strncmp(base, others[i], strlen(others[i])) == 0)
			return 1;
	return 0;
}

static const struct mkhct_entry *find_suffix(const struct mkhct_source *source, const char *suffix)
{
	for (size_t i = 0; i < source->count; i++) {
		const struct mkhct_entry *e = &source->entries[i];

		if (e->kind == MKHCT_CARRIED && mkhct_name_has_suffix(e->name, suffix) &&
		    !is_no_weights(e->name))
			return e;
	}
	return NULL;
}

/* The config.json beside a file, or NULL. */
static const struct mkhct_entry *config_beside(const struct mkhct_source *source,
					       const struct mkhct_entry *e)
{
	char *folder = strndup(e->name, (size_t)(mkhct_name_base(e->name) - e->name)), *name = NULL;
	const struct mkhct_entry *found = NULL;

	if (folder && asprintf(&name, "%sconfig.json", folder) >= 0) {
		found = mkhct_source_find(source, name);
		free(name);
	}
	free(folder);
	return found && found->kind == MKHCT_CARRIED ? found : NULL;
}

/* The class of transformers that a config.json names, or "": also for one that comes with the
 * model, and for what could be anything but a class. */
static void class_of(const struct mkhct_entry *config, char *out)
{
	cJSON *root = config ? mkhct_config_read(config, NULL) : NULL;
	const char *name = cJSON_GetStringValue(
		cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "architectures"), 0));
	size_t n = name ? strlen(name) : 0;

	*out = '\0';
	if (n && n < CLASS_MAX &&
	    strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == n &&
	    !cJSON_GetObjectItemCaseSensitive(root, "auto_map"))
		strcpy(out, name);
	cJSON_Delete(root);
}

static void advise_torch(const struct mkhct_source *source, const struct mkhct_entry *e,
			 char how[static 768])
{
	char class[CLASS_MAX] = "";
	struct mkhct_shard_name shard;
	const char *base = mkhct_name_base(e->name), *dot = strrchr(base, '.');

	if (strncmp(base, "pytorch_model", 13) == 0)
		class_of(config_beside(source, e), class);
	if (*class)
		snprintf(how, 768,
			 "convert it to safetensors first: python3 -c \"from transformers import "
			 "%s as M;M.from_pretrained('DIR',torch_dtype='auto')"
			 ".save_pretrained('NEW')\"",
			 class);
	else if (mkhct_shards_parse(base, dot, &shard))
		snprintf(how, 768,
			 "convert it to safetensors first, each shard: for f in DIR/*%.10s; "
			 "do " TORCH
			 " \"$f\" \"${f%%.*}.safetensors\"; done; then --exclude '*%.10s'",
			 dot, dot);
	else
		snprintf(how, 768,
			 "convert it to safetensors first: " TORCH
			 " FILE DIR/model.safetensors; then --exclude '*%.10s'",
			 dot);
}

static void advise_class(const struct mkhct_source *source, const struct mkhct_entry *e,
			 const char *option, char how[static 768])
{
	char class[CLASS_MAX];

	class_of(config_beside(source, e), class);
	/* TFBertModel and FlaxBertModel are classes of these, and not of torch. */
	snprintf(how, 768,
		 "convert it to safetensors first, with transformers 4: python3 -c \"from "
		 "transformers import %s as M;M.from_pretrained('DIR',%s=True)"
		 ".save_pretrained('NEW')\"%s",
		 !*class                          ? "CLASS"
		 : strncmp(class, "TF", 2) == 0   ? class + 2
		 : strncmp(class, "Flax", 4) == 0 ? class + 4
						  : class,
		 option, *class ? "" : ", CLASS being that of the model");
}

static void advise(const struct mkhct_source *source, const struct mkhct_entry *e, enum way way,
		   char how[static 768])
{
	if (mkhct_source_find(source, "model_index.json") && way != BY_GGUF && way != BY_NOTHING)
		snprintf(how, 768,
			 "convert it to safetensors first: python3 -c \"from diffusers import "
			 "DiffusionPipeline as P;P.from_pretrained('DIR')"
			 ".save_pretrained('NEW',safe_serialization=True)\"");
	else if (way == BY_TORCH)
		advise_torch(source, e, how);
	else if (way == BY_GGUF)
		snprintf(how, 768,
			 "convert it to safetensors first, which unpacks what is quantised: "
			 "python3 -c \"from transformers import AutoModelForCausalLM as M;"
			 "M.from_pretrained('DIR',gguf_file='NAME').save_pretrained('NEW')\"");
	else if (way == BY_TF || way == BY_FLAX)
		advise_class(source, e, way == BY_TF ? "from_tf" : "from_flax", how);
	else if (way == BY_NUMPY)
		snprintf(how, 768,
			 "convert it to safetensors first: " NUMPY
			 " FILE DIR/model.safetensors; then --exclude '*.npz'");
	else
		snprintf(how, 768,
			 "nothing converts it to safetensors and keeps the names of its tensors: "
			 "get the model that it was exported from, as safetensors");
}

hct_error mkhct_convert_advise(const struct mkhct_source *source, struct hct_diag *diag)
{
	static const char *const packed[] = {".gz", ".zst", ".xz", ".bz2", ".zip", ".tar", ".7z"};
	const struct mkhct_entry *e;
	char how[768];

	for (size_t f = 0; f < sizeof(formats) / sizeof(*formats); f++) {
		e = find_suffix(source, formats[f].suffix);
		if (!e)
			continue;
		advise(source, e, formats[f].way, how);
		/* What to do is to fit whatever the names. */
		return hct_fail(diag, HCT_ERR_UNSUPPORTED,
				"%.120s: no .safetensors file, but %.100s; %s", source->path,
				e->name, how);
	}
	for (size_t p = 0; p < sizeof(packed) / sizeof(*packed); p++) {
		e = find_suffix(source, packed[p]);
		if (e)
			return hct_fail(diag, HCT_ERR_UNSUPPORTED,
					"%s: no .safetensors file, but %s; unpack it first",
					source->path, e->name);
	}
	return hct_fail(diag, HCT_ERR_UNSUPPORTED,
			"%s: no .safetensors file in it (%zu other file%s); give a model folder",
			source->path, source->carried_count, source->carried_count == 1 ? "" : "s");
}
