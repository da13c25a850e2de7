#include "twins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/checksum.h"
#include "writer/interrupt.h"
#include "writer/model.h"
#include "writer/names.h"
#include "writer/shards.h"

struct file {
	const struct mkhct_entry *entry;
	size_t folder; /* length, with the '/' behind it */
	int indexed, numbered;
	struct mkhct_shard_name shard; /* when it is numbered; of the whole name */
	size_t copy;                   /* number in its folder */
};

struct name {
	uint64_t hash;
	uint32_t file, tensor;
};

struct copy {
	size_t first; /* file */
	size_t tensors;
	size_t shared; /* names that another copy has as well */
	size_t with;   /* the first such copy */
	uint64_t bytes;
};

/* Of one folder. */
struct folder {
	struct file *files;
	size_t count;
	struct name *names;
	size_t name_count, capacity;
	struct copy *copies;
	size_t copy_count;
};

/* What has been found, in all folders. */
struct finds {
	size_t twins, copies; /* tensors; pairs of copies */
	struct hct_diag twin; /* text of the first: names and files */
	struct hct_diag copy;
};

static int compare_bytes(const char *a, size_t n, const char *b, size_t m)
{
	int order = memcmp(a, b, n < m ? n : m);

	return order ? order : (n > m) - (n < m);
}

static int compare_folders(const struct file *a, const struct file *b)
{
	return compare_bytes(a->entry->name, a->folder, b->entry->name, b->folder);
}

static int same_copy(const struct file *a, const struct file *b)
{
	if (a->indexed || b->indexed)
		return a->indexed && b->indexed;
	return a->numbered && b->numbered && a->shard.total == b->shard.total &&
	       compare_bytes(a->entry->name, a->shard.prefix, b->entry->name, b->shard.prefix) == 0;
}

/* By folder; indexed ones first; a numbered one beside others of its set. */
static int compare_files(const void *a, const void *b)
{
	const struct file *x = a, *y = b;
	int order = compare_folders(x, y);

	if (order || x->indexed != y->indexed)
		return order ? order : y->indexed - x->indexed;
	if (!x->indexed && x->numbered != y->numbered)
		return x->numbered - y->numbered;
	if (!x->indexed && x->numbered) {
		order = compare_bytes(x->entry->name, x->shard.prefix, y->entry->name,
				      y->shard.prefix);
		if (order || x->shard.total != y->shard.total)
			return order ? order : x->shard.total < y->shard.total ? -1 : 1;
	}
	return strcmp(x->entry->name, y->entry->name);
}

static int compare_names(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static hct_error read_names(struct folder *f, size_t file, struct hct_diag *diag)
{
	const struct mkhct_entry *entry = f->files[file].entry;
	struct mkhct_model model;
	hct_error err = mkhct_model_open(entry, &model, diag);
	size_t need;

	if (err)
		return err;
	need = f->name_count + model.st.count;
	if (need > f->capacity) {
		size_t capacity = need + f->capacity / 2;
		struct name *grown = reallocarray(f->names, capacity, sizeof(*grown));

		if (!grown) {
			mkhct_model_close(&model);
			return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", entry->path);
		}
		f->names = grown;
		f->capacity = capacity;
	}
	for (size_t i = 0; i < model.st.count; i++) {
		const char *name = model.st.tensors[i].name;

		f->names[f->name_count++] = (struct name){hct_checksum(name, strlen(name)),
							  (uint32_t)file, (uint32_t)i};
	}
	f->copies[f->files[file].copy].tensors += model.st.count;
	mkhct_model_close(&model);
	return mkhct_interrupt_check(diag);
}

static hct_error tensor_name(const struct folder *f, const struct name *n, char out[static 256],
			     struct hct_diag *diag)
{
	struct mkhct_model model;
	hct_error err = mkhct_model_open(f->files[n->file].entry, &model, diag);

	if (err)
		return err;
	mkhct_name_printable(n->tensor < model.st.count ? model.st.tensors[n->tensor].name : "",
			     out, 256);
	mkhct_model_close(&model);
	return HCT_OK;
}

static size_t copy_of(const struct folder *f, const struct name *n)
{
	return f->files[n->file].copy;
}

/* Counts what copies share: each against the first that has the name. */
static void count_shared(struct folder *f)
{
	for (size_t i = 0, end; i < f->name_count; i = end) {
		size_t first = copy_of(f, &f->names[i]), last = first;

		/* Files, and so copies, are in order within a hash. */
		for (end = i + 1; end < f->name_count && f->names[end].hash == f->names[i].hash;
		     end++) {
			struct copy *c = &f->copies[copy_of(f, &f->names[end])];

			if (copy_of(f, &f->names[end]) == last)
				continue;
			last = copy_of(f, &f->names[end]);
			if (c->shared++ == 0)
				c->with = first;
		}
	}
}

static int is_consolidated(const struct folder *f, const struct copy *c)
{
	return strncmp(mkhct_name_base(f->files[c->first].entry->name), "consolidated", 12) == 0;
}

/* 1 when copy c is that of another one, whose number is in *of. */
static int is_whole_copy(const struct folder *f, size_t c, size_t *of)
{
	const struct copy *copy = &f->copies[c];
	size_t with = copy->with, least = copy->tensors;

	if (copy->shared) {
		if (f->copies[with].tensors < least)
			least = f->copies[with].tensors;
		*of = with;
		return 2 * copy->shared >= least;
	}
	for (size_t i = 0; i < f->copy_count; i++) {
		uint64_t a = copy->bytes, b = f->copies[i].bytes;

		if (is_consolidated(f, copy) && !is_consolidated(f, &f->copies[i]) &&
		    (a > b ? a - b : b - a) <= a / 20) {
			*of = i;
			return 1;
		}
	}
	return 0;
}

/* The name of a file, or a pattern for all of a numbered set. */
static void show_copy(const struct folder *f, size_t c, char *out, size_t size)
{
	const struct file *file = &f->files[f->copies[c].first];
	const char *name = file->entry->name;

	if (file->numbered)
		snprintf(out, size, "%.*s*%s", (int)file->shard.prefix, name,
			 name + file->shard.prefix + file->shard.digits);
	else
		snprintf(out, size, "%s", name);
}

static void find_copies(const struct folder *f, struct finds *finds)
{
	for (size_t c = 0; c < f->copy_count; c++) {
		char extra[256], main[256];
		size_t of;

		if (!is_whole_copy(f, c, &of) || finds->copies++ > 0)
			continue;
		show_copy(f, c, extra, sizeof(extra));
		show_copy(f, of, main, sizeof(main));
		/* "model.fp16.safetensors" is the more special one. */
		if (!f->files[f->copies[of].first].indexed && !is_consolidated(f, &f->copies[c]) &&
		    strlen(main) > strlen(extra)) {
			char swap[256];

			memcpy(swap, main, sizeof(swap));
			memcpy(main, extra, sizeof(main));
			memcpy(extra, swap, sizeof(extra));
		}
		hct_fail(&finds->copy, HCT_OK,
			 "%s seems to be another copy of the model in %s, and is compressed as "
			 "well; "
			 "--exclude '%s' leaves it out",
			 extra, main, extra);
	}
}

static hct_error find_twins(const struct folder *f, struct finds *finds, struct hct_diag *diag)
{
	hct_error err = HCT_OK;

	for (size_t i = 1; !err && i < f->name_count; i++) {
		const struct name *a = &f->names[i - 1], *b = &f->names[i];
		size_t of;
		char tensor[256];

		if (a->hash != b->hash ||
		    (copy_of(f, a) == copy_of(f, b) && f->files[b->file].indexed))
			continue;
		if (copy_of(f, a) != copy_of(f, b) && is_whole_copy(f, copy_of(f, b), &of))
			continue;
		if (finds->twins++ > 0)
			continue;
		err = tensor_name(f, b, tensor, diag);
		if (!err)
			hct_fail(&finds->twin, HCT_OK, "%s in %.256s and %.256s", tensor,
				 f->files[a->file].entry->name, f->files[b->file].entry->name);
	}
	return err;
}

static hct_error do_folder(struct file *files, size_t count, struct finds *finds,
			   struct hct_diag *diag)
{
	struct folder f = {.files = files, .count = count};
	hct_error err = HCT_OK;

	f.copies = calloc(count, sizeof(*f.copies));
	if (!f.copies)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", files->entry->path);
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || !same_copy(&files[i - 1], &files[i]))
			f.copies[f.copy_count++].first = i;
		files[i].copy = f.copy_count - 1;
		f.copies[files[i].copy].bytes += files[i].entry->size;
	}
	/* An index has the word about the files that it names. */
	if (f.copy_count > 1 || !files->indexed) {
		for (size_t i = 0; !err && i < count; i++)
			err = read_names(&f, i, diag);
		if (!err && f.name_count)
			qsort(f.names, f.name_count, sizeof(*f.names), compare_names);
		if (!err) {
			count_shared(&f);
			find_copies(&f, finds);
			err = find_twins(&f, finds, diag);
		}
	}
	free(f.names);
	free(f.copies);
	return err;
}

static struct file *list_files(const struct mkhct_source *source, const unsigned char *indexed,
			       size_t *count)
{
	struct file *files = calloc(source->model_count + 1, sizeof(*files));

	*count = 0;
	for (size_t i = 0; files && i < source->count; i++) {
		const struct mkhct_entry *e = &source->entries[i];
		struct file *f = &files[*count];

		if (e->kind != MKHCT_MODEL)
			continue;
		f->entry = e;
		f->folder = (size_t)(mkhct_name_base(e->name) - e->name);
		f->indexed = indexed[i];
		f->numbered = mkhct_shards_parse(e->name, MKHCT_MODEL_SUFFIX, &f->shard);
		++*count;
	}
	if (files)
		qsort(files, *count, sizeof(*files), compare_files);
	return files;
}

hct_error mkhct_twins_find(struct mkhct_source *source, const unsigned char *indexed,
			   struct hct_diag *note, struct hct_diag *diag)
{
	struct finds finds = {.twins = 0};
	size_t count, end;
	struct file *files = list_files(source, indexed, &count);
	hct_error err = HCT_OK;

	if (!files)
		return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", source->path);
	for (size_t i = 0; !err && i < count; i = end) {
		for (end = i + 1; end < count && compare_folders(&files[i], &files[end]) == 0;)
			end++;
		if (end - i > 1)
			err = do_folder(files + i, end - i, &finds, diag);
	}
	free(files);
	if (!err && finds.twins && !*note->text)
		hct_fail(note, HCT_OK,
			 "%zu tensor%s in two files without an index that tells which counts "
			 "(%s%s); all are kept, and loaders take one of them",
			 finds.twins, finds.twins == 1 ? " lies" : "s lie",
			 finds.twins == 1 ? "" : "first ", finds.twin.text);
	if (!err && finds.copies == 1)
		err = mkhct_source_add_note(source, diag, "%s", finds.copy.text);
	else if (!err && finds.copies)
		err = mkhct_source_add_note(source, diag, "%s; and %zu more such", finds.copy.text,
					    finds.copies - 1);
	return err;
}
