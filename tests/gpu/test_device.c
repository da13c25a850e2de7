/* The plug-in's class: memory within its bound, tables that stay, batches of many threads, order
 * among streams. */
#include <pthread.h>

#include "tests/gpu/device_jobs.h"

/* The least bound, but for a KiB, that a batch fits into. */
static size_t memory_of(unsigned first, size_t count)
{
	size_t least = 0, enough = (size_t)64 << 20;

	while (enough - least > 1024) {
		size_t middle = (least + enough) / 2;
		hct_device *d = open_device(middle, 1);
		hct_error e = do_job(d, first, count, UNPINNED, NULL);

		assert_true(!e || e == HCT_ERR_NOMEM);
		*(e ? &least : &enough) = middle;
		class->close(d);
	}
	return enough;
}

static void test_open(void **state)
{
	struct hct_device_options options = {.number = 3};
	struct hct_diag diag = {{0}};
	hct_device *d;

	(void)state;
	assert_int_equal(class->abi, HCT_DEVICE_ABI);
	assert_string_equal(class->name, "cuda");
	assert_int_equal(class->count(&diag), 1);
	assert_int_equal(class->open(&options, &d, &diag), HCT_ERR_UNSUPPORTED);
	assert_null(d);
	assert_string_equal(diag.text, "cuda:3: no such device (of 1)");
	assert_int_equal(emulator.held(), 0);
	setenv("CUDA_EMULATOR_DEVICES", "4", 1);
	assert_int_equal(class->open(&options, &d, &diag), HCT_OK);
	assert_string_equal(class->describe(d), "emulated");
	assert_int_equal(do_job(d, 0, 1, UNPINNED, &diag), HCT_OK);
	class->close(d);
	setenv("CUDA_EMULATOR_DEVICES", "0", 1);
	assert_int_equal(class->count(&diag), 0);
	assert_string_equal(diag.text, "cudaGetDeviceCount: no CUDA-capable device is detected");
	assert_int_equal(class->open(&options, &d, &diag), HCT_ERR_UNSUPPORTED);
	unsetenv("CUDA_EMULATOR_DEVICES");
	class->close(NULL);
	assert_int_equal(emulator.held(), 0);
	assert_int_equal(emulator.contexts(), 0);
	assert_int_equal(emulator.current_device(), 0);
}

static void test_all_places(void **state)
{
	const enum where places[] = {UNPINNED, PINNED, DEVICE, IN_PLACE};
	hct_device *d = open_device(0, 0);
	struct hct_diag diag = {{0}};

	(void)state;
	for (size_t i = 0; i < 4; i++)
		if (do_job(d, (unsigned)i, CHUNKS, places[i], &diag))
			fail_msg("%s", diag.text);
	assert_int_equal(emulator.contexts(), 0);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* submit does not wait for the device, also not where the memory is such that CUDA would. */
static void test_submit_returns(void **state)
{
	hct_device *d = open_device(0, 0);

	(void)state;
	for (enum where where = UNPINNED; where <= PINNED; where++) {
		struct job j;

		assert_int_equal(begin_job(&j, d, 0, 1, where, NULL), HCT_OK);
		assert_memory_not_equal(j.out, chunks[0].decoded, chunks[0].length);
		assert_int_equal(j.bad[0], 0x77777777);
		assert_int_equal(end_job(&j, NULL), HCT_OK);
	}
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* Rows of chunks, to memory of all kinds at once. */
static void test_parts(void **state)
{
	hct_device *d = open_device(0, 0);
	uint8_t unpinned[2][1000], *pinned, *there, back[300];
	struct hct_device_copy copies[5];
	struct job j;
	void *p;

	(void)state;
	assert_int_equal(class->alloc_host(d, 700, &p, NULL), HCT_OK);
	pinned = p;
	assert_int_equal(class->alloc(d, 300, &p, NULL), HCT_OK);
	there = p;
	assert_int_equal((uintptr_t)there % 256, 0);
	memset(&j, 0, sizeof j);
	j.d = d;
	j.count = 2;
	j.chunks[0] = &chunks[0];
	j.chunks[1] = &chunks[2];
	lay_out_job(&j);
	assert_int_equal(take_job(&j, NULL), HCT_OK);
	copies[0] = (struct hct_device_copy){j.at[1] + 17, unpinned[0], 1000};
	copies[1] = (struct hct_device_copy){j.at[0] + 64, pinned, 300};
	copies[2] = (struct hct_device_copy){j.at[0] + 364, pinned + 300, 400};
	copies[3] = (struct hct_device_copy){j.at[0] + 5, unpinned[1], 1000};
	copies[4] = (struct hct_device_copy){j.at[1], there, 300};
	j.batch.copies = copies;
	j.batch.copy_count = 5;
	assert_int_equal(class->submit(d, &j.batch, NULL), HCT_OK);
	assert_int_equal(class->wait(d, &j.batch, NULL), HCT_OK);
	assert_memory_equal(unpinned[0], chunks[2].decoded + 17, 1000);
	assert_memory_equal(pinned, chunks[0].decoded + 64, 700);
	assert_memory_equal(unpinned[1], chunks[0].decoded + 5, 1000);
	assert_int_equal(class->copy(d, back, there, 300, NULL, NULL), HCT_OK);
	assert_memory_equal(back, chunks[2].decoded, 300);
	free_job(&j);
	class->free_host(d, pinned);
	class->free(d, there);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* Bytes that go up for a batch without new tables. */
static size_t bytes_up(hct_device *d, unsigned first, size_t count)
{
	size_t before = emulator.bytes_up();

	assert_int_equal(do_job(d, first, count, UNPINNED, NULL), HCT_OK);
	return emulator.bytes_up() - before;
}

static void test_tables_stay(void **state)
{
	hct_device *d = open_device(0, 0);
	size_t first, second, both;

	(void)state;
	first = bytes_up(d, 0, 2);
	second = bytes_up(d, 0, 2);
	assert_int_equal(first - second, chunks[0].flat.bytes + chunks[1].flat.bytes);
	both = bytes_up(d, 1, 2);
	assert_int_equal(both - bytes_up(d, 1, 2), chunks[2].flat.bytes);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* After the first batches nothing is taken from the driver any more. */
static void test_memory_stays(void **state)
{
	hct_device *d = open_device(0, 2);
	unsigned long device = 0, host = 0;
	struct job a, b;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(begin_job(&a, d, 0, 3, UNPINNED, NULL), HCT_OK);
		assert_int_equal(begin_job(&b, d, 3, 3, PINNED, NULL), HCT_OK);
		assert_int_equal(end_job(&a, NULL), HCT_OK);
		assert_int_equal(end_job(&b, NULL), HCT_OK);
		if (i == 2) {
			device = emulator.calls("cudaMalloc");
			host = emulator.calls("cudaMallocHost");
		}
	}
	assert_int_equal(emulator.calls("cudaMalloc"), device);
	assert_int_equal(emulator.calls("cudaMallocHost"), host);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* The one that was not used for longest goes; never one that a batch in flight uses. */
static void test_tables_go(void **state)
{
	size_t largest = 0, most, limit, with, other;
	struct job j;
	hct_device *d;

	(void)state;
	for (unsigned i = 0; i < CHUNKS; i++) {
		size_t n = memory_of(i, 1);

		largest = n > largest ? n : largest;
	}
	limit = largest + largest / 8;
	d = open_device(limit, 1);
	emulator.memory(&most);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < CHUNKS; i++)
			assert_int_equal(do_job(d, i, 1, UNPINNED, NULL), HCT_OK);
	emulator.memory(&most);
	assert_true(most <= limit);
	with = bytes_up(d, 0, 1);
	other = bytes_up(d, 0, 1);
	assert_int_equal(with - other, chunks[0].flat.bytes);
	class->close(d);

	/* With one batch in flight the other's tables do not fit. */
	d = open_device(limit, 2);
	assert_int_equal(begin_job(&j, d, 0, 1, UNPINNED, NULL), HCT_OK);
	for (unsigned i = 1; i < CHUNKS; i++)
		assert_int_equal(do_job(d, i, 1, UNPINNED, NULL), HCT_OK);
	assert_int_equal(end_job(&j, NULL), HCT_OK);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

static void test_bound(void **state)
{
	size_t one = memory_of(0, 1), all = memory_of(0, CHUNKS), most, before;
	hct_device *d = open_device(all / 2 > one ? all / 2 : one, 0);
	struct hct_diag diag = {{0}};

	(void)state;
	before = emulator.memory(&most);
	assert_int_equal(do_job(d, 0, CHUNKS, UNPINNED, &diag), HCT_ERR_NOMEM);
	assert_non_null(strstr(diag.text, "may be held"));
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(do_job(d, 0, 1, UNPINNED, &diag), HCT_OK);
	emulator.memory(&most);
	assert_true(most - before <= all / 2);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

/* More batches than may be in flight, none waited for before the last is there. */
static void test_many_in_flight(void **state)
{
	hct_device *d = open_device(0, 2);
	static struct job jobs[12];

	(void)state;
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(begin_job(&jobs[i], d, i, 1 + i % 2, i % 4, NULL), HCT_OK);
	for (unsigned i = 12; i-- > 0;)
		assert_int_equal(end_job(&jobs[i], NULL), HCT_OK);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

struct worker {
	pthread_t thread;
	hct_device *d;
	unsigned number;
	int failures;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct job a, b;

	for (unsigned i = 0; i < 6; i++) {
		unsigned k = w->number + i;

		if (begin_job(&a, w->d, k, 1 + k % 2, k % 4, NULL)) {
			w->failures++;
			continue;
		}
		if (!begin_job(&b, w->d, k + 3, 1, (k + 1) % 4, NULL))
			w->failures += end_job(&b, NULL) != HCT_OK;
		else
			w->failures++;
		w->failures += end_job(&a, NULL) != HCT_OK;
	}
	w->failures += emulator.contexts() != 0;
	return NULL;
}

static void test_threads(void **state)
{
	size_t pair = 0;
	hct_device *d;
	struct worker workers[4];

	(void)state;
	for (unsigned i = 0; i < CHUNKS; i++) {
		size_t n = memory_of(i, 2);

		pair = n > pair ? n : pair;
	}
	/* with room for all, and with hardly any */
	for (unsigned round = 0; round < 2; round++) {
		d = open_device(round ? pair + pair / 8 : 0, 3);
		for (unsigned i = 0; i < 4; i++) {
			workers[i] = (struct worker){.d = d, .number = i};
			assert_int_equal(
				pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
		}
		for (unsigned i = 0; i < 4; i++) {
			pthread_join(workers[i].thread, NULL);
			assert_int_equal(workers[i].failures, 0);
		}
		class->close(d);
		assert_int_equal(emulator.held(), 0);
	}
}

static void test_bad(void **state)
{
	hct_device *d = open_device(0, 0);
	struct job j;

	(void)state;
	memset(&j, 0, sizeof j);
	j.d = d;
	j.count = 3;
	for (size_t i = 0; i < 3; i++)
		j.chunks[i] = &chunks[i];
	lay_out_job(&j);
	assert_int_equal(take_job(&j, NULL), HCT_OK);
	set_copies(&j);
	/* the states of its first segment */
	((uint8_t *)j.in)[j.list.tcq[0].parts[0].at] ^= 0x55;
	assert_int_equal(class->submit(d, &j.batch, NULL), HCT_OK);
	assert_int_equal(class->wait(d, &j.batch, NULL), HCT_OK);
	assert_int_equal(j.bad[0], 0);
	assert_int_equal(j.bad[1], 1);
	assert_int_equal(j.bad[2], 0);
	assert_memory_equal(j.copies[0].to, chunks[0].decoded, chunks[0].length);
	assert_memory_equal(j.copies[2].to, chunks[2].decoded, chunks[2].length);
	free_job(&j);
	class->close(d);
}

struct spoil {
	uint8_t *p;
	size_t bytes;
};

static void spoil(void *arg)
{
	const struct spoil *s = arg;

	memset(s->p, 0xee, s->bytes);
}

/* What is in the caller's stream already writes to the output: before the batch, not after. */
static void test_order(void **state)
{
	hct_device *d = open_device(0, 0);
	void *stream = emulator.stream();
	uint8_t back[100];

	(void)state;
	for (enum where where = PINNED; where <= IN_PLACE; where++) {
		struct spoil s;
		struct job j;

		memset(&j, 0, sizeof j);
		j.d = d;
		j.count = 1;
		j.chunks[0] = &chunks[1];
		j.where = where;
		lay_out_job(&j);
		assert_int_equal(take_job(&j, NULL), HCT_OK);
		set_copies(&j);
		s = (struct spoil){j.out, j.batch.out_bytes};
		emulator.stream_put(stream, spoil, &s);
		j.batch.stream = stream;
		assert_int_equal(class->submit(d, &j.batch, NULL), HCT_OK);
		assert_int_equal(class->wait(d, &j.batch, NULL), HCT_OK);
		assert_int_equal(class->copy(d, back, j.out, sizeof back, stream, NULL), HCT_OK);
		assert_memory_equal(back, chunks[1].decoded, sizeof back);
		check_job(&j);
		free_job(&j);
	}
	emulator.stream_destroy(stream);
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_all_places),
		cmocka_unit_test(test_submit_returns),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_tables_stay),
		cmocka_unit_test(test_memory_stays),
		cmocka_unit_test(test_tables_go),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests_name("device", tests, load_device, free_chunks);
}
