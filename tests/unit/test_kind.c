/* kind.h, layer.h, pattern.h: what the names of tensors say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/kind.h"
#include "writer/layer.h"
#include "writer/pattern.h"

#define NO_LAYER -1

struct name {
	const char *name;
	enum mkhct_tensor_kind kind;
	int layer; /* or NO_LAYER */
};

/* Short names for the tables below. */
#define OTHER   MKHCT_KIND_OTHER
#define NORM    MKHCT_KIND_NORM
#define BIAS    MKHCT_KIND_BIAS
#define SCALE   MKHCT_KIND_SCALE
#define EMBED   MKHCT_KIND_EMBEDDING
#define POS     MKHCT_KIND_POSITION
#define HEAD    MKHCT_KIND_HEAD
#define Q       MKHCT_KIND_Q
#define K       MKHCT_KIND_K
#define V       MKHCT_KIND_V
#define O       MKHCT_KIND_O
#define QKV     MKHCT_KIND_QKV
#define KV      MKHCT_KIND_KV
#define GATE    MKHCT_KIND_GATE
#define UP      MKHCT_KIND_UP
#define DOWN    MKHCT_KIND_DOWN
#define GATE_UP MKHCT_KIND_GATE_UP
#define MLP     MKHCT_KIND_MLP
#define ROUTER  MKHCT_KIND_ROUTER
#define CONV    MKHCT_KIND_CONV

/* Llama, Mistral, Qwen 1 to 3, Gemma, Yi ...; Llama as Meta names it; InternLM; Baichuan. */
static const struct name llama[] = {
	{"model.embed_tokens.weight", EMBED, NO_LAYER},
	{"model.layers.0.input_layernorm.weight", NORM, 0},
	{"model.layers.0.mlp.down_proj.weight", DOWN, 0},
	{"model.layers.17.mlp.gate_proj.weight", GATE, 17},
	{"model.layers.17.mlp.up_proj.weight", UP, 17},
	{"model.layers.17.post_attention_layernorm.weight", NORM, 17},
	{"model.layers.17.pre_feedforward_layernorm.weight", NORM, 17},
	{"model.layers.17.self_attn.q_proj.weight", Q, 17},
	{"model.layers.17.self_attn.q_proj.bias", BIAS, 17},
	{"model.layers.17.self_attn.k_proj.weight", K, 17},
	{"model.layers.17.self_attn.v_proj.weight", V, 17},
	{"model.layers.17.self_attn.o_proj.weight", O, 17},
	{"model.layers.17.self_attn.q_norm.weight", NORM, 17},
	{"model.norm.weight", NORM, NO_LAYER},
	{"lm_head.weight", HEAD, NO_LAYER},
	{"language_model.model.layers.3.self_attn.q_proj.weight", Q, 3},
	{"model.layers.3.self_attn.q_proj.base_layer.weight", Q, 3},
	{"model.layers.3.self_attn.v_proj.lora_A.default.weight", V, 3},
	{"model.layers.3.self_attn.v_proj.weight_scale_inv", SCALE, 3},
	{"model.layers.3.self_attn.v_proj.qweight", V, 3},
	{"model.layers.3.self_attn.v_proj.scales", SCALE, 3},
	{"tok_embeddings.weight", EMBED, NO_LAYER},
	{"layers.9.attention.wq.weight", Q, 9},
	{"layers.9.attention.wk.weight", K, 9},
	{"layers.9.attention.wv.weight", V, 9},
	{"layers.9.attention.wo.weight", O, 9},
	{"layers.9.attention_norm.weight", NORM, 9},
	{"layers.9.feed_forward.w1.weight", GATE, 9},
	{"layers.9.feed_forward.w2.weight", DOWN, 9},
	{"layers.9.feed_forward.w3.weight", UP, 9},
	{"norm.weight", NORM, NO_LAYER},
	{"output.weight", HEAD, NO_LAYER},
	{"model.layers.2.attention.wqkv.weight", QKV, 2},
	{"model.tok_embeddings.weight", EMBED, NO_LAYER},
	{"model.layers.2.self_attn.W_pack.weight", QKV, 2},
};

/* Mixtral, Qwen and OLMo mixtures, DeepSeek, Granite, DBRX, gpt-oss. */
static const struct name experts[] = {
	{"model.layers.1.block_sparse_moe.gate.weight", ROUTER, 1},
	{"model.layers.1.block_sparse_moe.experts.7.w1.weight", GATE, 1},
	{"model.layers.1.block_sparse_moe.experts.7.w2.weight", DOWN, 1},
	{"model.layers.1.block_sparse_moe.experts.7.w3.weight", UP, 1},
	{"model.layers.1.mlp.gate.weight", ROUTER, 1},
	{"model.layers.1.mlp.experts.63.gate_proj.weight", GATE, 1},
	{"model.layers.1.mlp.experts.63.up_proj.weight", UP, 1},
	{"model.layers.1.mlp.experts.63.down_proj.weight", DOWN, 1},
	{"model.layers.1.mlp.shared_expert.gate_proj.weight", GATE, 1},
	{"model.layers.1.mlp.shared_expert_gate.weight", ROUTER, 1},
	{"model.layers.1.mlp.shared_experts.down_proj.weight", DOWN, 1},
	{"model.layers.1.mlp.gate.e_score_correction_bias", BIAS, 1},
	{"model.layers.1.self_attn.q_a_proj.weight", Q, 1},
	{"model.layers.1.self_attn.q_a_layernorm.weight", NORM, 1},
	{"model.layers.1.self_attn.q_b_proj.weight", Q, 1},
	{"model.layers.1.self_attn.kv_a_proj_with_mqa.weight", KV, 1},
	{"model.layers.1.self_attn.kv_a_layernorm.weight", NORM, 1},
	{"model.layers.1.self_attn.kv_b_proj.weight", KV, 1},
	{"model.layers.61.shared_head.head.weight", HEAD, 61},
	{"model.layers.4.block_sparse_moe.router.layer.weight", ROUTER, 4},
	{"model.layers.4.block_sparse_moe.input_linear.weight", GATE_UP, 4},
	{"model.layers.4.block_sparse_moe.output_linear.weight", DOWN, 4},
	{"transformer.blocks.4.ffn.router.layer.weight", ROUTER, 4},
	{"transformer.blocks.4.ffn.experts.mlp.w1", GATE, 4},
	{"transformer.blocks.4.ffn.experts.mlp.v1", UP, 4},
	{"transformer.blocks.4.ffn.experts.mlp.w2", DOWN, 4},
	{"model.layers.4.mlp.router.weight", ROUTER, 4},
	{"model.layers.4.mlp.experts.gate_up_proj", GATE_UP, 4},
	{"model.layers.4.mlp.experts.gate_up_proj_bias", BIAS, 4},
	{"model.layers.4.mlp.experts.gate_up_proj_scales", SCALE, 4},
	{"model.layers.4.mlp.experts.down_proj", DOWN, 4},
};

/* GPT-2, GPT-J, GPT-NeoX, Falcon, MPT, Phi, ChatGLM, OLMo, Mamba. */
static const struct name gpt[] = {
	{"transformer.wte.weight", EMBED, NO_LAYER},
	{"wpe.weight", POS, NO_LAYER},
	{"transformer.h.3.attn.c_attn.weight", QKV, 3},
	{"transformer.h.3.attn.c_attn.bias", BIAS, 3},
	{"transformer.h.3.attn.c_proj.weight", O, 3},
	{"transformer.h.3.ln_1.weight", NORM, 3},
	{"h.11.mlp.c_fc.weight", UP, 11},
	{"h.11.mlp.c_proj.weight", DOWN, 11},
	{"h.11.attn.c_proj.weight", O, 11},
	{"transformer.ln_f.bias", BIAS, NO_LAYER},
	{"transformer.h.3.attn.out_proj.weight", O, 3},
	{"transformer.h.3.mlp.fc_in.weight", UP, 3},
	{"transformer.h.3.mlp.fc_out.weight", DOWN, 3},
	{"gpt_neox.embed_in.weight", EMBED, NO_LAYER},
	{"gpt_neox.layers.5.attention.query_key_value.weight", QKV, 5},
	{"gpt_neox.layers.5.attention.dense.weight", O, 5},
	{"gpt_neox.layers.5.mlp.dense_h_to_4h.weight", UP, 5},
	{"gpt_neox.layers.5.mlp.dense_4h_to_h.weight", DOWN, 5},
	{"gpt_neox.final_layer_norm.weight", NORM, NO_LAYER},
	{"embed_out.weight", HEAD, NO_LAYER},
	{"transformer.word_embeddings.weight", EMBED, NO_LAYER},
	{"transformer.h.8.self_attention.query_key_value.weight", QKV, 8},
	{"transformer.h.8.self_attention.dense.weight", O, 8},
	{"transformer.h.8.ln_attn.weight", NORM, 8},
	{"transformer.blocks.2.attn.Wqkv.weight", QKV, 2},
	{"transformer.blocks.2.attn.out_proj.weight", O, 2},
	{"transformer.blocks.2.ffn.up_proj.weight", UP, 2},
	{"transformer.blocks.2.ffn.down_proj.weight", DOWN, 2},
	{"transformer.blocks.2.norm_1.weight", NORM, 2},
	{"model.layers.6.self_attn.qkv_proj.weight", QKV, 6},
	{"model.layers.6.self_attn.dense.weight", O, 6},
	{"model.layers.6.mlp.gate_up_proj.weight", GATE_UP, 6},
	{"model.layers.6.mlp.fc1.weight", UP, 6},
	{"model.layers.6.mlp.fc2.weight", DOWN, 6},
	{"transformer.embedding.word_embeddings.weight", EMBED, NO_LAYER},
	{"transformer.encoder.layers.1.self_attention.query_key_value.weight", QKV, 1},
	{"transformer.output_layer.weight", HEAD, NO_LAYER},
	{"model.transformer.blocks.0.att_proj.weight", QKV, 0},
	{"model.transformer.blocks.0.attn_out.weight", O, 0},
	{"model.transformer.blocks.0.ff_proj.weight", GATE_UP, 0},
	{"model.transformer.blocks.0.ff_out.weight", DOWN, 0},
	{"model.transformer.ff_out.weight", HEAD, NO_LAYER},
	{"backbone.layers.0.mixer.in_proj.weight", OTHER, 0},
	{"backbone.layers.0.mixer.out_proj.weight", OTHER, 0},
	{"backbone.layers.0.mixer.conv1d.weight", CONV, 0},
	{"backbone.layers.0.mixer.A_log", OTHER, 0},
	{"backbone.embeddings.weight", EMBED, NO_LAYER},
};

/* BERT and MiniLM, DistilBERT, T5, Whisper. */
static const struct name encoders[] = {
	{"embeddings.word_embeddings.weight", EMBED, NO_LAYER},
	{"embeddings.position_embeddings.weight", POS, NO_LAYER},
	{"bert.embeddings.token_type_embeddings.weight", EMBED, NO_LAYER},
	{"bert.embeddings.LayerNorm.weight", NORM, NO_LAYER},
	{"bert.embeddings.LayerNorm.gamma", NORM, NO_LAYER},
	{"encoder.layer.5.attention.self.query.weight", Q, 5},
	{"encoder.layer.5.attention.self.key.weight", K, 5},
	{"encoder.layer.5.attention.self.value.weight", V, 5},
	{"encoder.layer.5.attention.self.value.bias", BIAS, 5},
	{"encoder.layer.5.attention.output.dense.weight", O, 5},
	{"encoder.layer.5.attention.output.LayerNorm.weight", NORM, 5},
	{"encoder.layer.5.intermediate.dense.weight", UP, 5},
	{"encoder.layer.5.output.dense.weight", DOWN, 5},
	{"0.auto_model.encoder.layer.5.output.dense.weight", DOWN, 5},
	{"pooler.dense.weight", OTHER, NO_LAYER},
	{"cls.predictions.decoder.weight", HEAD, NO_LAYER},
	{"cls.predictions.transform.dense.weight", OTHER, NO_LAYER},
	{"classifier.weight", HEAD, NO_LAYER},
	{"distilbert.transformer.layer.2.attention.q_lin.weight", Q, 2},
	{"distilbert.transformer.layer.2.attention.out_lin.weight", O, 2},
	{"distilbert.transformer.layer.2.ffn.lin1.weight", UP, 2},
	{"distilbert.transformer.layer.2.ffn.lin2.weight", DOWN, 2},
	{"distilbert.transformer.layer.2.sa_layer_norm.weight", NORM, 2},
	{"vocab_projector.weight", HEAD, NO_LAYER},
	{"shared.weight", EMBED, NO_LAYER},
	{"encoder.embed_tokens.weight", EMBED, NO_LAYER},
	{"encoder.block.0.layer.0.SelfAttention.q.weight", Q, 0},
	{"encoder.block.0.layer.0.SelfAttention.k.weight", K, 0},
	{"encoder.block.0.layer.0.SelfAttention.v.weight", V, 0},
	{"encoder.block.4.layer.0.SelfAttention.o.weight", O, 4},
	{"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", BIAS, 0},
	{"encoder.block.4.layer.0.layer_norm.weight", NORM, 4},
	{"encoder.block.4.layer.1.DenseReluDense.wi_0.weight", GATE, 4},
	{"encoder.block.4.layer.1.DenseReluDense.wi_1.weight", UP, 4},
	{"encoder.block.4.layer.1.DenseReluDense.wi.weight", UP, 4},
	{"encoder.block.4.layer.1.DenseReluDense.wo.weight", DOWN, 4},
	{"decoder.block.5.layer.1.EncDecAttention.q.weight", Q, 5},
	{"decoder.block.5.layer.1.EncDecAttention.o.weight", O, 5},
	{"decoder.block.5.layer.2.DenseReluDense.wo.weight", DOWN, 5},
	{"decoder.final_layer_norm.weight", NORM, NO_LAYER},
	{"model.encoder.conv1.weight", CONV, NO_LAYER},
	{"model.encoder.embed_positions.weight", POS, NO_LAYER},
	{"model.decoder.layers.3.encoder_attn.k_proj.weight", K, 3},
	{"model.decoder.layers.3.encoder_attn.out_proj.weight", O, 3},
	{"model.decoder.layers.3.fc1.weight", UP, 3},
	{"proj_out.weight", HEAD, NO_LAYER},
};

/* ViT, CLIP, timm, DiT and diffusers; Tensor2Tensor. */
static const struct name pictures[] = {
	{"vit.embeddings.patch_embeddings.projection.weight", CONV, NO_LAYER},
	{"vit.embeddings.position_embeddings", POS, NO_LAYER},
	{"vit.encoder.layer.1.attention.attention.query.weight", Q, 1},
	{"vit.encoder.layer.1.attention.output.dense.weight", O, 1},
	{"vit.encoder.layer.1.layernorm_before.weight", NORM, 1},
	{"vision_model.embeddings.patch_embedding.weight", CONV, NO_LAYER},
	{"vision_model.encoder.layers.1.self_attn.out_proj.weight", O, 1},
	{"vision_model.encoder.layers.1.mlp.fc1.weight", UP, 1},
	{"vision_model.encoder.layers.1.layer_norm2.weight", NORM, 1},
	{"visual.transformer.resblocks.7.attn.in_proj_weight", QKV, 7},
	{"visual.transformer.resblocks.7.attn.in_proj_bias", BIAS, 7},
	{"visual.transformer.resblocks.7.mlp.c_fc.weight", UP, 7},
	{"token_embedding.weight", EMBED, NO_LAYER},
	{"positional_embedding", POS, NO_LAYER},
	{"pos_embed", POS, NO_LAYER},
	{"patch_embed.proj.weight", CONV, NO_LAYER},
	{"blocks.3.attn.qkv.weight", QKV, 3},
	{"blocks.3.attn.proj.weight", O, 3},
	{"blocks.3.mlp.fc2.weight", DOWN, 3},
	{"blocks.3.adaLN_modulation.1.weight", OTHER, 3},
	{"blocks.3.norm1.weight", NORM, 3},
	{"head.weight", HEAD, NO_LAYER},
	{"final_layer.linear.weight", OTHER, NO_LAYER},
	{"transformer_blocks.5.attn1.to_q.weight", Q, 5},
	{"transformer_blocks.5.attn1.to_out.0.weight", O, 5},
	{"transformer_blocks.5.ff.net.0.proj.weight", UP, 5},
	{"transformer_blocks.5.ff.net.2.weight", DOWN, 5},
	{"transformer_blocks.5.norm1.linear.weight", OTHER, 5},
	{"transformer_blocks.5.attn.add_q_proj.weight", Q, 5},
	{"down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", K, NO_LAYER},
	{"down_blocks.0.resnets.1.conv1.weight", CONV, NO_LAYER},
	{"module/Embeddings_en", EMBED, NO_LAYER},
	{"module/Encode/Layer_1/TransformerLayer/MultiheadAttention/output_transform_single/kernel/"
	 "part_0",
	 O, 1},
	{"module/Encode/Layer_1/TransformerLayer/MultiheadAttention/qkv_transform_single/kernel/"
	 "part_0",
	 QKV, 1},
	{"a/Layer_0/TransformerLayer/FFN/conv1/bias/ConcatPartitions/concat", BIAS, 0},
	{"a/Layer_0/TransformerLayer/FFN/conv1/Tensordot/Reshape_1", UP, 0},
	{"a/Layer_0/TransformerLayer/FFN/conv2/Tensordot/Reshape_1", DOWN, 0},
	{"a/Layer_0/layer_prepostprocess/layer_norm/layer_norm_scale/ConcatPartitions/concat", NORM,
	 0},
	{"module/Encoder_en/hidden_layers/tanh_layer_0/weights", OTHER, NO_LAYER},
};

/* What could be mistaken. */
static const struct name odd[] = {
	{"", OTHER, NO_LAYER},
	{".", OTHER, NO_LAYER},
	{"weight", OTHER, NO_LAYER},
	{"weight.weight.weight", OTHER, NO_LAYER},
	{"//..//", OTHER, NO_LAYER},
	{"bias", BIAS, NO_LAYER},
	{"model.normal_proj.weight", OTHER, NO_LAYER},
	{"model.unbiased.weight", OTHER, NO_LAYER},
	{"decoder.output.weight", OTHER, NO_LAYER},
	{"MODEL.LAYERS.3.SELF_ATTN.Q_PROJ.WEIGHT", Q, 3},
	{"layers", OTHER, NO_LAYER},
	{"layers.", OTHER, NO_LAYER},
	{"layers.x.q_proj", Q, NO_LAYER},
	{"layers.-1.q_proj", Q, NO_LAYER},
	{"layers.3", OTHER, 3},
	{"layers.1234567.q_proj", Q, NO_LAYER},
	{"layers.100000.q_proj", Q, NO_LAYER},
	{"layers.99999.q_proj", Q, 99999},
	{"layer_x/q_proj", Q, NO_LAYER},
	{"stages.1.layers.2.q_proj", Q, NO_LAYER},
	{"electra.embeddings_project.weight", OTHER, NO_LAYER},
};

static void check_names(const struct name *names, size_t count)
{
	static const uint64_t shape[2] = {512, 512};

	for (size_t i = 0; i < count; i++) {
		enum mkhct_tensor_kind kind = mkhct_kind_of(names[i].name, 2, shape);
		unsigned layer;
		size_t stack;
		int found = mkhct_layer_parse(names[i].name, &layer, &stack);

		if (kind != names[i].kind)
			print_error("%s: %s, not %s\n", names[i].name, mkhct_kind_name(kind),
				    mkhct_kind_name(names[i].kind));
		assert_int_equal(kind, names[i].kind);
		if ((found ? (int)layer : NO_LAYER) != names[i].layer)
			fail_msg("%s: layer %d", names[i].name, found ? (int)layer : NO_LAYER);
	}
}

#define CHECK(names) check_names(names, sizeof(names) / sizeof(*(names)))

static void test_families(void **state)
{
	(void)state;
	CHECK(llama);
	CHECK(experts);
	CHECK(gpt);
	CHECK(encoders);
	CHECK(pictures);
	CHECK(odd);
}

static void test_long_names(void **state)
{
	size_t n = 4u << 20;
	char *name = malloc(n + 1);

	(void)state;
	memset(name, 'a', n);
	name[n] = '\0';
	assert_int_equal(mkhct_kind_of(name, 0, NULL), OTHER);
	for (size_t i = 1; i < n; i += 2)
		name[i] = '.';
	assert_int_equal(mkhct_kind_of(name, 0, NULL), OTHER);
	for (size_t i = 0; i + 7 <= n; i += 7)
		memcpy(name + i, ".weight", 7);
	mkhct_kind_of(name, 0, NULL);
	free(name);
}

static void test_filters(void **state)
{
	static const uint64_t filters[4] = {64, 32, 3, 3}, matrix[4] = {1, 1, 256, 512};

	(void)state;
	assert_int_equal(mkhct_kind_of("features.0.weight", 4, filters), CONV);
	assert_int_equal(mkhct_kind_of("features.0.weight", 4, matrix), OTHER);
	assert_int_equal(mkhct_kind_of("features.0.weight", 2, filters), OTHER);
	assert_int_equal(mkhct_kind_of("features.0.weight", 0, NULL), OTHER);
}

static void test_every_kind_has_name_and_group(void **state)
{
	(void)state;
	for (int k = 0; k < MKHCT_KIND_COUNT; k++) {
		assert_non_null(mkhct_kind_name((enum mkhct_tensor_kind)k));
		assert_in_range(mkhct_kind_group((enum mkhct_tensor_kind)k), 0,
				MKHCT_GROUP_COUNT - 1);
	}
	assert_int_equal(mkhct_kind_group(KV), MKHCT_GROUP_QKV);
	assert_int_equal(mkhct_kind_group(SCALE), MKHCT_GROUP_EXACT);
	assert_int_equal(mkhct_kind_group(ROUTER), MKHCT_GROUP_OTHER);
	assert_int_equal(mkhct_kind_group(MLP), MKHCT_GROUP_MLP);
}

static void test_config(void **state)
{
	static const struct {
		const char *text;
		unsigned layers, extra;
	} cases[] = {
		{"{\"num_hidden_layers\": 32}", 32, 0},
		{"{\"n_layer\": 12, \"n_head\": 4}", 12, 0},
		{"{\"num_layers\": 6}", 6, 0},
		{"{\"n_layers\": 7}", 7, 0},
		{"{\"text_config\": {\"num_hidden_layers\": 40}, \"vision_config\": "
		 "{\"num_hidden_layers\": 27}}",
		 40, 0},
		{"{\"num_hidden_layers\": 61, \"num_nextn_predict_layers\": 1}", 61, 1},
		{"{\"num_hidden_layers\": 0}", 0, 0},
		{"{\"num_hidden_layers\": -3}", 0, 0},
		{"{\"num_hidden_layers\": \"12\"}", 0, 0},
		{"{\"num_hidden_layers\": 1e300}", 0, 0},
		{"{\"num_hidden_layers\": [12]}", 0, 0},
		{"{\"num_hidden_layers\": 12", 0, 0},
		{"[12]", 0, 0},
		{"", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		unsigned extra;

		assert_int_equal(mkhct_layer_config(cases[i].text, strlen(cases[i].text), &extra),
				 cases[i].layers);
		assert_int_equal(extra, cases[i].extra);
	}
}

/* Shows names with layers 0 to count - 1 of a stack. */
static void see_stack(struct mkhct_layers *l, const char *stack, unsigned count)
{
	char name[64];

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s%u.q_proj.weight", stack, i);
		assert_int_equal(mkhct_layers_see(l, name, NULL), HCT_OK);
	}
}

static void assert_layer(const struct mkhct_layers *l, const char *name, int layer, unsigned count)
{
	unsigned found_layer = 0, found_count = 0;
	int found = mkhct_layers_find(l, name, &found_layer, &found_count);

	assert_int_equal(found, layer != NO_LAYER);
	if (found) {
		assert_int_equal(found_layer, layer);
		assert_int_equal(found_count, count);
	}
}

static struct mkhct_layers *layers_new(const char *config)
{
	struct mkhct_layers *l;

	assert_int_equal(mkhct_layers_create(config, config ? strlen(config) : 0, &l, NULL),
			 HCT_OK);
	return l;
}

static void test_stacks(void **state)
{
	struct mkhct_layers *l = layers_new(NULL);

	(void)state;
	see_stack(l, "encoder.block.", 6);
	see_stack(l, "decoder.block.", 4);
	assert_layer(l, "encoder.block.5.layer.0.SelfAttention.q.weight", 5, 6);
	assert_layer(l, "decoder.block.0.layer.0.SelfAttention.q.weight", 0, 4);
	assert_layer(l, "other.block.0.q.weight", NO_LAYER, 0);
	assert_layer(l, "shared.weight", NO_LAYER, 0);
	mkhct_layers_free(l);
	mkhct_layers_free(NULL);
}

static void test_config_and_names(void **state)
{
	struct mkhct_layers *l = layers_new("{\"n_layer\": 12}");

	(void)state;
	see_stack(l, "h.", 6); /* a part of the model */
	see_stack(l, "vision.layers.", 3);
	assert_layer(l, "h.5.q", 5, 12);
	assert_layer(l, "vision.layers.2.q", 2, 3);
	mkhct_layers_free(l);

	l = layers_new("{\"num_hidden_layers\": 4}"); /* of something else */
	see_stack(l, "layers.", 9);
	assert_layer(l, "layers.8.q", 8, 9);
	mkhct_layers_free(l);

	l = layers_new("{\"num_hidden_layers\": 61, \"num_nextn_predict_layers\": 1}");
	see_stack(l, "model.layers.", 62);
	assert_layer(l, "model.layers.61.q", 61, 61);
	assert_layer(l, "model.layers.60.q", 60, 61);
	mkhct_layers_free(l);
}

static void test_many_stacks(void **state)
{
	struct mkhct_layers *l = layers_new(NULL);
	char name[64];

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "s%u.layers.3.q", i);
		assert_int_equal(mkhct_layers_see(l, name, NULL), HCT_OK);
	}
	assert_layer(l, "s0.layers.3.q", 3, 4);
	assert_layer(l, "s99999.layers.3.q", NO_LAYER, 0);
	mkhct_layers_free(l);
}

static void test_patterns(void **state)
{
	(void)state;
	assert_true(mkhct_pattern_matches("*.q_proj.weight", "model.layers.0.q_proj.weight"));
	assert_true(mkhct_pattern_matches("module*kernel", "module/Encoder/kernel"));
	assert_true(mkhct_pattern_matches("*", ".hidden/x"));
	assert_true(mkhct_pattern_matches("layers.[0-3].w", "layers.2.w"));
	assert_true(mkhct_pattern_matches("layers.?.w", "layers.2.w"));
	assert_true(mkhct_pattern_matches("a\\*", "a*"));
	assert_false(mkhct_pattern_matches("layers.?.w", "layers.22.w"));
	assert_false(mkhct_pattern_matches("q_proj", "layers.q_proj"));
	assert_false(mkhct_pattern_matches("Q_proj", "q_proj"));
	assert_true(mkhct_pattern_is_name("lm_head.weight"));
	assert_false(mkhct_pattern_is_name("lm_head.*"));
	assert_false(mkhct_pattern_is_name("lm_head.w[e]ight"));
}

/* Backtracking must not grow with the power of the stars. */
static void test_pattern_of_many_stars(void **state)
{
	char name[4096];

	(void)state;
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_false(mkhct_pattern_matches("*a*a*a*a*a*a*a*a*b", name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_every_kind_has_name_and_group),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_stacks),
		cmocka_unit_test(test_config_and_names),
		cmocka_unit_test(test_many_stacks),
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_pattern_of_many_stars),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
