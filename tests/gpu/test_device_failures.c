/* Any call of CUDA's fails: the right error, nothing left behind, and memory that comes back. */
#include "tests/gpu/device_jobs.h"

/* Everything once; the first error, and whether that came in time. */
static hct_error scenario(struct hct_diag *diag)
{
	const struct hct_device_options options = {.batches = 2};
	void *p = NULL;
	struct job a, b;
	hct_device *d;
	hct_error e, other;

	diag->text[0] = 0;
	e = class->open(&options, &d, diag);
	if (e)
		return e;
	e = class->alloc(d, 1000, &p, diag);
	if (!e)
		e = class->copy(d, p, chunks[0].decoded, 1000, NULL, diag);
	if (!e)
		e = begin_job(&a, d, 0, 2, UNPINNED, diag);
	if (!e) {
		e = begin_job(&b, d, 3, 2, PINNED, diag);
		if (!e)
			e = end_job(&b, diag);
		other = end_job(&a, e ? NULL : diag);
		e = e ? e : other;
	}
	/* once lost, it is lost at once */
	if (e && e != HCT_ERR_NOMEM) {
		struct hct_diag again = {{0}};
		unsigned long calls = emulator.calls("launch") + emulator.calls("cudaMemcpyAsync");

		assert_int_equal(do_job(d, 0, 1, UNPINNED, &again), HCT_ERR_IO);
		assert_non_null(strstr(again.text, "the device is lost"));
		assert_int_equal(emulator.calls("launch") + emulator.calls("cudaMemcpyAsync"),
				 calls);
	}
	class->free(d, p);
	class->close(d);
	return e;
}

/* Lets call N of a function fail, for every N, alone or with all that follow. */
static unsigned fail_all(const char *name, const char *count)
{
	struct hct_diag diag;
	unsigned long before;
	unsigned n = 0;

	do {
		char text[100];
		hct_error e;

		n++;
		snprintf(text, sizeof text, "%s:%u%s", name, n, count);
		setenv("CUDA_EMULATOR_FAIL", text, 1);
		before = emulator.calls(name);
		e = scenario(&diag);
		unsetenv("CUDA_EMULATOR_FAIL");
		if (emulator.calls(name) - before < n) { /* that many there are not */
			assert_int_equal(e, HCT_OK);
			break;
		}
		if (e) {
			assert_non_null(strstr(diag.text, strcmp(name, "cudaDeviceGetAttribute")
								  ? name
								  : "loading of kernels"));
			assert_int_equal(e, strncmp(name, "cudaMalloc", 10) ? HCT_ERR_IO
									    : HCT_ERR_NOMEM);
		}
		assert_int_equal(emulator.held(), 0);
		assert_int_equal(emulator.contexts(), 0);
	} while (n < 1000);
	return n - 1;
}

static void test_failures(void **state)
{
	const char *names[] = {"cudaGetDeviceCount",
			       "cudaGetDeviceProperties",
			       "cudaDeviceGetAttribute",
			       "cudaGetDriverEntryPointByVersion",
			       "cuDevicePrimaryCtxRetain",
			       "cuCtxPushCurrent",
			       "cudaMemGetInfo",
			       "cudaStreamCreateWithFlags",
			       "cudaEventCreateWithFlags",
			       "cudaMalloc",
			       "cudaMallocHost",
			       "cudaPointerGetAttributes",
			       "cudaMemcpyAsync",
			       "cudaMemsetAsync",
			       "cudaStreamWaitEvent",
			       "cudaEventRecord",
			       "launch",
			       "cudaEventSynchronize",
			       "cudaStreamSynchronize"};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_in_range(fail_all(names[i], ""), 1, 900);
		assert_in_range(fail_all(names[i], ":1"), 1, 900);
	}
}

/* When submit fails the caller's memory is not in use any more. */
static void test_nothing_is_left(void **state)
{
	const char *names[] = {"cudaMemcpyAsync", "cudaEventRecord", "launch"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		unsigned n = 0;
		hct_error e;

		do {
			hct_device *d = open_device(0, 2);
			char text[100];
			struct job j;

			snprintf(text, sizeof text, "%s:%u:1", names[i], ++n);
			setenv("CUDA_EMULATOR_FAIL", text, 1);
			e = begin_job(&j, d, 0, 2, PINNED, NULL);
			unsetenv("CUDA_EMULATOR_FAIL");
			if (e)
				assert_int_equal(emulator.waiting(), 0);
			else
				assert_int_equal(end_job(&j, NULL), HCT_OK);
			class->close(d);
			assert_int_equal(emulator.held(), 0);
		} while (e);
		assert_true(n > 1);
	}
}

/* When memory fails and is there again, the device goes on. */
static void test_memory_comes_back(void **state)
{
	const char *names[] = {"cudaMalloc", "cudaMallocHost"};
	struct hct_diag diag = {{0}};

	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (unsigned n = 1; n < 5; n++) {
			hct_device *d = open_device(0, 2);
			char text[100];
			hct_error e;

			snprintf(text, sizeof text, "%s:%u:3", names[i], n);
			setenv("CUDA_EMULATOR_FAIL", text, 1);
			e = do_job(d, 0, 2, UNPINNED, &diag);
			assert_true(!e || e == HCT_ERR_NOMEM);
			unsetenv("CUDA_EMULATOR_FAIL");
			assert_int_equal(do_job(d, 0, 2, UNPINNED, &diag), HCT_OK);
			class->close(d);
			assert_int_equal(emulator.held(), 0);
		}
}

/* What other batches leave behind goes before a batch is refused. */
static void test_memory_is_found(void **state)
{
	hct_device *d = open_device((uint64_t)8 << 20, 2);
	unsigned long calls;
	struct job a, b;

	(void)state;
	assert_int_equal(begin_job(&a, d, 0, 1, PINNED, NULL), HCT_OK);
	assert_int_equal(begin_job(&b, d, 1, 1, PINNED, NULL), HCT_OK);
	assert_int_equal(end_job(&a, NULL), HCT_OK);
	assert_int_equal(end_job(&b, NULL), HCT_OK);
	setenv("CUDA_EMULATOR_FAIL", "cudaMalloc:1:1", 1);
	calls = emulator.calls("cudaMalloc");
	assert_int_equal(do_job(d, 0, 2, PINNED, NULL), HCT_OK);
	assert_true(emulator.calls("cudaMalloc") >= calls + 2);
	unsetenv("CUDA_EMULATOR_FAIL");
	class->close(d);
	assert_int_equal(emulator.held(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_nothing_is_left),
		cmocka_unit_test(test_memory_comes_back),
		cmocka_unit_test(test_memory_is_found),
	};

	return cmocka_run_group_tests_name("device failures", tests, load_device, free_chunks);
}
