/* The role of a tensor in its model, told from its name and shape.
 *
 * A table of the names of common families (Llama, Qwen, Mistral, Mixtral, Gemma, GPT-2,
 * GPT-J, GPT-NeoX, Falcon, MPT, Phi, DeepSeek, OLMoE, DBRX, BERT, DistilBERT, T5, Whisper,
 * CLIP, ViT, DiT, and Tensor2Tensor's) on the last components of a name; case does not
 * matter, and '/' separates like '.'.  What the table does not have is MKHCT_KIND_OTHER.
 * Pure functions, from any thread. */
#ifndef MKHCT_KIND_H
#define MKHCT_KIND_H

#include <stdint.h>

enum mkhct_tensor_kind {
	MKHCT_KIND_OTHER,
	MKHCT_KIND_NORM,
	MKHCT_KIND_BIAS,
	MKHCT_KIND_SCALE,     /* of weights that are quantised already */
	MKHCT_KIND_EMBEDDING, /* of tokens, and of types of tokens */
	MKHCT_KIND_POSITION,  /* embedding of positions */
	MKHCT_KIND_HEAD,
	MKHCT_KIND_Q,
	MKHCT_KIND_K,
	MKHCT_KIND_V,
	MKHCT_KIND_O,
	MKHCT_KIND_QKV,
	MKHCT_KIND_KV,
	MKHCT_KIND_GATE,    /* of an MLP, like all up to MLP */
	MKHCT_KIND_UP,      /* also the first of two matrices */
	MKHCT_KIND_DOWN,    /* also the second of two */
	MKHCT_KIND_GATE_UP, /* fused */
	MKHCT_KIND_MLP,     /* some other matrix of it */
	MKHCT_KIND_ROUTER,  /* of a mixture of experts */
	MKHCT_KIND_CONV,
	MKHCT_KIND_COUNT
};

/* Kinds that a policy treats alike. */
enum mkhct_kind_group {
	MKHCT_GROUP_OTHER,
	MKHCT_GROUP_EXACT, /* norms, biases, scales: lossless in every policy */
	MKHCT_GROUP_EMBEDDING,
	MKHCT_GROUP_HEAD,
	MKHCT_GROUP_QK,
	MKHCT_GROUP_VO,
	MKHCT_GROUP_QKV, /* fused, with a V in it */
	MKHCT_GROUP_MLP,
	MKHCT_GROUP_COUNT
};

enum mkhct_tensor_kind mkhct_kind_of(const char *name, unsigned rank, const uint64_t *shape);

/* "norm", "fused q, k, v" ...: for reports. */
const char *mkhct_kind_name(enum mkhct_tensor_kind kind);

enum mkhct_kind_group mkhct_kind_group(enum mkhct_tensor_kind kind);

#endif
