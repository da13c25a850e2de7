#include "model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bench_die(const char *what, const struct hct_diag *d)
{
	fprintf(stderr, "bench: %s%s%s\n", what, d ? ": " : "", d ? d->text : "");
	exit(1);
}

void *bench_alloc(size_t n, size_t size)
{
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 4096)
		bench_die("out of memory", NULL);
	p = aligned_alloc(4096, (bytes + 4096) / 4096 * 4096);
	if (!p)
		bench_die("out of memory", NULL);
	return p;
}

static void parse(struct model *m)
{
	struct hct_diag d = {""};
	size_t header;

	if (m->length < 8)
		bench_die("not a safetensors file", NULL);
	if (hct_safetensors_header_len(m->bytes, m->length, &header, &d) ||
	    hct_safetensors_parse(m->bytes, header, m->length, &m->st, &d))
		bench_die("not a safetensors file", &d);
}

void model_load(const char *path, struct model *out)
{
	struct stat sb;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &sb))
		bench_die(path, NULL);
	out->length = (size_t)sb.st_size;
	out->bytes = bench_alloc(out->length + 64, 1);
	for (size_t at = 0; at < out->length;) {
		ssize_t n = read(fd, out->bytes + at, out->length - at);

		if (n <= 0)
			bench_die("cannot read", NULL);
		at += (size_t)n;
	}
	close(fd);
	parse(out);
}

void model_save(const struct model *m, const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(m->bytes, 1, m->length, f) != m->length || fclose(f))
		bench_die(path, NULL);
}

void model_free(struct model *m)
{
	hct_safetensors_free(&m->st);
	free(m->bytes);
	*m = (struct model){0};
}

static uint16_t to_bf16(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	if ((u & 0x7fffffff) > 0x7f800000) /* NaN */
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* F32 to the bits of F16, rounded to nearest even. */
static uint16_t to_f16(float f)
{
	uint32_t u, sign;
	float a;

	memcpy(&u, &f, 4);
	sign = u >> 16 & 0x8000;
	u &= 0x7fffffff;
	if (u > 0x7f800000) /* NaN */
		return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
	if (u >= 0x477ff000) /* 65520 and above */
		return (uint16_t)(sign | 0x7c00);
	if (u >= 0x38800000) /* normal */
		return (uint16_t)(sign | ((u + 0xfff + (u >> 13 & 1) - (112u << 23)) >> 13));
	memcpy(&a, &u, 4);
	a += 0.5f; /* whose last place is that of the subnormals */
	memcpy(&u, &a, 4);
	return (uint16_t)(sign | (u - 0x3f000000));
}

static int is_rounded(const struct hct_tensor *t, const char *dtype)
{
	return dtype && t->dtype == HCT_DTYPE_F32;
}

static uint64_t rounded_bytes(const struct hct_tensor *t, const char *dtype)
{
	return hct_tensor_bytes(t) / (is_rounded(t, dtype) ? 2 : 1);
}

static int is_matrix(const struct hct_tensor *t)
{
	return t->rank == 2 && t->elements &&
	       (t->dtype == HCT_DTYPE_F64 || t->dtype == HCT_DTYPE_F32 ||
		t->dtype == HCT_DTYPE_F16 || t->dtype == HCT_DTYPE_BF16);
}

static void add_entry(cJSON *header, const struct hct_tensor *t, const char *dtype, uint64_t pos)
{
	cJSON *entry = cJSON_AddObjectToObject(header, t->name);
	cJSON *shape, *place;

	cJSON_AddStringToObject(entry, "dtype", is_rounded(t, dtype) ? dtype : t->dtype_name);
	shape = cJSON_AddArrayToObject(entry, "shape");
	for (unsigned k = 0; k < t->rank; k++)
		cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[k]));
	place = cJSON_AddArrayToObject(entry, "data_offsets");
	cJSON_AddItemToArray(place, cJSON_CreateNumber((double)pos));
	cJSON_AddItemToArray(place, cJSON_CreateNumber((double)(pos + rounded_bytes(t, dtype))));
}

static void copy_values(const struct hct_tensor *t, const char *dtype, const uint8_t *src,
			uint8_t *dst)
{
	if (!is_rounded(t, dtype)) {
		memcpy(dst, src, hct_tensor_bytes(t));
		return;
	}
	for (uint64_t k = 0; k < t->elements; k++) {
		float f;
		uint16_t h;

		memcpy(&f, src + 4 * k, 4);
		h = dtype[0] == 'B' ? to_bf16(f) : to_f16(f);
		memcpy(dst + 2 * k, &h, 2);
	}
}

/* Tensors whose bytes lie at data: the header and the room for the rest. */
static void assemble(const struct hct_tensor *tensors, size_t count, const uint8_t *data,
		     const char *dtype, int matrices_only, struct model *out)
{
	cJSON *header = cJSON_CreateObject();
	uint64_t pos = 0, text_length;
	char *text;
	size_t at;

	for (size_t i = 0; i < count; i++) {
		if (matrices_only && !is_matrix(&tensors[i]))
			continue;
		add_entry(header, &tensors[i], dtype, pos);
		pos += rounded_bytes(&tensors[i], dtype);
	}
	text = cJSON_PrintUnformatted(header);
	if (!text)
		bench_die("out of memory", NULL);
	at = (strlen(text) + 7) / 8 * 8;
	out->length = 8 + at + pos;
	out->bytes = bench_alloc(out->length + 64, 1);
	text_length = at;
	memcpy(out->bytes, &text_length, 8);
	memset(out->bytes + 8, ' ', at);
	memcpy(out->bytes + 8, text, strlen(text));
	cJSON_free(text);
	cJSON_Delete(header);
	at += 8;
	for (size_t i = 0; i < count; i++) {
		if (matrices_only && !is_matrix(&tensors[i]))
			continue;
		copy_values(&tensors[i], dtype, data + tensors[i].begin, out->bytes + at);
		at += rounded_bytes(&tensors[i], dtype);
	}
	parse(out);
}

void model_select(const struct model *in, const char *dtype, int matrices_only, struct model *out)
{
	assemble(in->st.tensors, in->st.count, in->bytes + in->st.header_len, dtype, matrices_only,
		 out);
	if (!out->st.count)
		bench_die("the model has no matrices of floating point", NULL);
}

void model_of_matrix(const float *values, uint64_t rows, uint64_t columns, const char *dtype,
		     struct model *out)
{
	const uint64_t shape[2] = {rows, columns};
	const struct hct_tensor t = {.name = "matrix",
				     .dtype_name = "F32",
				     .dtype = HCT_DTYPE_F32,
				     .rank = 2,
				     .shape = shape,
				     .elements = rows * columns,
				     .end = 4 * rows * columns};

	assemble(&t, 1, (const uint8_t *)(const void *)values, dtype, 0, out);
}

uint64_t model_weights(const struct model *m)
{
	uint64_t n = 0;

	for (size_t i = 0; i < m->st.count; i++)
		n += m->st.tensors[i].elements;
	return n;
}
