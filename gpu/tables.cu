#include "gpu/tables.h"

#include <cstdlib>

static struct gpu_table **chain_of(struct gpu_tables *t, uint64_t key)
{
	return &t->chains[key * 0x9e3779b97f4a7c15u >> 54];
}

static void take_out(struct gpu_tables *t, struct gpu_table *table)
{
	*(table->older ? &table->older->newer : &t->oldest) = table->newer;
	*(table->newer ? &table->newer->older : &t->newest) = table->older;
}

static void put_last(struct gpu_tables *t, struct gpu_table *table)
{
	table->older = t->newest;
	table->newer = nullptr;
	*(t->newest ? &t->newest->newer : &t->oldest) = table;
	t->newest = table;
}

struct gpu_table *gpu_tables_use(struct gpu_tables *t, uint64_t key)
{
	struct gpu_table *table = *chain_of(t, key);

	while (table && table->key != key)
		table = table->chain;
	if (!table)
		return nullptr;
	take_out(t, table);
	put_last(t, table);
	table->users++;
	return table;
}

struct gpu_table *gpu_tables_add(struct gpu_tables *t, uint64_t key, struct gpu_block *block)
{
	struct gpu_table *table = (struct gpu_table *)calloc(1, sizeof *table);
	struct gpu_table **chain = chain_of(t, key);

	if (!table)
		return nullptr;
	table->key = key;
	table->block = block;
	table->users = 1;
	table->chain = *chain;
	*chain = table;
	put_last(t, table);
	t->bytes += block->bytes;
	return table;
}

void gpu_tables_remove(struct gpu_tables *t, struct gpu_table *table, struct gpu_pool *pool)
{
	struct gpu_table **at = chain_of(t, table->key);

	while (*at != table)
		at = &(*at)->chain;
	*at = table->chain;
	take_out(t, table);
	t->bytes -= table->block->bytes;
	gpu_pool_give(pool, table->block);
	free(table);
}

bool gpu_tables_evict(struct gpu_tables *t, struct gpu_pool *pool)
{
	struct gpu_table *table = t->oldest;

	while (table && table->users)
		table = table->newer;
	if (!table)
		return false;
	gpu_tables_remove(t, table, pool);
	return true;
}
