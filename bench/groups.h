/* The groups of bench_lossy: each prints a table and adds its rows. */
#ifndef BENCH_GROUPS_H
#define BENCH_GROUPS_H

#include "rows.h"

typedef void bench_group(struct bench *b);

bench_group group_frontier, group_peers, group_gaussian, group_effort,
	group_layers;                                                   /* frontier.c */
bench_group group_transforms, group_tiles;                              /* transforms.c */
bench_group group_spectral, group_mixed, group_encoders, group_lowrank; /* methods.c */
bench_group group_scaling;                                              /* scaling.c */
bench_group group_dct;                                                  /* primitives.c */

#endif
