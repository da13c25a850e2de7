/* report.h: a report from nodes is the same as the one that made them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "writer/excuses.h"
#include "writer/page.h"
#include "writer/report.h"

static const char model[] =
	"{\"name\":\"m.safetensors\",\"kind\":\"model\",\"source_bytes\":3000000000,"
	"\"stored_bytes\":1000000000,\"sha256\":\"00\",\"tensors\":2,\"sums\":{\"header_bytes\":80,"
	"\"lossless\":{\"tensors\":1,\"weights\":10,\"source_bytes\":40,\"stored_bytes\":39,"
	"\"bf16_bytes\":20,\"verified\":0,\"errors\":\"0x0p+0\",\"cosines\":\"0x1.4p+3\","
	"\"worst_error\":\"-0x1p+0\",\"worst\":\"0x1p+0\",\"worst_name\":\"b\"},"
	"\"lossy\":{\"tensors\":1,\"weights\":1000,\"source_bytes\":4000,"
	"\"stored_bytes\":300,\"bf16_bytes\":2000,\"verified\":1,"
	"\"errors\":\"0x1.f99999999999bp-4\",\"cosines\":\"0x1.f3f3333333335p+9\","
	"\"worst_error\":\"0x1.02e85be180b75p-13\",\"worst\":\"0x1.fff2e48e8a71cp-1\","
	"\"worst_name\":\"a<\","
	"\"notes\":[{\"reason\":\"it was too <large\",\"tensors\":1,\"first\":[\"a<\"]}]}},"
	"\"tensor_list\":[\n\t\t\t\t{\"name\":\"a\",\"shape\":[2,500]},"
	"\n\t\t\t\t{\"name\":\"b\",\"shape\":[]}]}";

static struct mkhct_report *create(void)
{
	static struct mkhct_source source = {.label = "label"};
	struct mkhct_report *r;

	assert_int_equal(mkhct_report_create(&source, "{\"mode\":\"lossy\"}", 0, &r, NULL), HCT_OK);
	return r;
}

static hct_error add(struct mkhct_report *r, const char *text)
{
	cJSON *node = cJSON_Parse(text);
	hct_error err = mkhct_report_add_node(r, node, NULL);

	cJSON_Delete(node);
	return err;
}

static void nodes_make_the_same_report(void **state)
{
	struct mkhct_report *first = create(), *second = create();
	char *node, *a, *b;

	(void)state;
	assert_null(mkhct_report_node(first));
	assert_int_equal(add(first, model), HCT_OK);
	node = mkhct_report_node(first);
	assert_non_null(strstr(node, "0x1.f99999999999bp-4")); /* to the last bit */
	assert_int_equal(add(second, node), HCT_OK);
	cJSON_free(node);
	assert_int_equal(add(first, "{\"name\":\"sub\"}"), HCT_OK);
	assert_int_equal(add(second, "{\"name\":\"sub\"}"), HCT_OK);
	a = mkhct_report_full(first, 1);
	b = mkhct_report_full(second, 1);
	assert_string_equal(a, b);
	assert_null(strstr(a, "\"sums\""));
	assert_non_null(strstr(a, "\"worst\""));
	assert_non_null(strstr(a, "\"source_bytes\":\t3000000000"));
	assert_non_null(strstr(a, "\n\t\t\t\t{\"name\":\"b\",\"shape\":[]}]"));
	cJSON_free(a);
	cJSON_free(b);
	mkhct_report_free(first);
	mkhct_report_free(second);
}

/* In the report, in the table and on the page. */
static void notes_are_shown(void **state)
{
	struct mkhct_report *r = create();
	struct mkhct_excuses notes = {.count = 0};
	struct mkhct_result result = {.plan.note = "it was too <large", .error = 1};
	char *text, *table = NULL, *html = NULL;
	size_t size;
	FILE *stream = open_memstream(&table, &size);
	cJSON *parsed;

	(void)state;
	assert_int_equal(add(r, model), HCT_OK);
	text = mkhct_report_full(r, 1);
	parsed = cJSON_Parse(text);
	mkhct_excuses_read(cJSON_GetObjectItemCaseSensitive(parsed, "lossy"), MKHCT_EXCUSES_NOTE,
			   &notes);
	cJSON_Delete(parsed);
	assert_int_equal(notes.count, 1);
	assert_int_equal(notes.list[0].tensors, 1);
	mkhct_excuses_add_note(&notes, "b", &result);
	assert_int_equal(notes.list[0].tensors, 2);
	assert_string_equal(notes.list[0].names[1], "b");
	result.error = 0; /* lossless: nothing is missing */
	mkhct_excuses_add_note(&notes, "c", &result);
	assert_int_equal(notes.list[0].tensors, 2);
	mkhct_report_print_table(r, 1, stream);
	fclose(stream);
	assert_non_null(strstr(table, "\nnote      1 tensor: it was too <large: a<\n"));
	free(table);
	stream = open_memstream(&html, &size);
	assert_int_equal(mkhct_page_write(mkhct_report_document(r), stream, NULL), HCT_OK);
	fclose(stream);
	assert_non_null(strstr(html, ">1 tensor: it was too &lt;large: <bdi>a&lt;</bdi>.</p>"));
	free(html);
	cJSON_free(text);
	mkhct_report_free(r);
}

static void damaged_nodes_are_refused(void **state)
{
	struct mkhct_report *r = create();

	(void)state;
	assert_int_equal(add(r, "[]"), HCT_ERR_CORRUPT);
	assert_int_equal(add(r, "{}"), HCT_ERR_CORRUPT);
	assert_int_equal(add(r, "{\"name\":1}"), HCT_ERR_CORRUPT);
	assert_int_equal(add(r, "{\"name\":\"a\",\"kind\":\"x\",\"source_bytes\":1,"
				"\"stored_bytes\":1}"),
			 HCT_ERR_CORRUPT);
	assert_int_equal(add(r, "{\"name\":\"a\",\"kind\":\"carried\",\"source_bytes\":-1,"
				"\"stored_bytes\":1}"),
			 HCT_ERR_CORRUPT);
	assert_int_equal(add(r, "{\"name\":\"a\",\"kind\":\"model\",\"source_bytes\":1,"
				"\"stored_bytes\":1,\"tensors\":1}"),
			 HCT_ERR_CORRUPT);
	mkhct_report_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes_make_the_same_report),
		cmocka_unit_test(notes_are_shown),
		cmocka_unit_test(damaged_nodes_are_refused),
	};

	return cmocka_run_group_tests_name("report_node", tests, NULL, NULL);
}
