#include "judge.h"

#include "checksum.h"
#include "plan.h"
#include "widen.h"

hct_error hct_judge(hct_encoder *e, const struct hct_codec *codec, const void *tables,
		    hct_dtype dtype, const uint8_t *data, size_t n, uint64_t first,
		    struct hct_encoded *out)
{
	size_t unit = hct_dtype_unit(dtype), length = n * unit;
	struct hct_tensor tensor = {.dtype = dtype};
	struct hct_task task = {.tensor = &tensor,
				.tables = tables,
				.offset = first * unit,
				.length = length,
				.end = length,
				.scratch = &e->decoding};
	struct hct_distance d = {0};

	if (!hct_buffer_reserve(&e->decoded, &e->decoded_capacity, length))
		return HCT_ERR_NOMEM;
	for (unsigned l = 0; l < out->layer_count; l++) {
		const char *why;
		hct_error err;

		task.layers[l] =
			(struct hct_payload){out->layers[l].payload, out->layers[l].length};
		task.layer_count = l + 1;
		err = codec->decode(&task, e->decoded, &why);
		if (err)
			return err;
		out->layers[l].digest = hct_checksum(e->decoded, length);
	}
	hct_distance_add(&d, dtype, data, e->decoded, n);
	out->energy = d.aa;
	out->decoded_energy = d.bb;
	out->error = d.dd;
	return HCT_OK;
}
