/* Describes the work of a batch, and launches the kernels that do it. */
#include "gpu/decode.h"

#include <cstring>

#include "gpu/idct.cuh"
#include "gpu/launch.cuh"
#include "gpu/split.cuh"
#include "gpu/tcq.cuh"

namespace
{

/* In the order in which they are launched: tiles need the values before them. */
enum kind {
	SPLIT_BF16,
	SPLIT_F16,
	SPLIT_F32,
	SPLIT_F64,
	SPLIT_E5M2,
	SPLIT_E4M3,
	TCQ_LOOK_8,
	TCQ_LOOK_16,
	TCQ_ONE,
	TCQ_ONE_VALUES,
	TCQ_LAYERS,
	TCQ_LAYERS_VALUES,
	TILES_16,
	TILES_32,
	TILES_64,
	KINDS
};
static_assert(KINDS <= GPU_WORK_LAUNCHES, "more kinds of kernels than there is room for");

/* A block has few warps, so that the segments of a batch are spread over the multiprocessors; and
 * more where their tables leave room for few blocks. */
constexpr unsigned few_warps = 4, many_warps = 8;
constexpr size_t large_tables = 48 << 10;

/* What is collected for the launch of a kind. */
struct collected {
	unsigned groups, segments;
	size_t tables; /* bytes of the largest ones in the block's memory */
};

/* Bytes of the block's memory that a kind needs besides tables: for all, and for each warp. */
struct needs {
	size_t block, warp;
};

needs needs_of(unsigned k)
{
	if (k <= SPLIT_E4M3)
		return {0, SPLIT_WARP_WORDS * 4};
	if (k <= TCQ_LOOK_16)
		return {TCQ_LOOK_COUNT * 2, TCQ_RING_WORDS * 4};
	if (k <= TCQ_ONE_VALUES)
		return {HCT_TCQ_POINTS * 4, TCQ_RING_WORDS * 4};
	return {HCT_TCQ_MAX_LAYERS * HCT_TCQ_POINTS * 4,
		(HCT_TCQ_MAX_LAYERS * TCQ_RING_WORDS + TCQ_SUM_WORDS) * 4};
}

unsigned split_kind(const hct_flat_split *t)
{
	switch (t->unit) {
	case 1:
		return t->exponent_bits == 5 ? SPLIT_E5M2 : SPLIT_E4M3;
	case 2:
		return t->exponent_bits == 8 ? SPLIT_BF16 : SPLIT_F16;
	case 4:
		return SPLIT_F32;
	default:
		return SPLIT_F64;
	}
}

size_t split_tables(const hct_flat_split *t)
{
	return (size_t)t->class_count * HCT_RANS_TOTAL * 4;
}

bool has_tiles(const hct_flat_tcq *t)
{
	return t->tile_rows_log2 + t->tile_columns_log2 != 0;
}

size_t tcq_tables(const hct_flat_tcq *t)
{
	size_t n = 0;

	for (unsigned l = 0; l < t->layer_count; l++)
		n += 4 * (size_t)tcq_wide_words(&t->layers[l]);
	return n;
}

/* room: bytes of the block's memory for tables, at least. */
unsigned tcq_kind(const hct_flat_tcq *t, const hct_flat_tcq_segment *s, size_t room)
{
	if (s->layers > 1 || 4 * (size_t)tcq_wide_words(&t->layers[0]) > room)
		return has_tiles(t) ? TCQ_LAYERS_VALUES : TCQ_LAYERS;
	if (has_tiles(t))
		return TCQ_ONE_VALUES;
	if (t->layers[0].raw_bits > TCQ_LOOK_RAW)
		return TCQ_ONE;
	switch (t->dtype) {
	case HCT_DTYPE_BF16:
	case HCT_DTYPE_F16:
		return TCQ_LOOK_16;
	case HCT_DTYPE_F32:
	case HCT_DTYPE_F64:
		return TCQ_ONE;
	default:
		return TCQ_LOOK_8;
	}
}

unsigned tiles_kind(const hct_flat_tiles *t)
{
	uint32_t log2 = max(t->tile_rows_log2, t->tile_columns_log2);

	return log2 == 6 ? TILES_64 : log2 == 5 ? TILES_32 : TILES_16;
}

/* Bytes of the block's memory for a panel of tiles. */
size_t panel_bytes(const hct_flat_tiles *t)
{
	return 4 * (PANEL_ELEMENTS + ((size_t)PANEL_ELEMENTS >> t->tile_columns_log2));
}

uint32_t tile_count(const hct_flat_tiles *t)
{
	return (t->rows >> t->tile_rows_log2) * (t->columns >> t->tile_columns_log2);
}

uint32_t panel_count(const hct_flat_tiles *t)
{
	return (tile_count(t) + panel_tiles(t) - 1) / panel_tiles(t);
}

size_t round_up(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

/* Packs a batch. */
struct packer {
	const hct_device_batch *batch;
	const hct_flat_list *list;
	const gpu_limits *limits;
	const uint64_t *addresses;
	gpu_work *work;
	uint8_t *out;
	uint64_t at;

	uint32_t tables_of(uint32_t item) const
	{
		return batch->tables_of[item];
	}

	/* Room in what is packed. */
	void *take(size_t n, uint64_t *place)
	{
		*place = at;
		at += round_up(n);
		return out + *place;
	}

	void copy(const void *from, size_t n, uint64_t *place)
	{
		void *to = take(n, place);

		if (n)
			memcpy(to, from, n);
	}

	gpu_launch *begin(unsigned kind)
	{
		gpu_launch *l = &work->launches[work->count++];

		memset(l, 0, sizeof *l);
		l->kind = kind;
		return l;
	}

	/* So that every multiprocessor has something to do, and not more of the block's memory
	 * than there is. */
	unsigned warps_of(unsigned kind, size_t segments, size_t tables) const
	{
		size_t n = (segments + limits->multiprocessors - 1) / limits->multiprocessors;
		size_t most = tables > large_tables ? many_warps : few_warps;
		needs need = needs_of(kind);

		n = n < most ? n : most;
		while (n > 1 && need.block + need.warp * n + tables > limits->shared)
			n--;
		return n ? (unsigned)n : 1;
	}

	/* The groups of one kind: segments of the same tables that follow one another.  Kind, size
	 * of tables and item of a segment are what `about` says. */
	template <class About> void add_groups(unsigned kind, size_t segments, About about)
	{
		size_t tables = 0, count = 0;

		for (size_t i = 0; i < segments; i++) {
			segment_facts f = about(i);

			if (f.kind == kind) {
				count++;
				tables = f.tables > tables ? f.tables : tables;
			}
		}
		if (count)
			make_groups(begin(kind), count, tables, segments, about);
	}

	struct segment_facts {
		unsigned kind;
		size_t tables;
		uint32_t item;
	};

	template <class About>
	void make_groups(gpu_launch *l, size_t count, size_t tables, size_t segments, About about)
	{
		needs need = needs_of(l->kind);
		hct_flat_group *groups = (hct_flat_group *)take(0, &l->groups_at), *g = nullptr;
		size_t room = limits->shared - need.block - need.warp;
		unsigned warps;

		tables = tables < room ? tables : room / 4 * 4;
		warps = warps_of(l->kind, count, tables);
		l->threads = 32 * warps;
		l->shared = need.block + need.warp * warps + tables;
		l->tables = tables;
		for (size_t i = 0; i < segments; i++) {
			segment_facts f = about(i);
			uint64_t address;

			if (f.kind != l->kind)
				continue;
			address = addresses[tables_of(f.item)];
			if (!g || g->tables != address || g->count == warps ||
			    g->first + g->count != i) {
				g = groups + l->blocks++;
				*g = {address, (uint32_t)i, 0};
			}
			g->count++;
		}
		at += round_up(l->blocks * sizeof *g);
	}

	void add_split()
	{
		auto about = [this](size_t i) {
			const hct_flat_split_segment *s = &list->split[i];
			const auto *t =
				(const hct_flat_split *)batch->tables[tables_of(s->item)].flat;

			return segment_facts{split_kind(t), split_tables(t), s->item};
		};

		copy(list->split, list->split_count * sizeof *list->split, &work->split_at);
		for (unsigned k = SPLIT_BF16; k <= SPLIT_E4M3; k++)
			add_groups(k, list->split_count, about);
	}

	void add_tcq()
	{
		needs need = needs_of(TCQ_LOOK_16);
		size_t room = limits->shared - need.block - need.warp;
		auto about = [this, room](size_t i) {
			const hct_flat_tcq_segment *s = &list->tcq[i];
			const auto *t =
				(const hct_flat_tcq *)batch->tables[tables_of(s->item)].flat;

			return segment_facts{tcq_kind(t, s, room), tcq_tables(t), s->item};
		};

		copy(list->tcq, list->tcq_count * sizeof *list->tcq, &work->tcq_at);
		for (unsigned k = TCQ_LOOK_8; k <= TCQ_LAYERS_VALUES; k++)
			add_groups(k, list->tcq_count, about);
	}

	void add_panels(unsigned kind)
	{
		gpu_launch *l = nullptr;
		gpu_panel *p = nullptr;

		for (size_t i = 0; i < list->tiles_count; i++) {
			const hct_flat_tiles *t = &list->tiles[i];
			uint32_t left = tile_count(t), most = panel_tiles(t);

			if (tiles_kind(t) != kind)
				continue;
			if (!l) {
				l = begin(kind);
				p = (gpu_panel *)take(0, &l->groups_at);
			}
			if (panel_bytes(t) > l->shared)
				l->shared = panel_bytes(t);
			for (uint32_t first = 0; left; first += most) {
				uint32_t n = left < most ? left : most;

				p[l->blocks++] = {(uint32_t)i, first, n};
				left -= n;
			}
		}
		if (l) {
			l->threads = PANEL_THREADS;
			at += round_up(l->blocks * sizeof *p);
		}
	}

	void add_tiles()
	{
		copy(list->tiles, list->tiles_count * sizeof *list->tiles, &work->tiles_at);
		for (unsigned k = TILES_16; k <= TILES_64; k++)
			add_panels(k);
	}
};

/* A kernel that may take all of the block's memory. */
template <class Kernel> cudaError_t allow(Kernel kernel, size_t shared)
{
	return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
				    (int)shared);
}

cudaError_t allow_all(size_t shared)
{
	cudaError_t e[] = {
		allow(split_decode<layout_bf16>, shared),
		allow(split_decode<layout_f16>, shared),
		allow(split_decode<layout_f32>, shared),
		allow(split_decode<layout_f64>, shared),
		allow(split_decode<layout_e5m2>, shared),
		allow(split_decode<layout_e4m3>, shared),
		allow(tcq_decode_looked_up<uint8_t>, shared),
		allow(tcq_decode_looked_up<uint16_t>, shared),
		allow(tcq_decode_one, shared),
		allow(tcq_decode_layers, shared),
		allow(idct_tiles<4>, shared),
		allow(idct_tiles<5>, shared),
		allow(idct_tiles<6>, shared),
	};

	for (cudaError_t one : e)
		if (one)
			return one;
	return cudaSuccess;
}

/* The launch of one kernel. */
struct launcher {
	const gpu_work *work;
	const gpu_memory *memory;
	const gpu_launch *l;
	cudaStream_t stream;

	template <class T> const T *packed(uint64_t place) const
	{
		return (const T *)((const uint8_t *)memory->work + place);
	}

	template <class Layout> cudaError_t split() const
	{
		const auto *groups = packed<hct_flat_group>(l->groups_at);
		const auto *segments = packed<hct_flat_split_segment>(work->split_at);
		const uint8_t *in = memory->in;
		uint8_t *out = memory->out;
		uint32_t *bad = memory->bad;

		return HCT_LAUNCH((split_decode<Layout>), l->blocks, l->threads, l->shared, stream,
				  groups, segments, in, out, bad);
	}

	tcq_job job(bool as_values) const
	{
		return {packed<hct_flat_group>(l->groups_at),
			packed<hct_flat_tcq_segment>(work->tcq_at),
			memory->in,
			as_values ? memory->values : memory->out,
			memory->bad,
			as_values,
			(uint32_t)(l->tables / 4)};
	}

	template <class Element> cudaError_t look() const
	{
		tcq_job j = job(false);

		return HCT_LAUNCH((tcq_decode_looked_up<Element>), l->blocks, l->threads, l->shared,
				  stream, j);
	}

	cudaError_t one(bool as_values) const
	{
		tcq_job j = job(as_values);

		return HCT_LAUNCH(tcq_decode_one, l->blocks, l->threads, l->shared, stream, j);
	}

	cudaError_t layers(bool as_values) const
	{
		tcq_job j = job(as_values);

		return HCT_LAUNCH(tcq_decode_layers, l->blocks, l->threads, l->shared, stream, j);
	}

	template <unsigned MaxLog2> cudaError_t tiles() const
	{
		const auto *panels = packed<gpu_panel>(l->groups_at);
		const auto *all = packed<hct_flat_tiles>(work->tiles_at);
		const uint8_t *values = memory->values;
		uint8_t *out = memory->out;

		return HCT_LAUNCH((idct_tiles<MaxLog2>), l->blocks, l->threads, l->shared, stream,
				  panels, all, values, out);
	}

	cudaError_t launch() const
	{
		switch (l->kind) {
		case SPLIT_BF16:
			return split<layout_bf16>();
		case SPLIT_F16:
			return split<layout_f16>();
		case SPLIT_F32:
			return split<layout_f32>();
		case SPLIT_F64:
			return split<layout_f64>();
		case SPLIT_E5M2:
			return split<layout_e5m2>();
		case SPLIT_E4M3:
			return split<layout_e4m3>();
		case TCQ_LOOK_8:
			return look<uint8_t>();
		case TCQ_LOOK_16:
			return look<uint16_t>();
		case TCQ_ONE:
		case TCQ_ONE_VALUES:
			return one(l->kind == TCQ_ONE_VALUES);
		case TCQ_LAYERS:
		case TCQ_LAYERS_VALUES:
			return layers(l->kind == TCQ_LAYERS_VALUES);
		case TILES_16:
			return tiles<4>();
		case TILES_32:
			return tiles<5>();
		default:
			return tiles<6>();
		}
	}
};

} // namespace

cudaError_t gpu_decode_open(struct gpu_limits *limits)
{
	int device, shared, count;
	cudaError_t e = cudaGetDevice(&device);

	if (!e)
		e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin,
					   device);
	if (!e)
		e = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
	if (e)
		return e;
	limits->shared = (size_t)shared;
	limits->multiprocessors = (unsigned)count;
	return allow_all(limits->shared);
}

size_t gpu_work_bytes(const struct hct_device_batch *batch)
{
	const hct_flat_list *list = batch->list;
	size_t segments = list->split_count + list->tcq_count, panels = 0;

	for (size_t i = 0; i < list->tiles_count; i++)
		panels += panel_count(&list->tiles[i]);
	return round_up(list->split_count * sizeof *list->split) +
	       round_up(list->tcq_count * sizeof *list->tcq) +
	       round_up(list->tiles_count * sizeof *list->tiles) +
	       round_up(segments * sizeof(hct_flat_group) + panels * sizeof(gpu_panel)) +
	       16 * KINDS;
}

void gpu_work_pack(const struct hct_device_batch *batch, const struct gpu_limits *limits,
		   const uint64_t *addresses, struct gpu_work *work, void *out)
{
	packer p = {batch, batch->list, limits, addresses, work, (uint8_t *)out, 0};

	memset(work, 0, sizeof *work);
	p.add_split();
	p.add_tcq();
	p.add_tiles();
}

cudaError_t gpu_work_launch(const struct gpu_work *work, const struct gpu_memory *memory,
			    cudaStream_t stream)
{
	cudaError_t e = cudaSuccess;

	for (unsigned i = 0; i < work->count && !e; i++)
		e = launcher{work, memory, &work->launches[i], stream}.launch();
	return e;
}
