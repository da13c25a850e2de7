/* The search of codec/viterbi.h: a block of threads searches a segment.  It finds what the scalar
 * search finds, to the bit: values are rounded by the same operations on floats, all else is
 * integers, and sums that the CPU takes modulo 65536 are whole here, where they have room.
 *
 * Costs of branches do not depend on the path, so the block shares out the work: 64 threads, each
 * with a trellis of one lane and the costs of its states in registers, go through the groups, and
 * the others are a tile of groups ahead of them with the costs of its branches.  On the way back
 * the 64 follow the best path, and the others are a tile behind them with the codes. */
#ifndef HCT_GPU_SEARCH_CUH
#define HCT_GPU_SEARCH_CUH

#include "codec/viterbi.h"
#include "gpu/warp.cuh"

#define SEARCH_TILE    8                  /* groups */
#define SEARCH_HELPERS (32 * SEARCH_TILE) /* threads: a warp for each group of a tile */
#define SEARCH_THREADS (HCT_GROUP + SEARCH_HELPERS)
#define SEARCH_COSETS  HCT_VITERBI_COSETS

/* What the segments of a batch share.  pairs and stand_in: as in struct hct_viterbi, for the
 * classes that there are. */
struct search_layer {
	const uint32_t *pairs;   /* [row class][parity][column class][64] */
	const uint8_t *stand_in; /* [row class][column class][parity][2] */
	const uint8_t *columns;  /* classes of columns; NULL: one class */
	uint32_t period;
	unsigned raw_bits, column_classes, row_classes, run_log2, exception;
	float scale; /* 64 / step */
	bool choose; /* the row classes of runs */
};

/* All but x, and map where it is not chosen, is found. */
struct search_segment {
	const float *x;
	uint8_t *map, *codes;
	uint64_t *planes, *marks;
	void *chosen; /* scratch: of each element, a bit for each state: which state came before */
	uint32_t groups, column;
};

/* Words of pairs. */
HCT_INLINE unsigned search_pairs(unsigned row_classes, unsigned column_classes)
{
	return row_classes * column_classes * 2 * 64;
}

/* Bytes of the block's memory: pairs, and two tiles of costs, which on the way back hold steps. */
static inline unsigned search_memory(unsigned row_classes, unsigned column_classes)
{
	return 4 * search_pairs(row_classes, column_classes) +
	       2 * SEARCH_TILE * HCT_GROUP * (unsigned)sizeof(uint64_t);
}

/* A value in step / 64, far beyond any symbol something that is so, too: 256 base + part. */
struct search_value {
	int base;
	unsigned part;

	__device__ __forceinline__ search_value(float x, float scale)
	{
		const float limit = 2097152.0f, magic = 12582912.0f; /* 2^21, 1.5 * 2^23 */
		float y = __fmul_rn(x, scale);
		int whole;

		y = y > limit ? limit : y;
		y = y < -limit ? -limit : y;
		whole = __float_as_int(__fadd_rn(y, magic)) - 0x4b400000;
		base = whole >> 8;
		part = (unsigned)(whole & 255);
	}
};

/* Where the symbols of a group have their tables. */
struct search_place {
	const struct search_layer *t;
	const uint8_t *columns; /* of the group, or NULL */
	unsigned row;

	__device__ __forceinline__ search_place(const struct search_layer *layer,
						const struct search_segment *s, unsigned g)
	{
		t = layer;
		columns = nullptr;
		if (t->columns)
			columns = t->columns + (s->column + g * HCT_GROUP) % t->period;
		row = s->map[g >> t->run_log2];
	}

	__device__ __forceinline__ unsigned column_class(unsigned l) const
	{
		return columns ? columns[l] : 0;
	}

	/* The pairs of a lane, for symbols of a parity. */
	__device__ __forceinline__ const uint32_t *table(const uint32_t *pairs, unsigned q,
							 unsigned parity) const
	{
		return pairs + ((row * 2 + parity) * t->column_classes + q) * 64;
	}
};

/* The best point of a coset for a value. */
struct search_branch {
	unsigned cost;
	int code; /* without HCT_TCQ_ZERO and its raw bits; of no meaning for an exception */
	bool exception;

	/* Bits and squared error of code k; d: of the value from its nominal point. */
	static __device__ __forceinline__ unsigned price(const uint32_t *table, int k, int d,
							 unsigned raw_bits)
	{
		unsigned s = (unsigned)((k >> raw_bits) + HCT_TCQ_ZERO);
		uint32_t pair = table[s < HCT_TCQ_SYMBOLS ? s : HCT_TCQ_SYMBOLS];
		int far = d - (int)(int16_t)(pair >> 16);

		far = far < 0 ? -far : far;
		far = far < 255 ? far : 255;
		return (pair & 0xffff) + ((unsigned)(far * far) >> 4);
	}

	__device__ __forceinline__ search_branch(const search_value &v, unsigned coset,
						 const uint32_t *table,
						 const struct search_layer *t)
	{
		int part = (int)v.part - 64 * (int)coset, low = part < 0;
		int k = 2 * (v.base - low) + (int)(coset >> 1), d = part + 256 * low;
		unsigned below = price(table, k, d, t->raw_bits);
		unsigned above = price(table, k + 2, d - 256, t->raw_bits);

		cost = t->exception;
		code = k;
		exception = true;
		if (above <= cost) {
			cost = above;
			code = k + 2;
			exception = false;
		}
		if (below <= cost) {
			cost = below;
			code = k;
			exception = false;
		}
	}
};

__device__ __forceinline__ unsigned warp_sum(unsigned v)
{
	for (unsigned d = 16; d; d /= 2)
		v += __shfl_sync(FULL, v, (int)(lane_id() ^ d));
	return v;
}

/* The row class of a run, in a warp: that where the symbols nearest to its elements cost least. */
__device__ __forceinline__ unsigned choose_class(const struct search_layer *t,
						 const struct search_segment *s,
						 const uint32_t *pairs, unsigned run)
{
	unsigned first = run << t->run_log2, end = first + (1u << t->run_log2), best = 0, least = 0;
	unsigned costs[HCT_TCQ_MAX_ROWS] = {0};

	end = end < s->groups ? end : s->groups;
	for (unsigned i = first * HCT_GROUP + lane_id(); i < end * HCT_GROUP; i += 32) {
		search_value v(s->x[i], t->scale);
		unsigned q = 0;
		int symbol =
			((2 * v.base + (int)((v.part + 64) / 128)) >> t->raw_bits) + HCT_TCQ_ZERO;

		if (t->columns)
			q = t->columns[(s->column + i) % t->period];
		symbol = symbol < 0 ? 0 : symbol < HCT_TCQ_SYMBOLS ? symbol : HCT_TCQ_SYMBOLS - 1;
		HCT_UNROLL
		for (unsigned k = 0; k < HCT_TCQ_MAX_ROWS; k++)
			if (k < t->row_classes) {
				unsigned rate = pairs[(k * 2 * t->column_classes + q) * 64 +
						      (unsigned)symbol] &
						0xffff;

				costs[k] += rate < t->exception ? rate : t->exception;
			}
	}
	HCT_UNROLL
	for (unsigned k = 0; k < HCT_TCQ_MAX_ROWS; k++)
		if (k < t->row_classes) {
			unsigned sum = warp_sum(costs[k]);

			if (!k || sum < least) {
				best = k;
				least = sum;
			}
		}
	return best;
}

/* The costs of a tile's branches, by its helpers: 16 bits for each coset. */
__device__ __forceinline__ void price_tile(const struct search_layer *t,
					   const struct search_segment *s, const uint32_t *pairs,
					   unsigned tile, uint64_t *costs)
{
	unsigned helper = threadIdx.x - HCT_GROUP, g = tile * SEARCH_TILE + helper / 32;

	if (g >= s->groups)
		return;
	search_place place(t, s, g);
	for (unsigned l = lane_id(); l < HCT_GROUP; l += 32) {
		search_value v(s->x[g * HCT_GROUP + l], t->scale);
		unsigned q = place.column_class(l);
		uint64_t all = 0;

		HCT_UNROLL
		for (unsigned o = 0; o < SEARCH_COSETS; o++) {
			search_branch b(v, o, place.table(pairs, q, o & 1), t);

			all |= (uint64_t)b.cost << 16 * o;
		}
		costs[helper / 32 * HCT_GROUP + l] = all;
	}
}

/* The trellis of one lane. */
template <unsigned Log2> struct search_trellis {
	static constexpr unsigned states = 1u << Log2;
	uint32_t cost[states];

	__device__ __forceinline__ void start()
	{
		HCT_UNROLL
		for (unsigned s = 0; s < states; s++)
			cost[s] = s ? HCT_VITERBI_NEVER : 0;
	}

	/* Add, compare, select.  Returns a bit for each state.  In the first groups, states that
	 * cannot be reached yet cost more than any that can. */
	__device__ __forceinline__ uint32_t step(uint64_t costs)
	{
		uint32_t next[states], bits = 0, branch[SEARCH_COSETS];

		HCT_UNROLL
		for (unsigned o = 0; o < SEARCH_COSETS; o++)
			branch[o] = (uint32_t)(costs >> 16 * o) & 0xffff;
		HCT_UNROLL
		for (unsigned s = 0; s < states; s++) {
			const unsigned p = hct_viterbi_prev(Log2, s, 0),
				       q = hct_viterbi_prev(Log2, s, 1);
			uint32_t a = cost[p & 31] + branch[hct_viterbi_coset(p)];
			uint32_t b = cost[q & 31] + branch[hct_viterbi_coset(q)];

			next[s] = b < a ? b : a;
			bits |= b < a ? 1u << s : 0;
		}
		HCT_UNROLL
		for (unsigned s = 0; s < states; s++)
			cost[s] = next[s];
		return bits;
	}

	/* The best state. */
	__device__ __forceinline__ unsigned end() const
	{
		uint32_t least = cost[0];
		unsigned state = 0;

		HCT_UNROLL
		for (unsigned s = 1; s < states; s++)
			if (cost[s] < least) {
				least = cost[s];
				state = s;
			}
		return state;
	}
};

/* Bits of the states of a trellis. */
template <unsigned Log2> struct search_bits {
	typedef uint16_t word;
};
template <> struct search_bits<5> {
	typedef uint32_t word;
};

/* One of 64 threads: its trellis through the groups of a tile. */
template <unsigned Log2>
__device__ __forceinline__ void forward(search_trellis<Log2> &trellis,
					const struct search_segment *s, unsigned tile,
					const uint64_t *costs)
{
	typedef typename search_bits<Log2>::word word;
	word *chosen = (word *)s->chosen + (size_t)tile * SEARCH_TILE * HCT_GROUP + threadIdx.x;
	unsigned left = s->groups - tile * SEARCH_TILE;

	costs += threadIdx.x;
	for (unsigned i = 0; i < SEARCH_TILE && i < left; i++)
		chosen[i * HCT_GROUP] = (word)trellis.step(costs[i * HCT_GROUP]);
}

/* One of 64 threads: its best path back through a tile.  Returns the state before it. */
template <unsigned Log2>
__device__ __forceinline__ unsigned back(unsigned state, const struct search_segment *s,
					 unsigned tile, uint8_t *steps)
{
	typedef typename search_bits<Log2>::word word;
	const word *chosen =
		(const word *)s->chosen + (size_t)tile * SEARCH_TILE * HCT_GROUP + threadIdx.x;
	unsigned left = s->groups - tile * SEARCH_TILE;
	uint32_t bits[SEARCH_TILE]; /* read before the first is waited for */

	HCT_UNROLL
	for (unsigned i = 0; i < SEARCH_TILE; i++)
		bits[i] = i < left ? chosen[i * HCT_GROUP] : 0;
	HCT_UNROLL
	for (unsigned j = 0; j < SEARCH_TILE; j++) {
		const unsigned i = SEARCH_TILE - 1 - j;

		if (i < left) {
			unsigned prev = hct_viterbi_prev(Log2, state, bits[i] >> state & 1);

			steps[i * HCT_GROUP + threadIdx.x] = (uint8_t)prev;
			state = prev & 31;
		}
	}
	return state;
}

/* What came out for an element: its code, raw bits in the second byte, and a mark above. */
__device__ __forceinline__ unsigned finish_element(const struct search_layer *t,
						   const struct search_segment *s,
						   const search_place &place, const uint32_t *pairs,
						   unsigned g, unsigned l, unsigned prev)
{
	unsigned q = place.column_class(l), parity = prev & 1, z = prev >> 5, b = t->raw_bits;
	search_value v(s->x[g * HCT_GROUP + l], t->scale);
	search_branch best(v, hct_viterbi_coset(prev), place.table(pairs, q, parity), t);
	unsigned code = (unsigned)(best.code + (HCT_TCQ_ZERO << b));

	if (best.exception) {
		const uint8_t *stand_in =
			t->stand_in + ((place.row * t->column_classes + q) * 2 + parity) * 2;

		code = (unsigned)stand_in[b ? 0 : z] << b | (b ? z : 0);
	}
	return (q << 6 | parity << 5 | code >> b) | (code & ((1u << b) - 1)) << 8 |
	       (best.exception ? 1u << 16 : 0);
}

/* The codes of a tile, by its helpers. */
__device__ __forceinline__ void finish_tile(const struct search_layer *t,
					    const struct search_segment *s, const uint32_t *pairs,
					    unsigned tile, const uint8_t *steps)
{
	unsigned helper = threadIdx.x - HCT_GROUP, lane = lane_id();
	unsigned g = tile * SEARCH_TILE + helper / 32, first, second, raw, low, high;

	if (g >= s->groups)
		return;
	search_place place(t, s, g);
	steps += helper / 32 * HCT_GROUP;
	first = finish_element(t, s, place, pairs, g, lane, steps[lane]);
	second = finish_element(t, s, place, pairs, g, lane + HCT_LANES, steps[lane + HCT_LANES]);
	((uint16_t *)s->codes)[g * HCT_LANES + lane] =
		(uint16_t)((first & 255) | (second & 255) << 8);
	low = __ballot_sync(FULL, first >> 16 != 0);
	high = __ballot_sync(FULL, second >> 16 != 0);
	if (!lane)
		s->marks[g] = (uint64_t)high << 32 | low;
	if (!t->raw_bits)
		return;
	/* In order of position: lanes of the two halves in turns. */
	raw = (first >> 8 & 255) | (second >> 8 & 255) << 8;
	first = __shfl_sync(FULL, raw, (int)(lane / 2)) >> 8 * (lane & 1);
	second = __shfl_sync(FULL, raw, (int)(lane / 2 + 16)) >> 8 * (lane & 1);
	for (unsigned j = 0; j < t->raw_bits; j++) {
		low = __ballot_sync(FULL, first >> j & 1);
		high = __ballot_sync(FULL, second >> j & 1);
		if (!lane)
			s->planes[g * t->raw_bits + j] = (uint64_t)high << 32 | low;
	}
}

/* A block for each segment, of SEARCH_THREADS, with search_memory bytes. */
template <unsigned Log2>
__global__ void __launch_bounds__(SEARCH_THREADS, 2)
	search_segments(struct search_layer layer, const struct search_segment *segments)
{
	const struct search_segment s = segments[blockIdx.x];
	const struct search_layer *t = &layer;
	unsigned words = search_pairs(t->row_classes, t->column_classes);
	uint32_t *pairs = (uint32_t *)block_memory();
	uint64_t *costs = (uint64_t *)(pairs + words);
	uint8_t *steps = (uint8_t *)costs;
	const unsigned half = SEARCH_TILE * HCT_GROUP;
	unsigned tiles = (s.groups + SEARCH_TILE - 1) / SEARCH_TILE, state = 0;
	bool helps = threadIdx.x >= HCT_GROUP;
	search_trellis<Log2> trellis;

	copy_words(pairs, t->pairs, words);
	__syncthreads();
	if (t->choose) {
		unsigned runs = (s.groups + (1u << t->run_log2) - 1) >> t->run_log2;

		for (unsigned r = threadIdx.x / 32; r < runs; r += SEARCH_THREADS / 32) {
			unsigned best = choose_class(t, &s, pairs, r);

			if (!lane_id())
				s.map[r] = (uint8_t)best;
		}
		__syncthreads();
	}
	if (helps)
		price_tile(t, &s, pairs, 0, costs);
	else
		trellis.start();
	for (unsigned i = 0; i < tiles; i++) {
		__syncthreads(); /* the tile's costs are there, and those before it done with */
		if (!helps)
			forward(trellis, &s, i, costs + i % 2 * half);
		else if (i + 1 < tiles)
			price_tile(t, &s, pairs, i + 1, costs + (i + 1) % 2 * half);
	}
	__syncthreads();
	if (!helps)
		state = back<Log2>(trellis.end(), &s, tiles - 1, steps + (tiles - 1) % 2 * half);
	for (unsigned i = tiles; i-- > 0;) {
		__syncthreads(); /* the tile's steps are there, and those behind it done with */
		if (helps)
			finish_tile(t, &s, pairs, i, steps + i % 2 * half);
		else if (i)
			state = back<Log2>(state, &s, i - 1, steps + (i - 1) % 2 * half);
	}
}

#endif
