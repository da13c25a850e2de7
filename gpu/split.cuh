/* Decoding of the split codec (FORMAT.md section 4): a warp decodes a segment. */
#ifndef HCT_GPU_SPLIT_CUH
#define HCT_GPU_SPLIT_CUH

#include "codec/classmap.h"
#include "codec/flat.h"
#include "codec/gaps.h"
#include "gpu/rans.cuh"

/* How the bits of an element are dealt out, as struct hct_layout has them. */
template <unsigned Unit, unsigned Tail, unsigned Exponent, unsigned Mantissa, unsigned Joint>
struct layout {
	static constexpr unsigned unit = Unit, tail = Tail, exponent_bits = Exponent,
				  mantissa_bits = Mantissa, field_bits = 1 + Mantissa - Joint;
	static constexpr unsigned head_bits = Exponent + Mantissa;
	static constexpr unsigned exponent_mask = ((1u << Exponent) - 1) << Mantissa;
};
using layout_bf16 = layout<2, 0, 8, 7, 1>;
using layout_f16 = layout<2, 1, 5, 2, 1>;
using layout_f32 = layout<4, 2, 8, 7, 1>;
using layout_f64 = layout<8, 6, 11, 4, 1>;
using layout_e5m2 = layout<1, 0, 5, 2, 1>;
using layout_e4m3 = layout<1, 0, 4, 3, 2>;

/* The exceptions of a segment; all lanes read the same. */
struct split_exceptions {
	struct hct_bit_reader bits;
	uint32_t at; /* element of the next one; ~0 behind the last one */
	uint32_t left, elements;
	unsigned value, rice;
	bool bad;

	__device__ __forceinline__ void end(bool is_bad)
	{
		at = ~0u;
		left = 0;
		bad = is_bad;
	}

	/* exponent_bits: of one that is not in the table of rare ones. */
	__device__ __forceinline__ void next(const uint16_t *rare, unsigned exponent_bits)
	{
		uint64_t v;
		size_t gap;
		unsigned length, index;

		if (!left) {
			size_t rest = bits.end - bits.at;

			end(rest >= 8 || hct_bits_take(&bits, (unsigned)rest));
			return;
		}
		left--;
		v = hct_bits_peek(&bits);
		length = hct_gap_look(v, rice, &gap);
		index = hct_ctz64(v >> length | 1u << HCT_RARE_OTHER);
		bits.at += length + index + (index < HCT_RARE_OTHER);
		value = index < HCT_RARE_OTHER ? rare[index] : hct_bits_take(&bits, exponent_bits);
		at += 1 + (uint32_t)gap;
		if (bits.at > bits.end || at >= elements)
			end(true);
	}

	__device__ __forceinline__ void start(const uint8_t *list, uint32_t bytes, uint32_t n,
					      const uint16_t *rare, unsigned exponent_bits)
	{
		bits.data = list + HCT_EXCEPTION_HEAD;
		bits.at = bits.end = 0;
		elements = n;
		value = rice = 0;
		end(false);
		if (!bytes)
			return;
		if (bytes <= HCT_EXCEPTION_HEAD) {
			end(true);
			return;
		}
		left = hct_load32(list);
		rice = list[4];
		bits.end = 8 * (size_t)(bytes - HCT_EXCEPTION_HEAD);
		if (!left || rice > HCT_MAX_RICE)
			end(true);
		else
			next(rare, exponent_bits);
	}
};

/* The fields of a segment. */
template <class L> struct field_ring {
	struct ring bytes;
	unsigned word, shift; /* where those of the lane are in a group */

	__device__ __forceinline__ void start(const struct place_in_warp &lane,
					      uint32_t *ring_memory, const uint8_t *p,
					      unsigned groups)
	{
		unsigned bit = 2 * L::field_bits * lane.id;

		word = kept(bit / 32);
		shift = kept(bit % 32);
		bytes.start(lane, ring_memory, p, groups * 8 * L::field_bits);
	}

	/* Those of the lane's two elements of the next group: of the first one in the low bits. */
	__device__ __forceinline__ unsigned next()
	{
		uint64_t v = bytes.word(word);

		/* two of 2 or 4 bits never cross a word */
		if constexpr (L::field_bits == 7)
			v |= (uint64_t)bytes.word(word + 1) << 32;
		bytes.at += 8 * L::field_bits;
		return (unsigned)(v >> shift);
	}
};

/* The tail of an element, of T bytes at p. */
template <class L> __device__ __forceinline__ uint64_t load_tail(const uint8_t *p)
{
	constexpr unsigned n = L::tail;
	uint64_t v = 0;

	if constexpr (n > 0) {
		if (n % 2 == 0 && (uintptr_t)p % 2 == 0)
			for (unsigned i = 0; i < n; i += 2)
				v |= (uint64_t)__ldg((const uint16_t *)(p + i)) << 8 * i;
		else
			for (unsigned i = 0; i < n; i++)
				v |= (uint64_t)__ldg(p + i) << 8 * i;
	}
	return v;
}

/* Puts an element together; of head exponent and joint bits count, of field the lowest bits. */
template <class L>
__device__ __forceinline__ void store_element(unsigned head, unsigned field, uint64_t tail,
					      uint8_t *to)
{
	constexpr unsigned rest = L::field_bits - 1;

	head &= (1u << L::head_bits) - 1;
	head |= field & ((1u << rest) - 1);
	head |= (field >> rest & 1) << L::head_bits;
	if constexpr (L::unit == 1)
		*to = (uint8_t)head;
	else if constexpr (L::unit == 2)
		*(uint16_t *)to = (uint16_t)(head << 8 * L::tail | (unsigned)tail);
	else if constexpr (L::unit == 4)
		*(uint32_t *)to = head << 16 | (uint32_t)tail;
	else
		*(uint64_t *)to = (uint64_t)head << 48 | tail;
}

/* A head with another exponent. */
template <class L>
__device__ __forceinline__ unsigned replaced(unsigned head, unsigned exponent, unsigned shift)
{
	unsigned other = (exponent << L::mantissa_bits) + shift;

	return (head & ~L::exponent_mask) | (other & L::exponent_mask);
}

#define SPLIT_WARP_WORDS (3 * ring::words) /* of the block's memory */

/* One segment, in a warp.  wide: of all classes, in the block's memory. */
template <class L>
__device__ __forceinline__ void
split_segment(const struct place_in_warp &lane, const struct hct_flat_split *t,
	      const struct hct_flat_split_segment &s, const uint8_t *in, uint8_t *out,
	      uint32_t *bad, const uint32_t *wide, uint32_t *rings)
{
	const unsigned n = (s.elements + HCT_GROUP - 1) / HCT_GROUP, period = t->period;
	const uint16_t *shifts = (const uint16_t *)((const uint8_t *)t + t->shifts_at);
	const uint8_t *at = in + s.part.at, *p, *tail = in + s.tail + lane.id * L::tail;
	uint8_t *to = out + s.out + lane.id * L::unit;
	unsigned step = HCT_GROUP % period, column = s.column, first = lane.id;
	struct split_exceptions x;
	struct substream a, b;
	struct class_map map;
	struct field_ring<L> fields;
	bool wrong;

	map.start(at + HCT_SPLIT_STATE_BYTES, t->class_count, t->run_log2);
	p = at + HCT_SPLIT_STATE_BYTES + hct_class_map_bytes(t->class_count, t->run_log2, n);
	a.start(lane, rings, at, p, s.part.a);
	p += s.part.a;
	b.start(lane, rings + ring::words, at + 2 * HCT_LANES, p, s.part.b);
	p += s.part.b;
	x.start(p, s.part.x, s.elements, t->rare, L::exponent_bits);
	p += s.part.x;
	fields.start(lane, rings + 2 * ring::words, p, n);
	wrong = a.x < HCT_RANS_LOW || b.x < HCT_RANS_LOW;
	__syncwarp();
	for (unsigned g = 0; g < n; g++) {
		const unsigned second = first + HCT_LANES;
		const uint32_t *w = wide + HCT_RANS_TOTAL * map.next();
		const uint16_t *shift = shifts + (column + lane.id);
		unsigned shift_a = __ldg(shift), shift_b = __ldg(shift + HCT_LANES);
		uint64_t tail_a = first < s.elements ? load_tail<L>(tail) : 0;
		uint64_t tail_b =
			second < s.elements ? load_tail<L>(tail + HCT_LANES * L::tail) : 0;
		unsigned field = fields.next();
		uint32_t wide_a = w[a.x % HCT_RANS_TOTAL], wide_b = w[b.x % HCT_RANS_TOTAL];
		/* above the head is a rank, which nobody looks at */
		unsigned head_a = (wide_a >> 8) + shift_a, head_b = (wide_b >> 8) + shift_b;

		a.step(wide_a);
		b.step(wide_b);
		while (x.at < (g + 1) * HCT_GROUP) {
			if (x.at == first)
				head_a = replaced<L>(head_a, x.value, shift_a);
			if (x.at == second)
				head_b = replaced<L>(head_b, x.value, shift_b);
			x.next(t->rare, L::exponent_bits);
		}
		if (first < s.elements)
			store_element<L>(head_a, field, tail_a, to);
		if (second < s.elements)
			store_element<L>(head_b, field >> L::field_bits, tail_b,
					 to + HCT_LANES * L::unit);
		first += HCT_GROUP;
		tail += HCT_GROUP * L::tail;
		to += HCT_GROUP * L::unit;
		column += step;
		column -= column >= period ? period : 0;
		refill(a.bytes, b.bytes, fields.bytes);
	}
	wrong |= !a.finished() || !b.finished() || map.bad || x.bad;
	if (__any_sync(FULL, wrong) && !lane.id)
		atomicOr(&bad[s.item], 1);
}

/* groups: one for each block; bad: a word for each item.  The block's memory: tables of the
 * classes, then SPLIT_WARP_WORDS for each warp. */
template <class L>
__global__ void __launch_bounds__(256, 2)
	split_decode(const struct hct_flat_group *groups,
		     const struct hct_flat_split_segment *segments, const uint8_t *in, uint8_t *out,
		     uint32_t *bad)
{
	const struct hct_flat_group group = groups[blockIdx.x];
	const struct hct_flat_split *t = (const struct hct_flat_split *)(uintptr_t)group.tables;
	const unsigned words = HCT_RANS_TOTAL * t->class_count;
	const struct place_in_warp lane = my_lane();
	uint32_t *wide = (uint32_t *)block_memory();
	uint32_t *rings = wide + words + warp_id() * SPLIT_WARP_WORDS;

	copy_words(wide, (const uint32_t *)((const uint8_t *)t + t->wide_at), words);
	__syncthreads();
	for (unsigned i = warp_id(); i < group.count; i += blockDim.x / 32) {
		const struct hct_flat_split_segment s = segments[group.first + i];

		split_segment<L>(lane, t, s, in, out, bad, wide, rings);
		__syncwarp();
	}
}

#endif
