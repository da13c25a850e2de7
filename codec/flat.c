#include "flat.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more element of `size` bytes, zeroed; NULL without memory. */
static void *add(void **items, size_t *count, size_t *capacity, size_t size)
{
	uint8_t *p = *items;

	if (*count == *capacity) {
		size_t more = *capacity ? 2 * *capacity : 64;

		p = realloc(p, more * size);
		if (!p)
			return NULL;
		*items = p;
		*capacity = more;
	}
	return memset(p + (*count)++ * size, 0, size);
}

struct hct_flat_split_segment *hct_flat_add_split(struct hct_flat_list *l)
{
	return add((void **)&l->split, &l->split_count, &l->split_capacity, sizeof *l->split);
}

struct hct_flat_tcq_segment *hct_flat_add_tcq(struct hct_flat_list *l)
{
	return add((void **)&l->tcq, &l->tcq_count, &l->tcq_capacity, sizeof *l->tcq);
}

struct hct_flat_tiles *hct_flat_add_tiles(struct hct_flat_list *l)
{
	return add((void **)&l->tiles, &l->tiles_count, &l->tiles_capacity, sizeof *l->tiles);
}

void hct_flat_list_free(struct hct_flat_list *l)
{
	free(l->split);
	free(l->tcq);
	free(l->tiles);
	memset(l, 0, sizeof *l);
}
