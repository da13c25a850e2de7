/* The entropy coder of FORMAT.md section 4, a lane of a substream in each lane of a warp. */
#ifndef HCT_GPU_RANS_CUH
#define HCT_GPU_RANS_CUH

#include "codec/bytes.h"
#include "codec/classmap.h"
#include "codec/rans.h"
#include "gpu/warp.cuh"

/* Bytes that a warp uses one after the other, few at a time.  They go through a ring in the block's
 * memory: what comes next is there before it is asked for, so that no step waits for the device's
 * memory, and its alignment does not matter.  All lanes hold the same, but for `ahead`. */
struct ring {
	static constexpr unsigned piece = 128; /* bytes that the lanes load together */
	static constexpr unsigned bytes = 2 * piece, words = bytes / 4;

	uint32_t *memory;     /* [words] */
	const uint32_t *from; /* the aligned word that holds the first byte */
	uint32_t shift;       /* bits of it that come before */
	uint32_t at, end;     /* next byte; of all */
	uint32_t filled;      /* bytes that have been put into memory */
	uint32_t ahead;       /* the lane's word of the piece that follows */
	struct place_in_warp lane;

	/* The word at byte c, a multiple of 4; of words that hold none of the bytes, nothing is
	 * read, and behind the end there are zeros or whatever shares a word with the last byte. */
	__device__ __forceinline__ uint32_t load(uint32_t c) const
	{
		const uint32_t *p = from + c / 4;
		uint64_t v = c < end ? __ldg(p) : 0;

		if (shift && c + 4 - shift / 8 < end)
			v |= (uint64_t)__ldg(p + 1) << 32;
		return (uint32_t)(v >> shift);
	}

	/* Memory may be read after the next __syncwarp. */
	__device__ __forceinline__ void start(const struct place_in_warp &l, uint32_t *ring_memory,
					      const uint8_t *p, uint32_t n)
	{
		unsigned off = (unsigned)((uintptr_t)p % 4);

		lane = l;
		memory = ring_memory;
		from = (const uint32_t *)(p - off);
		shift = 8 * off;
		at = 0;
		end = n;
		filled = bytes;
		memory[lane.id] = load(4 * lane.id);
		memory[lane.id + piece / 4] = load(4 * lane.id + piece);
		ahead = load(4 * lane.id + bytes);
	}

	/* Whether a piece has been used up; before more than another one is used it must be filled
	 * again: by all lanes, between two __syncwarp. */
	__device__ __forceinline__ bool wants() const
	{
		return at + piece >= filled;
	}

	__device__ __forceinline__ void fill()
	{
		memory[filled / 4 % words + lane.id] = ahead;
		filled += piece;
		ahead = load(filled + 4 * lane.id);
	}

	/* Byte i from the next one on. */
	__device__ __forceinline__ unsigned byte(unsigned i) const
	{
		return ((const uint8_t *)memory)[(at + i) % bytes];
	}

	/* Word i from the next byte on, where that lies at a multiple of 4. */
	__device__ __forceinline__ uint32_t word(unsigned i) const
	{
		return memory[(at / 4 + i) % words];
	}
};

/* Fills the rings of which a piece has been used up. */
__device__ __forceinline__ void refill(ring &a, ring &b, ring &c)
{
	if (!a.wants() && !b.wants() && !c.wants())
		return;
	__syncwarp();
	if (a.wants())
		a.fill();
	if (b.wants())
		b.fill();
	if (c.wants())
		c.fill();
	__syncwarp();
}

struct substream {
	uint32_t x; /* the lane's state */
	struct ring bytes;

	/* states: 32 of 2 bytes, of any alignment. */
	__device__ __forceinline__ void start(const struct place_in_warp &l, uint32_t *ring_memory,
					      const uint8_t *states, const uint8_t *p, uint32_t n)
	{
		states += 2 * l.id;
		x = __ldg(states) | (unsigned)__ldg(states + 1) << 8;
		bytes.start(l, ring_memory, p, n);
	}

	/* One symbol of each lane.  wide: of the slot, freq and rank << 24. */
	__device__ __forceinline__ void step(uint32_t wide)
	{
		bool low;
		unsigned all;

		x = (wide & 255) * (x >> 8) + (wide >> 24);
		low = x < HCT_RANS_LOW;
		all = __ballot_sync(FULL, low);
		if (low)
			x = x << 8 | bytes.byte(__popc(all & bytes.lane.below));
		bytes.at += __popc(all);
	}

	/* Whether the lane ended where the encoder began. */
	__device__ __forceinline__ bool finished() const
	{
		return bytes.at == bytes.end && x == HCT_RANS_LOW;
	}
};

/* The classes of a segment's runs of groups; each is loaded while the run before it is decoded. */
struct class_map {
	const uint8_t *bits;
	unsigned width, count, run;
	unsigned current;
	unsigned left;  /* groups of its run */
	unsigned bit;   /* of the next one */
	unsigned ahead; /* two bytes that hold it */
	bool bad;       /* a class that there is not */

	__device__ __forceinline__ void fetch()
	{
		ahead = __ldg(bits + bit / 8);
		ahead |= (unsigned)__ldg(bits + (bit + width - 1) / 8) << 8;
	}

	/* The byte behind the map is readable. */
	__device__ __forceinline__ void start(const uint8_t *bytes, unsigned class_count,
					      unsigned run_log2)
	{
		bits = bytes;
		width = kept(hct_class_bits(class_count));
		count = class_count;
		run = kept(1u << run_log2);
		current = 0;
		left = width ? 0 : ~0u;
		bit = 0;
		ahead = 0;
		bad = false;
		if (width)
			fetch();
	}

	/* The class of the next group. */
	__device__ __forceinline__ unsigned next()
	{
		/* once, but as a loop, which the compiler leaves where it is: it would do all of an
		 * `if` for each group, and keep what it needs */
		while (!left) {
			current = ahead >> bit % 8 & ((1u << width) - 1);
			bad |= current >= count;
			current = current < count ? current : 0;
			bit += width;
			fetch();
			left = run;
		}
		left--;
		return current;
	}
};

#endif
