/* Decoding of the tcq codec (FORMAT.md section 5): a warp decodes a segment, all layers of it. */
#ifndef HCT_GPU_TCQ_CUH
#define HCT_GPU_TCQ_CUH

#include "codec/flat.h"
#include "codec/tcq_exceptions.h"
#include "gpu/narrow.cuh"
#include "gpu/rans.cuh"

#define TCQ_RING_WORDS   (3 * ring::words) /* of the block's memory, for a layer in a warp */
#define TCQ_BLOCK_GROUPS 16                /* of one layer after the other */
#define TCQ_SUM_WORDS    (TCQ_BLOCK_GROUPS * HCT_GROUP)
/* Raw bits, at most, with which elements are looked up, and how many of them there are then. */
#define TCQ_LOOK_RAW   2
#define TCQ_LOOK_COUNT (HCT_TCQ_POINTS << TCQ_LOOK_RAW)

/* Words of the wide tables of a layer. */
__device__ __host__ __forceinline__ unsigned tcq_wide_words(const struct hct_flat_layer *l)
{
	return 2 * HCT_RANS_TOTAL * l->column_classes * l->row_classes;
}

/* One layer of a segment, in a warp. */
struct tcq_part {
	/* Bits of a state, and of them the one that says which of two tables it is. */
	static constexpr unsigned states = (HCT_TCQ_MAX_STATES - 1) << HCT_FLAT_STATE;
	static constexpr unsigned parity = 1u << HCT_FLAT_STATE;

	const uint32_t *wide;
	const uint8_t *columns; /* of the lane's first element; or NULL */
	uint32_t column, period, step;
	unsigned class_a, class_b; /* of the columns of the next group, times 8 */
	unsigned classes, raw_bits, odd;
	struct substream a, b;
	unsigned state_a, state_b; /* of the lane's trellises, << HCT_FLAT_STATE */
	struct class_map map;
	struct ring raw;
	struct hct_tcq_exceptions x;
	float scale;
	bool bad;

	__device__ __forceinline__ void load_classes()
	{
		if (!columns)
			return;
		class_a = 8 * __ldg(columns + column);
		class_b = 8 * __ldg(columns + column + HCT_LANES);
	}

	/* rings: TCQ_RING_WORDS, which may be read after the next __syncwarp. */
	__device__ __forceinline__ void start(const struct place_in_warp &lane,
					      const struct hct_flat_tcq *t, unsigned layer,
					      const struct hct_flat_tcq_segment *s,
					      const uint32_t *wide_tables, const uint8_t *in,
					      uint32_t *rings)
	{
		const struct hct_flat_layer *l = &t->layers[layer];
		const struct hct_flat_part part = s->parts[layer];
		const uint8_t *at = in + part.at, *p;
		unsigned groups = (s->elements + HCT_GROUP - 1) / HCT_GROUP;

		wide = wide_tables;
		columns = l->columns_at ? (const uint8_t *)t + l->columns_at + lane.id : nullptr;
		column = s->column;
		period = t->columns;
		step = HCT_GROUP % t->columns;
		class_a = class_b = 0;
		load_classes();
		classes = l->column_classes;
		raw_bits = l->raw_bits;
		odd = l->odd;
		scale = l->step;
		state_a = state_b = 0;
		p = at + HCT_TCQ_STATE_BYTES;
		map.start(p, l->row_classes, l->run_log2);
		p += hct_class_map_bytes(l->row_classes, l->run_log2, groups);
		a.start(lane, rings, at, p, part.a);
		p += part.a;
		b.start(lane, rings + ring::words, at + 2 * HCT_LANES, p, part.b);
		p += part.b;
		bad = a.x < HCT_RANS_LOW || b.x < HCT_RANS_LOW;
		if (hct_tcq_exceptions_start(&x, p, part.x, s->elements))
			end_exceptions();
		p += part.x;
		raw.start(lane, rings + 2 * ring::words, p, groups * 8 * raw_bits);
	}

	__device__ __forceinline__ void end_exceptions()
	{
		bad = true;
		x.at = SIZE_MAX;
	}

	/* The codes of the next group: of the lane's element and the one 32 behind it, 64 raw +
	 * 32 parity + symbol. */
	__device__ __forceinline__ void group(unsigned &code_a, unsigned &code_b)
	{
		const uint32_t *w = wide + map.next() * classes * (2 * HCT_RANS_TOTAL);
		unsigned raw_a = 0, raw_b = 0;
		uint32_t wide_a = w[class_a + (state_a & parity) + a.x % HCT_RANS_TOTAL];
		uint32_t wide_b = w[class_b + (state_b & parity) + b.x % HCT_RANS_TOTAL];

		column += step;
		column -= column >= period ? period : 0;
		load_classes();
		HCT_ROLL
		for (unsigned k = 0; k < raw_bits; k++) {
			/* the lane's two, side by side */
			unsigned v = raw.byte(8 * k + raw.lane.id / 4) >> 2 * raw.lane.id % 8;

			raw_a |= (v & 1) << k;
			raw_b |= (v >> 1 & 1) << k;
		}
		a.step(wide_a);
		b.step(wide_b);
		raw.at += 8 * raw_bits;
		code_a = raw_a << 6 | (wide_a >> 16 & 63);
		code_b = raw_b << 6 | (wide_b >> 16 & 63);
		state_a = (state_a >> 1 ^ wide_a ^ (odd & (0u - (raw_a & 1)))) & states;
		state_b = (state_b >> 1 ^ wide_b ^ (odd & (0u - (raw_b & 1)))) & states;
		refill(a.bytes, b.bytes, raw);
	}

	/* points: of the layer, by code without raw bits. */
	__device__ __forceinline__ float value(unsigned code, const float *points) const
	{
		if (!raw_bits)
			return points[code];
		return hct_tcq_raw_value(scale, raw_bits, code >> 5 & 1, code & 31, code >> 6);
	}

	/* Calls add(element, what is to be added there) for the exceptions up to the end of group
	 * g. */
	template <class Add> __device__ __forceinline__ void exceptions(unsigned g, Add add)
	{
		while (x.at < (size_t)(g + 1) * HCT_GROUP) {
			add((unsigned)x.at, (float)x.e * scale);
			if (hct_tcq_exceptions_next(&x))
				end_exceptions();
		}
	}

	/* The values of group g, the next one. */
	__device__ __forceinline__ void values(unsigned g, const float *points, float &value_a,
					       float &value_b)
	{
		unsigned first = g * HCT_GROUP + raw.lane.id, code_a, code_b;

		group(code_a, code_b);
		value_a = value(code_a, points);
		value_b = value(code_b, points);
		exceptions(g, [&](unsigned at, float more) {
			if (at == first)
				value_a = value_a + more;
			if (at == first + HCT_LANES)
				value_b = value_b + more;
		});
	}

	__device__ __forceinline__ bool ended_badly() const
	{
		return bad || map.bad || !a.finished() || !b.finished();
	}
};

__device__ __forceinline__ void tcq_finish(bool wrong, const struct hct_flat_tcq_segment *s,
					   uint32_t *bad)
{
	if (__any_sync(FULL, wrong) && !lane_id())
		atomicOr(&bad[s->item], 1);
}

/* What all kernels are given: groups, one for each block; segments; dtype is in the tables, but for
 * as_values; bad, a word for each item. */
struct tcq_job {
	const struct hct_flat_group *groups;
	const struct hct_flat_tcq_segment *segments;
	const uint8_t *in;
	uint8_t *out;
	uint32_t *bad;
	uint32_t as_values;  /* elements are floats that are transformed later */
	uint32_t wide_words; /* of the block's memory, for wide tables */
};

/* The elements of one layer, of 8 or 16 bits and with few raw bits, of which there are so few that
 * they are looked up.  The block's memory: wide tables, TCQ_LOOK_COUNT elements, and
 * TCQ_RING_WORDS for each warp. */
template <class Element>
__global__ void __launch_bounds__(256, 2) tcq_decode_looked_up(const struct tcq_job job)
{
	const struct hct_flat_group group = job.groups[blockIdx.x];
	const struct hct_flat_tcq *t = (const struct hct_flat_tcq *)(uintptr_t)group.tables;
	const struct hct_flat_layer *l = &t->layers[0];
	uint32_t *wide = (uint32_t *)block_memory();
	uint16_t *look = (uint16_t *)(wide + job.wide_words);
	uint32_t *rings = wide + job.wide_words + TCQ_LOOK_COUNT / 2 + warp_id() * TCQ_RING_WORDS;
	const unsigned raw_bits = l->raw_bits, dtype = t->dtype;
	const struct place_in_warp lane = my_lane();

	copy_words(wide, (const uint32_t *)((const uint8_t *)t + l->wide_at), tcq_wide_words(l));
	for (unsigned i = threadIdx.x; i < (unsigned)HCT_TCQ_POINTS << raw_bits; i += blockDim.x) {
		float v = hct_tcq_raw_value(l->step, raw_bits, i >> 5 & 1, i & 31, i >> 6);

		look[i] = (uint16_t)narrowed(raw_bits ? v : l->point[i], dtype);
	}
	__syncthreads();
	for (unsigned i = warp_id(); i < group.count; i += blockDim.x / 32) {
		const struct hct_flat_tcq_segment *s = &job.segments[group.first + i];
		const unsigned elements = s->elements, n = (elements + HCT_GROUP - 1) / HCT_GROUP;
		Element *to = (Element *)(job.out + s->out) + lane.id;
		unsigned first = lane.id;
		struct tcq_part part;

		part.start(lane, t, 0, s, wide, job.in, rings);
		__syncwarp();
		for (unsigned g = 0; g < n; g++) {
			const unsigned second = first + HCT_LANES;
			unsigned code_a, code_b, element_a, element_b;

			part.group(code_a, code_b);
			element_a = look[code_a];
			element_b = look[code_b];
			part.exceptions(g, [&](unsigned at, float more) {
				if (at == first)
					element_a = narrowed(part.value(code_a, l->point) + more,
							     dtype);
				if (at == second)
					element_b = narrowed(part.value(code_b, l->point) + more,
							     dtype);
			});
			if (first < elements)
				to[0] = (Element)element_a;
			if (second < elements)
				to[HCT_LANES] = (Element)element_b;
			first += HCT_GROUP;
			to += HCT_GROUP;
		}
		tcq_finish(part.ended_badly(), s, job.bad);
		__syncwarp();
	}
}

/* Stores the lane's two elements of a group. */
__device__ __forceinline__ void tcq_store(uint8_t *out, unsigned first, unsigned elements, float a,
					  float b, unsigned dtype)
{
	with_narrow(dtype, [&](auto narrow) {
		auto *to = (decltype(narrow(a)) *)out;

		if (first < elements)
			to[first] = narrow(a);
		if (first + HCT_LANES < elements)
			to[first + HCT_LANES] = narrow(b);
	});
}

/* The values of one layer.  The block's memory: wide tables, HCT_TCQ_POINTS points, and
 * TCQ_RING_WORDS for each warp. */
static __global__ void __launch_bounds__(256, 2) tcq_decode_one(const struct tcq_job job)
{
	const struct hct_flat_group group = job.groups[blockIdx.x];
	const struct hct_flat_tcq *t = (const struct hct_flat_tcq *)(uintptr_t)group.tables;
	const struct hct_flat_layer *l = &t->layers[0];
	uint32_t *wide = (uint32_t *)block_memory();
	float *points = (float *)(wide + job.wide_words);
	uint32_t *rings = wide + job.wide_words + HCT_TCQ_POINTS + warp_id() * TCQ_RING_WORDS;
	const unsigned dtype = job.as_values ? (unsigned)HCT_DTYPE_UNKNOWN : t->dtype;
	const struct place_in_warp lane = my_lane();

	copy_words(wide, (const uint32_t *)((const uint8_t *)t + l->wide_at), tcq_wide_words(l));
	copy_words((uint32_t *)points, (const uint32_t *)l->point, HCT_TCQ_POINTS);
	__syncthreads();
	for (unsigned i = warp_id(); i < group.count; i += blockDim.x / 32) {
		const struct hct_flat_tcq_segment *s = &job.segments[group.first + i];
		const unsigned elements = s->elements, n = (elements + HCT_GROUP - 1) / HCT_GROUP;
		struct tcq_part part;

		part.start(lane, t, 0, s, wide, job.in, rings);
		__syncwarp();
		for (unsigned g = 0; g < n; g++) {
			float a, b;

			part.values(g, points, a, b);
			tcq_store(job.out + s->out, g * HCT_GROUP + lane.id, elements, a, b, dtype);
		}
		tcq_finish(part.ended_badly(), s, job.bad);
		__syncwarp();
	}
}

/* A segment of several layers, which take turns of a few groups: while one of them is at work, the
 * others wait in local memory, so that any number fits into registers.  sums: TCQ_SUM_WORDS. */
__device__ __forceinline__ void
tcq_segment_of_layers(const struct tcq_job &job, const struct hct_flat_tcq *t,
		      const struct hct_flat_tcq_segment *s, const uint32_t *const *wide,
		      const float *points, uint32_t *rings, float *sums)
{
	const unsigned elements = s->elements, layers = s->layers;
	const unsigned n = (elements + HCT_GROUP - 1) / HCT_GROUP;
	const unsigned dtype = job.as_values ? (unsigned)HCT_DTYPE_UNKNOWN : t->dtype;
	const struct place_in_warp lane = my_lane();
	struct tcq_part parts[HCT_TCQ_MAX_LAYERS];
	bool wrong = false;

	HCT_ROLL
	for (unsigned l = 0; l < layers; l++)
		parts[l].start(lane, t, l, s, wide[l], job.in, rings + l * TCQ_RING_WORDS);
	__syncwarp();
	for (unsigned base = 0; base < n; base += TCQ_BLOCK_GROUPS) {
		const unsigned count = min(n - base, (unsigned)TCQ_BLOCK_GROUPS);

		HCT_ROLL
		for (unsigned l = 0; l < layers; l++) {
			struct tcq_part part = parts[l];

			HCT_ROLL
			for (unsigned g = 0; g < count; g++) {
				float *sum = sums + g * HCT_GROUP + lane.id, a, b;

				part.values(base + g, points + l * HCT_TCQ_POINTS, a, b);
				a = l ? sum[0] + a : a;
				b = l ? sum[HCT_LANES] + b : b;
				sum[0] = a;
				sum[HCT_LANES] = b;
				if (l == layers - 1)
					tcq_store(job.out + s->out,
						  (base + g) * HCT_GROUP + lane.id, elements, a, b,
						  dtype);
			}
			parts[l] = part;
		}
	}
	HCT_ROLL
	for (unsigned l = 0; l < layers; l++)
		wrong |= parts[l].ended_badly();
	tcq_finish(wrong, s, job.bad);
}

/* Any number of layers, and wide tables of any size: those that the block's memory has no room for
 * stay where they are.  The block's memory: wide tables, HCT_TCQ_POINTS points of each layer, and
 * for each warp the rings of each layer and its sums. */
static __global__ void __launch_bounds__(256, 2) tcq_decode_layers(const struct tcq_job job)
{
	const struct hct_flat_group group = job.groups[blockIdx.x];
	const struct hct_flat_tcq *t = (const struct hct_flat_tcq *)(uintptr_t)group.tables;
	uint32_t *memory = (uint32_t *)block_memory();
	float *points = (float *)(memory + job.wide_words);
	uint32_t *mine = memory + job.wide_words + HCT_TCQ_MAX_LAYERS * HCT_TCQ_POINTS +
			 warp_id() * (HCT_TCQ_MAX_LAYERS * TCQ_RING_WORDS + TCQ_SUM_WORDS);
	const uint32_t *wide[HCT_TCQ_MAX_LAYERS];
	unsigned used = 0;

	for (unsigned l = 0; l < HCT_TCQ_MAX_LAYERS; l++) {
		const struct hct_flat_layer *layer = &t->layers[l];
		const unsigned words = l < t->layer_count ? tcq_wide_words(layer) : 0;

		wide[l] = (const uint32_t *)((const uint8_t *)t + layer->wide_at);
		copy_words((uint32_t *)points + l * HCT_TCQ_POINTS, (const uint32_t *)layer->point,
			   HCT_TCQ_POINTS);
		if (words > job.wide_words - used)
			continue;
		copy_words(memory + used, wide[l], words);
		wide[l] = memory + used;
		used += words;
	}
	__syncthreads();
	for (unsigned i = warp_id(); i < group.count; i += blockDim.x / 32) {
		tcq_segment_of_layers(job, t, &job.segments[group.first + i], wide, points,
				      mine + TCQ_SUM_WORDS, (float *)mine);
		__syncwarp();
	}
}

#endif
