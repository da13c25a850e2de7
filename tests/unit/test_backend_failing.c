/* Backends whose plug-in is not there or not the right one, and whose device fails in the middle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "backend_model.h"
#include "folder.h"

/* Failing devices ----------------------------------------------------------------------- */

/* Runs check in a process of its own, since the emulator counts its calls from the first one on.
 * Returns what it returned. */
static int in_child(int (*check)(const char *fail), const char *fail)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		setenv("CUDA_EMULATOR_FAIL", fail, 1);
		_exit(check(fail));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int complain(const char *fail, const char *what, const char *more)
{
	fprintf(stderr, "%s: %s %s\n", fail, what, more);
	return 1;
}

/* Whatever fails, the chunks come out, after at most one line; and once there was one, the CPU is
 * what the backend is. */
static int decodes_all_the_same(const char *fail)
{
	struct lines lines = {0};
	struct hct_backend_options o = {
		.gpu = "auto", .threads = 2, .log = note, .log_arg = &lines};
	struct hct_diag diag = {""};
	hct_backend *b;

	if (hct_backend_open(&o, &b, &diag))
		return complain(fail, "cannot open:", diag.text);
	for (int i = 0; i < 3; i++)
		if (!all_right(b, (unsigned)i, i == 1, &diag))
			return complain(fail, "wrong:", diag.text);
	if (lines.count > 1)
		return complain(fail, "many lines, the last one", lines.last);
	if (hct_backend_gpu(b) != (lines.count ? -1 : 0))
		return complain(fail, "now it is", hct_backend_name(b));
	if (lines.count && strncmp(hct_backend_name(b), "cpu (", 5) != 0)
		return complain(fail, "now it is", hct_backend_name(b));
	hct_backend_close(b);
	return lines.count ? 77 : 0;
}

/* Loading gives the right bytes, or HCT_ERR_IO because the device is lost. */
static int loads_or_says_so(const char *fail)
{
	struct lines lines = {0};
	struct hct_backend_options o = {.gpu = "0", .threads = 2, .log = note, .log_arg = &lines};
	const struct hct_safetensors *st = hct_reader_safetensors(shared.r);
	struct hct_load load = {.rows = 300};
	uint64_t bytes = hct_load_bytes(shared.r, &load);
	struct hct_diag diag = {""};
	uint8_t *found;
	hct_backend *b;
	int wrong;
	hct_error e = hct_backend_open(&o, &b, &diag);

	if (e)
		return e == HCT_ERR_NOMEM || e == HCT_ERR_IO ? 77
							     : complain(fail, "open:", diag.text);
	found = malloc(bytes);
	e = hct_backend_alloc(b, bytes, &load.dst, &diag);
	for (int i = 0; i < 4 && !e; i++)
		e = hct_load_device(b, shared.r, &load, 1, 0, NULL, &diag);
	if (!e)
		e = hct_backend_copy(b, found, load.dst, bytes, &diag);
	wrong = !e &&
		memcmp(found, shared.expected[0] + st->header_len + st->tensors[0].begin, bytes);
	free(found);
	hct_backend_free(b, load.dst);
	hct_backend_close(b);
	if (wrong)
		return complain(fail, "wrong", "bytes");
	if (e && e != HCT_ERR_NOMEM && e != HCT_ERR_IO)
		return complain(fail, "loading:", diag.text);
	if (e == HCT_ERR_IO && !strstr(diag.text, "cuda:0 (emulated)"))
		return complain(fail, "a line without the device:", diag.text);
	return e ? 77 : 0;
}

static void test_failing_device(void **state)
{
	static const char *const functions[] = {"launch",
						"cudaMalloc",
						"cudaMallocHost",
						"cudaMemcpy",
						"cudaMemcpyAsync",
						"cudaStreamSynchronize",
						"cudaEventSynchronize"};
	static const unsigned calls[] = {1, 2, 5, 20};
	int failures = 0;

	(void)state;
	if (!have_plugin())
		skip();
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
			char fail[64];
			int code;

			snprintf(fail, sizeof fail, "%s:%u", functions[i], calls[k]);
			code = in_child(decodes_all_the_same, fail);
			assert_true(code == 0 || code == 77);
			failures += code == 77;
			code = in_child(loads_or_says_so, fail);
			assert_true(code == 0 || code == 77);
			failures += code == 77;
		}
	}
	/* the injected failures did reach somebody */
	assert_true(failures > 20);
}

/* Finding a plug-in --------------------------------------------------------------------- */

static void test_words(void **state)
{
	static const char *const bad[] = {
		"", "on", "AUTO", "-1", "1x", " 1", "0x0", "2147483648", "99999999999999999999"};
	struct hct_diag diag = {""};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct hct_backend_options o = {.gpu = bad[i]};
		hct_backend *b;
		char line[128];

		snprintf(line, sizeof line, "gpu is not auto, off or the number of a GPU: %s",
			 bad[i]);
		assert_int_equal(hct_backend_open(&o, &b, &diag), HCT_ERR_ARGUMENT);
		assert_null(b);
		assert_string_equal(diag.text, line);
		assert_int_equal(hct_backend_check_gpu(bad[i], &diag), HCT_ERR_ARGUMENT);
	}
	assert_int_equal(hct_backend_check_gpu("auto", NULL), HCT_OK);
	assert_int_equal(hct_backend_check_gpu("off", NULL), HCT_OK);
	assert_int_equal(hct_backend_check_gpu("2147483647", NULL), HCT_OK);
	assert_int_equal(hct_backend_check_gpu(NULL, NULL), HCT_OK);
}

/* "auto" goes on with the CPU after `lines` lines; a number is refused, with a line that has this
 * text. */
static void expect_no_gpu(const char *number, unsigned lines, const char *text)
{
	struct hct_backend_options o = {.gpu = number, .threads = 1};
	struct hct_diag diag = {""};
	struct lines found;
	hct_backend *b = open_backend("auto", 1, &found);

	assert_int_equal(hct_backend_gpu(b), -1);
	assert_true(strncmp(hct_backend_name(b), "cpu (", 5) == 0);
	assert_int_equal(found.count, lines);
	if (lines && !strstr(found.last, text))
		fail_msg("%s", found.last);
	hct_backend_close(b);
	assert_int_equal(hct_backend_open(&o, &b, &diag), HCT_ERR_UNSUPPORTED);
	assert_null(b);
	if (!strstr(diag.text, text))
		fail_msg("%s", diag.text);
}

static void test_no_plugin(void **state)
{
	(void)state;
	unsetenv("HCT_CUDA_PLUGIN");
	expect_no_gpu("0", 0, "no GPU plug-in libhct_cuda.so is installed");
	setenv("HCT_CUDA_PLUGIN", "/no/such/plugin.so", 1);
	expect_no_gpu("0", 1, "/no/such/plugin.so");
	folder_write_text("text.so", "this is no library");
	setenv("HCT_CUDA_PLUGIN", "./text.so", 1);
	expect_no_gpu("0", 1, "text.so");
}

/* Where the tests were started: the project's folder, where make does it. */
static char root[4096];

/* Compiles a plug-in of this text; skips the test where that does not work.  A name is of one
 * library for as long as the program runs. */
static void compile(const char *name, const char *text)
{
	char command[sizeof root + 128];

	folder_write_text("plugin.c", text);
	snprintf(command, sizeof command, "cc -shared -fPIC -I'%s' -o %s plugin.c 2>/dev/null",
		 root, name);
	if (system(command) != 0)
		skip();
	setenv("HCT_CUDA_PLUGIN", name, 1);
}

static void test_another_version(void **state)
{
	(void)state;
	compile("./version.so", "const unsigned hct_device_class[64] = {4711};\n");
	expect_no_gpu("0", 1, "a GPU plug-in of another version");
}

static void test_another_library(void **state)
{
	(void)state;
	compile("./library.so", "int something_else;\n");
	expect_no_gpu("0", 1, "./library.so: no GPU plug-in");
}

/* The emulated plug-in, but the first chunk of each batch is flagged (LIE=flag), or has wrong
 * bytes. */
static const char liar[] =
	"#include <dlfcn.h>\n"
	"#include <stdlib.h>\n"
	"#include \"codec/device.h\"\n"
	"struct hct_device_class hct_device_class;\n"
	"static const struct hct_device_class *real;\n"
	"static hct_error lie(hct_device *d, struct hct_device_batch *b, struct hct_diag *diag)\n"
	"{\n"
	"	hct_error e = real->wait(d, b, diag);\n"
	"	if (!e && getenv(\"LIE\")[0] == 'f')\n"
	"		b->bad[0] = 1;\n"
	"	else if (!e)\n"
	"		*(char *)b->copies[0].to ^= 1;\n"
	"	return e;\n"
	"}\n"
	"__attribute__((constructor)) static void init(void)\n"
	"{\n"
	"	real = dlsym(dlopen(getenv(\"HCT_TEST_PLUGIN\"), RTLD_NOW), HCT_DEVICE_SYMBOL);\n"
	"	hct_device_class = *real;\n"
	"	hct_device_class.wait = lie;\n"
	"}\n";

/* What the CPU finds counts, and a device that finds something else is not asked again. */
static void expect_found_out(const char *lie)
{
	struct lines lines;
	struct hct_diag diag = {""};
	hct_backend *b;

	setenv("LIE", lie, 1);
	b = open_backend("0", 2, &lines);
	if (!all_right(b, 0, 1, &diag))
		fail_msg("%s", diag.text);
	assert_int_equal(lines.count, 1);
	if (!strstr(lines.last, "cuda:0 (emulated): GPU and CPU differ about model, tensor ") ||
	    !strstr(lines.last, "; from now on the CPU decodes"))
		fail_msg("%s", lines.last);
	assert_int_equal(hct_backend_gpu(b), -1);
	hct_backend_close(b);
}

static void test_liar(void **state)
{
	(void)state;
	if (!have_plugin())
		skip();
	compile("./liar.so", liar);
	expect_found_out("flag");
	expect_found_out("bytes");
}

static void test_devices(void **state)
{
	struct lines lines;
	hct_backend *b;

	(void)state;
	if (!have_plugin())
		skip();
	setenv("CUDA_EMULATOR_DEVICES", "0", 1);
	expect_no_gpu("0", 0, "no GPU 0: there are 0");
	setenv("CUDA_EMULATOR_DEVICES", "2", 1);
	b = open_backend("1", 1, &lines);
	assert_int_equal(hct_backend_gpu(b), 1);
	assert_string_equal(hct_backend_name(b), "cuda:1 (emulated)");
	hct_backend_close(b);
	b = open_backend("auto", 1, &lines);
	assert_string_equal(hct_backend_name(b), "cuda:0 (emulated)");
	hct_backend_close(b);
	unsetenv("CUDA_EMULATOR_DEVICES");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test_setup_teardown(test_no_plugin, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_another_version, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_another_library, folder_enter, folder_leave),
		cmocka_unit_test_setup_teardown(test_liar, folder_enter, folder_leave),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_failing_device),
	};

	if (!getcwd(root, sizeof root))
		return 1;
	return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
