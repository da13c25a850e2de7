/* The pipeline and tensors that cannot be coded as they are to be: hct_check_chunk is replaced here
 * by one that finds what it is told to find. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "codec/plan.h"
#include "folder.h"
#include "model.h"
#include "writer/compress.h"
#include "writer/ledger.h"
#include "writer/memory.h"

static const struct model_tensor tensors[] = {
	{"a", "BF16", "[300,512]", 307200, WEIGHTS},
	{"b", "BF16", "[1200,512]", 1228800, WEIGHTS},
	{"c", "F32", "[100]", 400, NOISE},
	{"d", "BF16", "[300,512]", 307200, WEIGHTS},
	{"e", "BF16", "[1200,512]", 1228800, WEIGHTS},
};

#define COUNT (sizeof tensors / sizeof *tensors)
#define CHUNK (256u << 10)

static hct_error fault;            /* what is found */
static uint64_t fault_chunk;       /* at this chunk, of tensors with more than one */
static unsigned fault_times;       /* of each tensor, lossy or not; 0: always, when it is lossy */
static atomic_uint checks, faults; /* that were made */
static atomic_uint seen[COUNT];    /* at that chunk of each tensor */
static int slow;                   /* each takes its time, and finds nothing */
static unsigned saves;
static unsigned warnings;
static char last_warning[500];

hct_error hct_check_chunk(hct_encoder *e, const hct_plan *p, uint64_t n,
			  const struct hct_encoded *chunk, struct hct_diag *diag)
{
	struct hct_plan_info info;

	(void)e;
	(void)chunk;
	hct_plan_describe(p, &info);
	if (slow) {
		usleep(20000);
		atomic_fetch_add(&checks, 1);
		return HCT_OK;
	}
	atomic_fetch_add(&checks, 1);
	if (!fault || hct_plan_chunk_count(p) == 1 || n != fault_chunk)
		return HCT_OK;
	if (fault_times ? atomic_fetch_add(&seen[p->tensor->name[0] - 'a'], 1) >= fault_times
			: info.relative_squared_error == 0)
		return HCT_OK;
	atomic_fetch_add(&faults, 1);
	return hct_fail(diag, fault, "found");
}

static hct_error save(void *arg, const struct mkhct_standing *standing, struct hct_diag *diag)
{
	uint64_t chunks = standing->chunks;

	(void)diag;
	for (size_t i = 0; i < standing->tensors; i++)
		chunks += (tensors[i].bytes + CHUNK - 1) / CHUNK;
	if (slow) /* nothing is saved that was not checked */
		assert_true(checks >= chunks);
	saves++;
	*(struct mkhct_standing *)arg = *standing;
	return HCT_OK;
}

static void warn(void *arg, const char *line)
{
	(void)arg;
	warnings++;
	snprintf(last_warning, sizeof(last_warning), "%s", line);
}

static int without_goals; /* everything is to be lossless */

/* Compresses with `threads`; the file is at `out`, and the results are those of the tensors. */
static hct_error compress(const char *out, unsigned threads, struct mkhct_result *results,
			  struct mkhct_standing *standing, struct hct_diag *diag)
{
	const struct mkhct_memory memory = mkhct_memory_share(1u << 30, threads);
	struct hct_goal goals[COUNT] = {{0}};
	struct mkhct_task task = {.goals = without_goals ? NULL : goals,
				  .options = "{}",
				  .verify = 1,
				  .results = results,
				  .save = save,
				  .warn = warn,
				  .arg = standing,
				  .every_tensors = 1};
	struct mkhct_entry entry = {.kind = MKHCT_MODEL, .name = "m", .path = "m.safetensors"};
	struct mkhct_compressor *c;
	struct mkhct_model model;
	struct hct_meter meter;
	struct stat sb;
	int fd = open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int ledger = memfd_create("ledger", MFD_CLOEXEC);
	hct_error err;

	for (size_t i = 0; i < COUNT; i++)
		goals[i].relative_squared_error = i == 2 ? 0 : .01;
	assert_int_equal(stat(entry.path, &sb), 0);
	entry.size = entry.disk_size = (uint64_t)sb.st_size;
	entry.mtime = entry.disk_mtime = sb.st_mtim;
	entry.dev = sb.st_dev;
	entry.ino = sb.st_ino;
	hct_meter_start(&meter, entry.size);
	assert_int_equal(mkhct_ledger_open(ledger, "m", 0, &task.ledger, diag), HCT_OK);
	assert_int_equal(mkhct_compressor_create(&memory, &c, diag), HCT_OK);
	assert_int_equal(mkhct_model_open(&entry, &model, diag), HCT_OK);
	assert_int_equal(mkhct_model_map(&model, diag), HCT_OK);
	err = mkhct_compress(c, &model, &task, fd, "m", &meter, NULL, NULL, diag);
	mkhct_model_close(&model);
	mkhct_compressor_free(c);
	mkhct_ledger_free(task.ledger);
	close(ledger);
	close(fd);
	return err;
}

static int setup(void **state)
{
	static struct model m;
	FILE *f;

	if (folder_enter(state) != 0)
		return -1;
	model_make(tensors, COUNT, 1, &m);
	f = fopen("m.safetensors", "w");
	assert_non_null(f);
	assert_int_equal(fwrite(m.file, 1, m.size, f), m.size);
	assert_int_equal(fclose(f), 0);
	model_free(&m);
	fault = HCT_OK;
	fault_times = warnings = 0;
	without_goals = 0;
	return 0;
}

/* Tensor i of the file decodes to its source, bit for bit, or not. */
static int is_exact(hct_reader *r, size_t i)
{
	const struct hct_safetensors *st = hct_reader_safetensors(r);
	const struct hct_tensor *t = &st->tensors[i];
	size_t n = (size_t)hct_tensor_bytes(t), at = (size_t)(st->header_len + t->begin);
	uint8_t *a = malloc(n), *b = malloc(n);
	int fd = open("m.safetensors", O_RDONLY | O_CLOEXEC), exact;
	hct_decoder *d;

	assert_true(a && b);
	assert_int_equal(pread(fd, a, n, (off_t)at), n);
	close(fd);
	assert_int_equal(hct_decoder_create(HCT_SIMD_AUTO, &d), HCT_OK);
	assert_int_equal(hct_reader_pread(r, d, at, b, n, NULL), HCT_OK);
	hct_decoder_free(d);
	exact = memcmp(a, b, n) == 0;
	free(a);
	free(b);
	return exact;
}

static void gives_in(hct_error what, uint64_t chunk, unsigned threads)
{
	struct mkhct_result results[COUNT + 1] = {{.retries = 0}},
					    plain[COUNT + 1] = {{.retries = 0}};
	struct mkhct_standing standing;
	struct hct_diag diag = {""};
	hct_reader *r;

	fault = HCT_OK;
	assert_int_equal(compress("plain.hct", threads, plain, &standing, &diag), HCT_OK);
	fault = what;
	fault_chunk = chunk;
	checks = faults = warnings = 0;
	if (compress("out.hct", threads, results, &standing, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	assert_int_equal(faults, 8); /* each of four tensors is written twice */
	assert_int_equal(warnings, 8);
	assert_int_equal(hct_reader_open("out.hct", &r, &diag), HCT_OK);
	for (size_t i = 0; i < COUNT; i++) {
		int bad = i == 1 || i == 4 || i == 0 || i == 3;

		/* Those of one chunk cannot be at fault. */
		bad = bad && tensors[i].bytes > (1u << 18);
		assert_int_equal(results[i].failed, bad ? MKHCT_FAILED_CHECK : MKHCT_NOT_FAILED);
		assert_int_equal(results[i].retries, bad ? 2 : 0);
		assert_true(!bad || strstr(results[i].plan.why, "read back"));
		assert_int_equal(is_exact(r, i), bad || i == 2);
		if (bad) {
			assert_true(results[i].error == 0);
			continue;
		}
		assert_true(results[i].error == plain[i].error &&
			    results[i].energy == plain[i].energy);
	}
	hct_reader_close(r);
}

static void test_digest(void **state)
{
	(void)state;
	gives_in(HCT_ERR_DIGEST, 0, 1);
	gives_in(HCT_ERR_DIGEST, 1, 1);
	gives_in(HCT_ERR_DIGEST, 1, 3);
}

static void test_memory(void **state)
{
	(void)state;
	gives_in(HCT_ERR_NOMEM, 1, 2);
}

static void test_corrupt(void **state)
{
	(void)state;
	gives_in(HCT_ERR_CORRUPT, 1, 2);
}

/* Nothing that another way of coding would change. */
static void test_other_errors_end_it(void **state)
{
	struct mkhct_result results[COUNT + 1] = {{.retries = 0}};
	struct mkhct_standing standing;
	struct hct_diag diag = {""};

	(void)state;
	fault = HCT_ERR_NO_SPACE;
	fault_chunk = 1;
	assert_int_equal(compress("out.hct", 2, results, &standing, &diag), HCT_ERR_NO_SPACE);
	assert_string_equal(diag.text, "found");
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(results[i].failed, 0);
}

/* The bytes of a file; free. */
static char *contents(const char *name, size_t *size)
{
	FILE *f = fopen(name, "r");
	struct stat sb;
	char *bytes;

	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &sb), 0);
	*size = (size_t)sb.st_size;
	bytes = malloc(*size + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, *size, f), *size);
	fclose(f);
	return bytes;
}

static void passes(unsigned times, unsigned threads)
{
	struct mkhct_result results[COUNT + 1] = {{.retries = 0}},
					    plain[COUNT + 1] = {{.retries = 0}};
	struct mkhct_standing standing;
	struct hct_diag diag = {""};
	size_t a_size, b_size;
	char *a, *b;

	fault = HCT_OK;
	assert_int_equal(compress("plain.hct", threads, plain, &standing, &diag), HCT_OK);
	fault = HCT_ERR_DIGEST;
	fault_chunk = 1;
	fault_times = times;
	memset(seen, 0, sizeof(seen));
	warnings = 0;
	if (compress("out.hct", threads, results, &standing, &diag) != HCT_OK)
		fail_msg("%s", diag.text);
	assert_int_equal(warnings, 4 * times);
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(results[i].failed, MKHCT_NOT_FAILED);
		assert_int_equal(results[i].retries, i == 2 ? 0 : times);
	}
	a = contents("plain.hct", &a_size);
	b = contents("out.hct", &b_size);
	assert_int_equal(a_size, b_size);
	assert_memory_equal(a, b, a_size);
	free(a);
	free(b);
}

/* A chunk that was written badly once leaves no trace. */
static void test_once_is_no_harm(void **state)
{
	(void)state;
	passes(1, 1);
	passes(1, 3);
	without_goals = 1;
	passes(1, 3);
	assert_string_equal(last_warning, "m: found; the tensor is written again");
}

/* What cannot be read back, whatever is tried: it ends there, with what comes before it. */
static void ends(unsigned tries)
{
	struct mkhct_result results[COUNT + 1] = {{.retries = 0}};
	struct mkhct_standing standing = {.bytes = 0};
	struct hct_diag diag = {""};

	fault = HCT_ERR_DIGEST;
	fault_chunk = 1;
	fault_times = UINT32_MAX;
	faults = 0;
	assert_int_equal(compress("out.hct", 2, results, &standing, &diag), HCT_ERR_DIGEST);
	assert_non_null(strstr(diag.text, "m: found, also when it was written again"));
	assert_int_equal(faults, tries);
	assert_int_equal(standing.tensors, 0);
	assert_int_equal(standing.chunks, 0);
}

static void test_always_ends_it(void **state)
{
	(void)state;
	ends(4); /* twice with loss, and twice without */
	without_goals = 1;
	ends(2);
}

static void test_saves_what_was_checked(void **state)
{
	struct mkhct_result results[COUNT + 1] = {{.retries = 0}};
	struct mkhct_standing standing;
	struct hct_diag diag = {""};

	(void)state;
	slow = 1;
	checks = saves = 0;
	assert_int_equal(compress("out.hct", 2, results, &standing, &diag), HCT_OK);
	slow = 0;
	assert_int_equal(checks, 2 + 5 + 1 + 2 + 5);
	assert_true(saves >= COUNT - 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, folder_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_digest),
		TEST(test_memory),
		TEST(test_corrupt),
		TEST(test_other_errors_end_it),
		TEST(test_once_is_no_harm),
		TEST(test_always_ends_it),
		TEST(test_saves_what_was_checked),
	};

	return cmocka_run_group_tests_name("give_in", tests, NULL, NULL);
}
