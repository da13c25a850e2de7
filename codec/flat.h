/* Internal: what a device is given to decode chunks: tables and segments without pointers, which
 * libhct makes and has checked (lengths, offsets, tables).  What only decoding shows, the device
 * checks itself, and says so for each item of the batch.
 *
 * Offsets count bytes from the beginning of the batch's input or output; places of tables, from
 * the beginning of the tables.  All is little-endian and of the machine that made it. */
#ifndef HCT_FLAT_H
#define HCT_FLAT_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "rans.h"
#include "split.h"
#include "tcq.h"

/* The tables of a tensor of the split codec. */
struct hct_flat_split {
	uint32_t bytes; /* with what follows; a multiple of 16 */
	uint32_t class_count, run_log2;
	uint32_t unit, exponent_bits; /* of the layout, which is the only one with these */
	uint32_t period;              /* at least 1 */
	uint32_t wide_at;             /* uint32_t [class_count][256], by slot: freq |
				       * head << 8 | rank << 24; head as in struct hct_join_tables */
	uint32_t shifts_at;           /* uint16_t [period + 64], as there */
	uint16_t rare[HCT_RARE];
	uint16_t unused;
};

/* One layer of the tables of a tensor of the tcq codec. */
struct hct_flat_layer {
	uint32_t column_classes, row_classes, run_log2, raw_bits;
	uint32_t odd;        /* as in struct hct_tcq_stage, at the place of trellis states */
	uint32_t wide_at;    /* uint32_t [row class][column class][parity][256], by slot: freq |
			      * what the trellis does << HCT_FLAT_STATE |
			      * (32 parity + symbol) << 16 | rank << 24 */
	uint32_t columns_at; /* uint8_t [columns + 64]: 64 times the class of each column; 0 when
			      * there is one class */
	float step;
	float point[HCT_TCQ_POINTS]; /* as in struct hct_dequant */
};

/* Where a state of the trellis lies in a word: its parity has the value of a table's 256 words. */
#define HCT_FLAT_STATE 8

/* The tables of a tensor of the tcq codec. */
struct hct_flat_tcq {
	uint32_t bytes; /* with what follows; a multiple of 16 */
	uint32_t dtype, layer_count, columns;
	uint32_t tile_rows_log2, tile_columns_log2;
	struct hct_flat_layer layers[HCT_TCQ_MAX_LAYERS];
};

/* Where a segment of either codec begins, and how long its parts are: states, class map, the two
 * substreams, exceptions, and what comes after them. */
struct hct_flat_part {
	uint64_t at;
	uint32_t a, b; /* bytes of the substreams */
	uint32_t x;    /* bytes of the exceptions */
	uint32_t unused;
};

struct hct_flat_split_segment {
	struct hct_flat_part part;
	uint64_t tail; /* of its first element */
	uint64_t out;
	uint32_t elements;
	uint32_t column; /* of its first element, below the period */
	uint32_t item;
	uint32_t unused;
};

struct hct_flat_tcq_segment {
	struct hct_flat_part parts[HCT_TCQ_MAX_LAYERS];
	uint64_t out; /* of its first element; of its first value where tiles follow */
	uint32_t elements, column, item;
	uint32_t layers; /* that are wanted: the first of the tables */
};

/* Tiles of a chunk that are to be transformed back: rows of values, of which whole bands of tile
 * rows are there. */
struct hct_flat_tiles {
	uint64_t values; /* bytes from the beginning of the batch's values */
	uint64_t out;
	uint32_t rows, columns; /* multiples of those of the tile */
	uint32_t tile_rows_log2, tile_columns_log2;
	uint32_t dtype;
	uint32_t unused;
};

/* The work of a batch, while it is collected: an item is a chunk, one of whose segments follows
 * the other.  A zeroed one is empty. */
struct hct_flat_list {
	struct hct_flat_split_segment *split;
	struct hct_flat_tcq_segment *tcq;
	struct hct_flat_tiles *tiles;
	size_t split_count, split_capacity, tcq_count, tcq_capacity, tiles_count, tiles_capacity;
	/* Of the item that is listed next: where its payloads lie in the input, each followed by
	 * HCT_PAYLOAD_PAD bytes, and its elements in the output and, where tiles are transformed,
	 * their values. */
	uint64_t in[HCT_MAX_LAYERS], out, values;
	uint32_t item;
};

/* Room for one more, zeroed; NULL without memory. */
struct hct_flat_split_segment *hct_flat_add_split(struct hct_flat_list *l);
struct hct_flat_tcq_segment *hct_flat_add_tcq(struct hct_flat_list *l);
struct hct_flat_tiles *hct_flat_add_tiles(struct hct_flat_list *l);
void hct_flat_list_free(struct hct_flat_list *l);

/* Segments of one tensor, which one block of threads decodes. */
struct hct_flat_group {
	uint64_t tables; /* address on the device */
	uint32_t first, count;
};

#endif
