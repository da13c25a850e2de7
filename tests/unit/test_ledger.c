/* The ledger: what is read again is what was appended, and what is not from mkhct is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/bytes.h"
#include "codec/checksum.h"
#include "model.h"
#include "writer/ledger.h"

#define FRAME 12 /* of a record: ledger.h */
#define HEAD  64

static const struct model_tensor tensors[] = {
	{"empty", "F32", "[0]", 0, NOISE},
	{"w", "BF16", "[600,512]", 614400, WEIGHTS},
	{"n", "U8", "[1000]", 1000, NOISE},
	{"x", "BF16", "[300,512]", 307200, WEIGHTS},
};

#define COUNT  (sizeof tensors / sizeof *tensors)
#define CHUNKS 6 /* of all of them */

/* A model that is being appended to a file, with what becomes of its tensors. */
struct work {
	struct model m;
	hct_encoder *e;
	hct_plan *plan[COUNT];
	struct mkhct_result results[COUNT];
	int fd, ledger_fd;
	hct_appender *a;
	struct mkhct_ledger *l;
	size_t tensor;  /* the next chunk is of this one */
	uint64_t chunk; /* and this one of it */
};

static struct mkhct_ledger *open_ledger(int fd, uint64_t bytes)
{
	struct hct_diag d = {""};
	struct mkhct_ledger *l = NULL;

	if (mkhct_ledger_open(fd, "test", bytes, &l, &d))
		fail_msg("%s", d.text);
	return l;
}

static void start(struct work *w)
{
	const struct hct_goal goal = {.relative_squared_error = .01, .layers = 2};

	memset(w, 0, sizeof(*w));
	model_make(tensors, COUNT, 1, &w->m);
	assert_int_equal(hct_encoder_create(HCT_SIMD_AUTO, &w->e), HCT_OK);
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(
			hct_plan_create(w->e, &w->m.st.tensors[i],
					w->m.file + w->m.st.header_len + w->m.st.tensors[i].begin,
					i == 3 ? &goal : NULL, &w->plan[i], NULL),
			HCT_OK);
		hct_plan_describe(w->plan[i], &w->results[i].plan);
	}
	w->results[2].plan.why = "not a matrix";
	w->results[3].retries = 3;
	w->results[3].failed = 1;
	w->fd = memfd_create("test", MFD_CLOEXEC);
	w->ledger_fd = memfd_create("ledger", MFD_CLOEXEC);
	assert_int_equal(hct_appender_create(w->fd, "test", &w->m.st, &w->a, NULL), HCT_OK);
	w->l = open_ledger(w->ledger_fd, 0);
}

static void stop(struct work *w)
{
	mkhct_ledger_free(w->l);
	hct_appender_free(w->a);
	for (size_t i = 0; i < COUNT; i++)
		hct_plan_free(w->plan[i]);
	hct_encoder_free(w->e);
	model_free(&w->m);
	close(w->fd);
	close(w->ledger_fd);
}

/* Appends the next chunk, and declares what comes before it; 0 when there is none. */
static int step(struct work *w)
{
	struct hct_encoded c;
	const uint8_t *data;

	for (;;) {
		if (w->tensor == COUNT)
			return 0;
		if (w->chunk == 0)
			assert_int_equal(
				hct_appender_tensor(w->a, w->tensor, w->plan[w->tensor], NULL),
				HCT_OK);
		if (w->chunk < hct_plan_chunk_count(w->plan[w->tensor]))
			break;
		w->tensor++;
		w->chunk = 0;
	}
	data = w->m.file + w->m.st.header_len + w->m.st.tensors[w->tensor].begin;
	data += w->chunk * hct_plan_chunk_bytes(w->plan[w->tensor]);
	assert_int_equal(hct_encode_chunk(w->e, w->plan[w->tensor], w->chunk, data, &c, NULL),
			 HCT_OK);
	assert_int_equal(hct_appender_chunk(w->a, &c, NULL), HCT_OK);
	w->results[w->tensor].energy += c.energy;
	w->results[w->tensor].decoded_energy += c.decoded_energy;
	w->results[w->tensor].error += c.error;
	if (++w->chunk == hct_plan_chunk_count(w->plan[w->tensor])) {
		w->tensor++;
		w->chunk = 0;
	}
	return 1;
}

static void save(struct work *w)
{
	assert_int_equal(mkhct_ledger_save(w->l, w->a, w->results, NULL), HCT_OK);
	assert_int_equal(mkhct_ledger_sync(w->l, NULL), HCT_OK);
	assert_int_equal(mkhct_ledger_bytes(w->l), lseek(w->ledger_fd, 0, SEEK_END));
}

static void assert_same_text(const char *a, const char *b)
{
	if (a && b)
		assert_string_equal(a, b);
	else
		assert_true(!a && !b);
}

static void assert_tensor(const struct work *w, const struct mkhct_ledger *l, size_t i)
{
	const struct mkhct_result *want = &w->results[i];
	struct hct_appended a, b;
	struct mkhct_result r;

	hct_appender_describe(w->a, i, &a);
	mkhct_ledger_tensor(l, i, &b, &r);
	assert_int_equal(a.codec, b.codec);
	assert_int_equal(a.layers, b.layers);
	assert_int_equal(a.chunk_bytes, b.chunk_bytes);
	assert_int_equal(a.chunk_count, b.chunk_count);
	assert_int_equal(a.chunks, b.chunks);
	assert_int_equal(a.params_length, b.params_length);
	assert_memory_equal(a.params, b.params, a.params_length);
	assert_memory_equal(a.extents, b.extents, a.chunks * a.layers * HCT_APPENDED_EXTENT);
	assert_int_equal(hct_appended_bytes(&a), hct_appended_bytes(&b));
	assert_true(b.energy == want->energy && b.error == want->error);
	assert_true(r.energy == want->energy && r.error == want->error &&
		    r.decoded_energy == want->decoded_energy);
	assert_int_equal(r.retries, want->retries);
	assert_int_equal(r.failed, want->failed);
	assert_int_equal(r.verified, 0);
	assert_same_text(r.plan.codec, want->plan.codec);
	assert_same_text(r.plan.why, want->plan.why);
	assert_int_equal(r.plan.layers, want->plan.layers);
	assert_int_equal(r.plan.tile_rows, want->plan.tile_rows);
	assert_int_equal(r.plan.tile_columns, want->plan.tile_columns);
	assert_true(r.plan.bits == want->plan.bits &&
		    r.plan.relative_squared_error == want->plan.relative_squared_error);
}

/* Reads what is written so far, through the same file. */
static void assert_read_again(struct work *w)
{
	struct mkhct_ledger *l = open_ledger(w->ledger_fd, mkhct_ledger_bytes(w->l));

	assert_int_equal(mkhct_ledger_count(l), hct_appender_count(w->a));
	for (size_t i = 0; i < mkhct_ledger_count(l); i++)
		assert_tensor(w, l, i);
	mkhct_ledger_free(l);
}

static void test_what_was_appended_is_read_again(void **state)
{
	struct work w;
	unsigned steps = 0;

	(void)state;
	start(&w);
	save(&w);
	assert_int_equal(mkhct_ledger_bytes(w.l), 0);
	while (step(&w)) {
		steps++;
		save(&w);
		assert_read_again(&w);
		save(&w); /* nothing new */
	}
	assert_int_equal(steps, CHUNKS);
	assert_int_equal(hct_appender_count(w.a), COUNT);
	stop(&w);
}

/* Saved once at the end, in one record a tensor. */
static void test_saved_at_once(void **state)
{
	struct work w;

	(void)state;
	start(&w);
	while (step(&w))
		;
	save(&w);
	assert_read_again(&w);
	stop(&w);
}

/* Opened in the middle, what lies behind is cut off and written again. */
static void test_goes_on(void **state)
{
	for (unsigned middle = 0; middle < CHUNKS; middle++) {
		struct work w;
		uint64_t bytes;

		(void)state;
		start(&w);
		for (unsigned i = 0; i < middle; i++)
			step(&w);
		save(&w);
		bytes = mkhct_ledger_bytes(w.l);
		assert_int_equal(pwrite(w.ledger_fd, "torn", 4, (off_t)bytes), 4);
		mkhct_ledger_free(w.l);
		w.l = open_ledger(w.ledger_fd, bytes);
		assert_int_equal(lseek(w.ledger_fd, 0, SEEK_END), bytes);
		assert_int_equal(mkhct_ledger_bytes(w.l), bytes);
		while (step(&w))
			save(&w);
		assert_read_again(&w);
		stop(&w);
	}
}

static void test_drop(void **state)
{
	struct mkhct_ledger *l;
	struct work w;
	uint64_t bytes;

	(void)state;
	start(&w);
	step(&w);
	/* Not saved yet: nothing to forget. */
	assert_int_equal(mkhct_ledger_drop(w.l, 1, NULL), HCT_OK);
	assert_int_equal(mkhct_ledger_bytes(w.l), 0);
	step(&w);
	save(&w);
	bytes = mkhct_ledger_bytes(w.l);
	assert_int_equal(hct_appender_rewind(w.a, NULL), HCT_OK);
	assert_int_equal(mkhct_ledger_drop(w.l, 1, NULL), HCT_OK);
	assert_true(mkhct_ledger_bytes(w.l) > bytes);
	l = open_ledger(w.ledger_fd, mkhct_ledger_bytes(w.l));
	assert_int_equal(mkhct_ledger_count(l), 1);
	/* Dropped by the one that has read it, too. */
	mkhct_ledger_free(l);
	l = open_ledger(w.ledger_fd, mkhct_ledger_bytes(w.l));
	assert_int_equal(mkhct_ledger_drop(l, 0, NULL), HCT_OK);
	assert_int_equal(mkhct_ledger_count(l), 0);
	mkhct_ledger_free(l);
	l = open_ledger(w.ledger_fd, mkhct_ledger_bytes(w.l));
	mkhct_ledger_free(l);
	/* Coded anew, in another way. */
	w.chunk = 0;
	w.results[1] = (struct mkhct_result){.plan = w.results[1].plan, .failed = 1};
	while (step(&w))
		save(&w);
	assert_read_again(&w);
	stop(&w);
}

/* A ledger of all chunks, saved after each, as bytes that are the caller's. */
static uint8_t *make_ledger(struct work *w, size_t *length)
{
	uint8_t *bytes;

	start(w);
	while (step(w))
		save(w);
	*length = (size_t)mkhct_ledger_bytes(w->l);
	bytes = malloc(*length);
	assert_non_null(bytes);
	assert_int_equal(pread(w->ledger_fd, bytes, *length, 0), *length);
	return bytes;
}

/* Opens these bytes as a ledger, and takes all of it where an appender takes it. */
static hct_error use(const struct work *w, const uint8_t *bytes, size_t length, uint64_t claimed)
{
	int fd = memfd_create("ledger", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
	struct hct_diag d = {""};
	struct mkhct_ledger *l;
	hct_appender *a;
	hct_error err;

	assert_int_equal(write(fd, bytes, length), length);
	err = mkhct_ledger_open(fd, "test", claimed, &l, &d);
	if (err) {
		assert_non_null(strstr(d.text, "test: "));
		goto out;
	}
	assert_int_equal(hct_appender_create(out, "test", &w->m.st, &a, NULL), HCT_OK);
	for (size_t i = 0; !err && i < mkhct_ledger_count(l); i++) {
		struct hct_appended t;
		struct mkhct_result r;

		mkhct_ledger_tensor(l, i, &t, &r);
		(void)hct_appended_bytes(&t);
		err = hct_appender_restore(a, i, &t, &d);
	}
	hct_appender_free(a);
	mkhct_ledger_free(l);
out:
	close(fd);
	close(out);
	return err;
}

static void test_damaged(void **state)
{
	struct work w;
	size_t length;
	uint8_t *bytes;

	(void)state;
	bytes = make_ledger(&w, &length);
	assert_int_equal(use(&w, bytes, length, length), HCT_OK);
	for (size_t i = 0; i < length; i++) {
		bytes[i] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(use(&w, bytes, length, length), HCT_ERR_CORRUPT);
		bytes[i] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t i = 1; i < length; i += i < 2000 ? 1 : 37) {
		hct_error err = use(&w, bytes, length, length - i);

		assert_true(err == HCT_ERR_CORRUPT || err == HCT_OK); /* whole records */
		assert_true(use(&w, bytes, length - i, length) != HCT_OK);
	}
	/* More than mkhct ever writes, and no question of memory. */
	assert_int_equal(use(&w, bytes, length, UINT64_MAX), HCT_ERR_CORRUPT);
	assert_int_equal(use(&w, bytes, length, INT64_MAX), HCT_ERR_CORRUPT);
	assert_int_equal(use(&w, bytes, length, (UINT64_C(1) << 31) + 1), HCT_ERR_CORRUPT);
	free(bytes);
	stop(&w);
}

/* The n-th record, or the first one behind the last, at *at; returns its length with its frame. */
static size_t record_at(const uint8_t *bytes, size_t length, unsigned n, size_t *at)
{
	*at = 0;
	for (;;) {
		size_t size = FRAME + hct_load32(bytes + *at);

		if (n-- == 0 || *at + size >= length)
			return size;
		*at += size;
	}
}

/* With checksums that are right. */
static void seal(uint8_t *record)
{
	hct_store64(record + 4, hct_checksum(record + FRAME, hct_load32(record)));
}

static uint32_t next(uint32_t *seed)
{
	return *seed = *seed * 1664525 + 1013904223;
}

static void forge(uint8_t *p, uint32_t *seed)
{
	static const uint64_t wild[] = {0,         1,        UINT64_MAX, UINT32_MAX,
					INT64_MAX, 1u << 31, 1u << 18};

	switch (next(seed) >> 30) {
	case 0:
		p[0] = (uint8_t)(next(seed) >> 24);
		break;
	case 1:
		p[0] ^= (uint8_t)(1u << (next(seed) >> 29));
		break;
	case 2:
		hct_store32(p, (uint32_t)wild[(next(seed) >> 16) % 7]);
		break;
	default:
		hct_store64(p, wild[(next(seed) >> 16) % 7]);
	}
}

static void test_forged(void **state)
{
	struct work w;
	size_t length;
	uint8_t *bytes, *forged;
	uint32_t seed = 7;
	unsigned refused = 0;

	(void)state;
	bytes = make_ledger(&w, &length);
	forged = malloc(length);
	assert_non_null(forged);
	for (unsigned i = 0; i < 4000; i++) {
		size_t at, size;

		memcpy(forged, bytes, length);
		size = record_at(forged, length, (next(&seed) >> 16) % (CHUNKS + 1), &at);
		for (unsigned k = 1 + (next(&seed) >> 31); k--;) {
			size_t body = size - FRAME,
			       room = body < 130 || next(&seed) >> 31 ? body : 130;

			forge(forged + at + FRAME + (next(&seed) >> 8) % (room - 7), &seed);
		}
		seal(forged + at);
		refused += use(&w, forged, length, length) != HCT_OK;
	}
	assert_true(refused > 1000 && refused < 4000);
	free(forged);
	free(bytes);
	stop(&w);
}

/* Records that speak of tensors that are not there. */
static void test_numbers_of_tensors(void **state)
{
	static const uint64_t wild[] = {UINT64_MAX, 1, UINT64_MAX - 1};
	struct work w;

	(void)state;
	start(&w);
	for (unsigned flags = 0; flags < 4; flags++)
		for (size_t i = 0; i < 3; i++) {
			uint8_t record[FRAME + HEAD] = {HEAD};

			hct_store64(record + FRAME, wild[i]);
			hct_store32(record + FRAME + 56, flags);
			seal(record);
			assert_int_equal(use(&w, record, sizeof record, sizeof record),
					 HCT_ERR_CORRUPT);
		}
	stop(&w);
}

/* It can be saved again when there is room again. */
static void test_write_that_fails(void **state)
{
	struct hct_diag d = {""};
	struct work w;
	int saved, full;

	(void)state;
	start(&w);
	step(&w);
	save(&w);
	step(&w);
	saved = dup(w.ledger_fd);
	full = open("/dev/full", O_RDWR | O_CLOEXEC);
	assert_true(saved >= 0 && full >= 0);
	assert_int_equal(dup2(full, w.ledger_fd), w.ledger_fd);
	assert_int_equal(mkhct_ledger_save(w.l, w.a, w.results, &d), HCT_ERR_NO_SPACE);
	assert_non_null(strstr(d.text, "test: "));
	assert_int_equal(dup2(saved, w.ledger_fd), w.ledger_fd);
	close(saved);
	close(full);
	save(&w);
	assert_read_again(&w);
	stop(&w);
	mkhct_ledger_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_appended_is_read_again),
		cmocka_unit_test(test_saved_at_once),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_numbers_of_tensors),
		cmocka_unit_test(test_write_that_fails),
	};

	return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
