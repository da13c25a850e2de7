#include "kind.h"

#include <stddef.h>
#include <string.h>

#define MAX_WORDS 4   /* of a rule, and so of a name, from its end, that matter */
#define MAX_WORD  128 /* a longer one is none that a table would know */

struct word {
	const char *text;
	size_t length;
};

struct rule {
	enum mkhct_tensor_kind kind;
	const char *patterns; /* separated by spaces; the first rule that matches decides */
};

static const struct {
	const char *name;
	enum mkhct_kind_group group;
} kinds[MKHCT_KIND_COUNT] = {
	[MKHCT_KIND_OTHER] = {"other", MKHCT_GROUP_OTHER},
	[MKHCT_KIND_NORM] = {"norm", MKHCT_GROUP_EXACT},
	[MKHCT_KIND_BIAS] = {"bias", MKHCT_GROUP_EXACT},
	[MKHCT_KIND_SCALE] = {"scale", MKHCT_GROUP_EXACT},
	[MKHCT_KIND_EMBEDDING] = {"embedding", MKHCT_GROUP_EMBEDDING},
	[MKHCT_KIND_POSITION] = {"position embedding", MKHCT_GROUP_EMBEDDING},
	[MKHCT_KIND_HEAD] = {"head", MKHCT_GROUP_HEAD},
	[MKHCT_KIND_Q] = {"q", MKHCT_GROUP_QK},
	[MKHCT_KIND_K] = {"k", MKHCT_GROUP_QK},
	[MKHCT_KIND_V] = {"v", MKHCT_GROUP_VO},
	[MKHCT_KIND_O] = {"o", MKHCT_GROUP_VO},
	[MKHCT_KIND_QKV] = {"fused q, k, v", MKHCT_GROUP_QKV},
	[MKHCT_KIND_KV] = {"fused k, v", MKHCT_GROUP_QKV},
	[MKHCT_KIND_GATE] = {"MLP gate", MKHCT_GROUP_MLP},
	[MKHCT_KIND_UP] = {"MLP up", MKHCT_GROUP_MLP},
	[MKHCT_KIND_DOWN] = {"MLP down", MKHCT_GROUP_MLP},
	[MKHCT_KIND_GATE_UP] = {"MLP gate and up", MKHCT_GROUP_MLP},
	[MKHCT_KIND_MLP] = {"MLP", MKHCT_GROUP_MLP},
	[MKHCT_KIND_ROUTER] = {"router", MKHCT_GROUP_OTHER},
	[MKHCT_KIND_CONV] = {"convolution", MKHCT_GROUP_OTHER},
};

/* Words at the end of a name that do not tell whose they are: the parameter's own, those of
 * adapters and wrappers, and what TensorFlow's graphs put behind. */
static const char leaves[] = "weight weights kernel w base_layer original0 original1 lora_a lora_b "
			     "default parametrizations concat concatpartitions tensordot "
			     "reshape_* part_* weight_packed qweight";

/* What marks a bias or a scale wherever it stands, before anything else is looked at. */
static const struct rule parameters[] = {
	{MKHCT_KIND_SCALE, "scales *_scales weight_scale* *_scale_inv input_scale output_scale "
			   "k_scale v_scale qzeros zeros weight_g absmax *.absmax weight.quant_map "
			   "weight.nested_*"},
	{MKHCT_KIND_BIAS, "bias *_bias b relative_attention_bias relative_attention_bias.* "
			  "relative_position_bias_table"},
	{MKHCT_KIND_NORM, "gamma beta layer_norm_scale"},
};

/* A pattern is matched against the last components of the name without its leaves.  Each
 * of its words is one component; * within a word is any run of characters; ^ ties the
 * first to the beginning of the name. */
static const struct rule modules[] = {
	{MKHCT_KIND_OTHER, "embeddings_project embedding_hidden_mapping_in mixer.in_proj "
			   "mixer.out_proj mixer.x_proj mixer.dt_proj mixer.a_log mamba.* "
			   "ssm.* linear_attn.*_proj*"},
	{MKHCT_KIND_NORM, "norm norm1 norm2 norm3 norm4 norm_* *norm *_norm1 *_norm2 *layernorm* "
			  "*layer_norm* *_norm_out ln ln1 ln2 ln_* *_ln *_ln_* lnq lnk "
			  "*groupnorm* batchnorm* bn bn1 bn2"},
	{MKHCT_KIND_POSITION, "wpe position_embeddings position_embedding embed_positions "
			      "pos_embed pos_embedding *_pos_embed *pos_emb position_embed* "
			      "positional_embedding* *positional_enc* absolute_pos_embed "
			      "abs_pos_emb"},
	{MKHCT_KIND_CONV, "patch_embed* patch_embed*.* patch_embedding *conv *conv1d *conv2d "
			  "*conv3d mixer.conv1d conv_in conv_out conv_proj"},
	{MKHCT_KIND_EMBEDDING,
	 "embed_tokens wte word_embeddings tok_embeddings token_embedding token_embeddings "
	 "word_embedding shared embed_in token_type_embeddings ^embeddings ^embedding ^embed "
	 "embed_tokens_per_layer codebook embeddings_* *.word_emb *_embeddings.embedding "
	 "embeddings.embedding model.embedding transformer.embedding backbone.embeddings tok_embed "
	 "y_embedder.embedding_table embedding_table"},
	{MKHCT_KIND_HEAD, "lm_head embed_out ^model.transformer.ff_out ^output ^head ^proj_out "
			  "^classifier ^score predictions.decoder "
			  "vocab_projector output_layer ^model.output shared_head.head"},
	{MKHCT_KIND_ROUTER, "router router.* gate shared_expert_gate *moe.layer ffn.router.layer "
			    "gate.wg"},
	/* Two matrices of an MLP whose names others have as well. */
	{MKHCT_KIND_UP,
	 "intermediate.dense mlp.c_fc mlp.dense ffn.conv1 mlp.0 mlp.*.0 ff.net.0.proj "
	 "ff_context.net.0.proj ffn.0 ff.0 feed_forward.0"},
	{MKHCT_KIND_O, "attention.output.dense attention.dense *attention.dense *attn.dense "
		       "*attn.c_proj *attention.c_proj *attn.proj *attention.proj"},
	{MKHCT_KIND_DOWN, "output.dense mlp.c_proj ffn.conv2 mlp.2 mlp.3 ff.net.2 ff_context.net.2 "
			  "ffn.2 ffn.3 ff.2 feed_forward.2 *densereludense.wo *geludense.wo "
			  "*.mlp.wo mlp.wo feed_forward.wo"},
	{MKHCT_KIND_GATE_UP, "gate_up_proj gate_and_up_proj input_linear ff_proj"},
	{MKHCT_KIND_GATE, "gate_proj wi_0 w1 gate_projs"},
	{MKHCT_KIND_UP, "up_proj w3 wi_1 wi fc1 c_fc dense_h_to_4h lin1 fc_in v1 up_projs fc_0"},
	{MKHCT_KIND_DOWN,
	 "down_proj w2 fc2 dense_4h_to_h lin2 fc_out down_projs output_linear ff_out"},
	{MKHCT_KIND_QKV, "c_attn qkv qkv_proj query_key_value wqkv w_pack to_qkv to_added_qkv "
			 "attn.in_proj* *attn.in_proj* *attention.in_proj* qkv_transform* "
			 "att_proj *attn.qkvw"},
	{MKHCT_KIND_KV,
	 "kv_a_proj_with_mqa kv_a_proj kv_b_proj kv_proj to_kv k_v_proj wkv_a wkv_b"},
	{MKHCT_KIND_Q, "q_proj query q_lin to_q wq wq_a wq_b q_a_proj q_b_proj add_q_proj "
		       "*attention.q *attn.q query_proj"},
	{MKHCT_KIND_K, "k_proj key k_lin to_k wk add_k_proj *attention.k *attn.k key_proj"},
	{MKHCT_KIND_V, "v_proj value v_lin to_v wv add_v_proj *attention.v *attn.v value_proj"},
	{MKHCT_KIND_O, "o_proj out_proj wo to_out to_out.* to_add_out out_lin *attention.o "
		       "*attn.o attn_out output_transform*"},
	{MKHCT_KIND_CONV, "conv conv0 conv1 conv2 conv3 conv_* convolution*"},
	{MKHCT_KIND_MLP, "mlp.* mlp.*.* ffn.* feed_forward.* feedforward.* experts.* "
			 "experts.*.* *mlp.experts.*"},
};

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Globs with * alone; going back to the last one is enough. */
static int word_matches(const char *p, const char *p_end, const struct word *w)
{
	const char *s = w->text, *s_end = w->text + w->length;
	const char *star = NULL, *retry = NULL;

	if (w->length > MAX_WORD)
		return 0;
	while (s < s_end) {
		if (p < p_end && *p == '*') {
			star = ++p;
			retry = s;
		} else if (p < p_end && *p == lower(*s)) {
			p++;
			s++;
		} else if (star) {
			p = star;
			s = ++retry;
		} else {
			return 0;
		}
	}
	while (p < p_end && *p == '*')
		p++;
	return p == p_end;
}

/* Matches the words of a pattern, from its last, against words[0], words[1] ..., which are
 * those of the name from its last; whole: there are no more than these. */
static int pattern_matches(const char *p, const char *p_end, const struct word *words,
			   unsigned count, int whole)
{
	int anchored = *p == '^';

	p += anchored;
	for (unsigned i = 0;; i++) {
		const char *start = p_end;

		while (start > p && start[-1] != '.')
			start--;
		if (i == count || !word_matches(start, p_end, &words[i]))
			return 0;
		if (start == p)
			return !anchored || (whole && i + 1 == count);
		p_end = start - 1;
	}
}

static int list_matches(const char *list, const struct word *words, unsigned count, int whole)
{
	while (*list) {
		size_t n = strcspn(list, " ");

		if (pattern_matches(list, list + n, words, count, whole))
			return 1;
		list += n;
		list += strspn(list, " ");
	}
	return 0;
}

static enum mkhct_tensor_kind find(const struct rule *rules, size_t n, const struct word *words,
				   unsigned count, int whole)
{
	for (size_t i = 0; i < n; i++)
		if (list_matches(rules[i].patterns, words, count, whole))
			return rules[i].kind;
	return MKHCT_KIND_COUNT;
}

/* Splits [name, end) from its end; at most MAX_WORDS.  *whole: that was all. */
static unsigned split(const char *name, const char *end, struct word *words, int *whole)
{
	unsigned n = 0;

	for (;;) {
		const char *start = end;

		while (start > name && start[-1] != '.' && start[-1] != '/')
			start--;
		words[n++] = (struct word){start, (size_t)(end - start)};
		*whole = start == name;
		if (n == MAX_WORDS || start == name)
			return n;
		end = start - 1;
	}
}

/* A stack of filters has positions behind its first two dimensions. */
static int has_filters(unsigned rank, const uint64_t *shape)
{
	return rank >= 4 && shape[0] > 1 && shape[1] > 0 && shape[rank - 1] < 32 &&
	       shape[rank - 2] < 32;
}

enum mkhct_tensor_kind mkhct_kind_of(const char *name, unsigned rank, const uint64_t *shape)
{
	const char *end = name + strlen(name);
	enum mkhct_tensor_kind kind;
	struct word words[MAX_WORDS];
	unsigned count;
	int whole;

	for (;;) {
		count = split(name, end, words, &whole);
		kind = find(parameters, sizeof(parameters) / sizeof(*parameters), words, count,
			    whole);
		if (kind != MKHCT_KIND_COUNT)
			return kind;
		if (words[0].text == name || !list_matches(leaves, words, 1, 0))
			break;
		end = words[0].text - 1;
	}
	kind = find(modules, sizeof(modules) / sizeof(*modules), words, count, whole);
	if (kind == MKHCT_KIND_COUNT || kind == MKHCT_KIND_OTHER)
		kind = has_filters(rank, shape) ? MKHCT_KIND_CONV : MKHCT_KIND_OTHER;
	return kind;
}

const char *mkhct_kind_name(enum mkhct_tensor_kind kind)
{
	return kinds[kind].name;
}

enum mkhct_kind_group mkhct_kind_group(enum mkhct_tensor_kind kind)
{
	return kinds[kind].group;
}
