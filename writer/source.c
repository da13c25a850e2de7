#include "source.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "names.h"

#define MAX_DEPTH   64
#define MAX_ENTRIES 4000000u

/* The folders on the way to the one being read. */
struct ancestor {
	const struct ancestor *up;
	dev_t dev;
	ino_t ino;
	unsigned depth;
};

struct scan {
	struct mkhct_source *source;
	size_t capacity;
	struct hct_diag *diag;
};

static hct_error out_of_memory(struct hct_diag *diag, const char *path)
{
	return hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", path);
}

/* The name of the compressed file is longer than that of the model. */
static hct_error check_length(struct scan *s, const char *name, const char *path)
{
	size_t more = sizeof(MKHCT_HCT_SUFFIX) - 1;

	if (strlen(mkhct_name_base(name)) + more > NAME_MAX || strlen(name) + more >= PATH_MAX)
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: the name has no room for " MKHCT_HCT_SUFFIX
				" behind it; rename the file",
				path);
	return HCT_OK;
}

static hct_error add_entry(struct scan *s, enum mkhct_kind kind, const char *name, const char *path,
			   const struct stat *sb)
{
	struct mkhct_source *src = s->source;
	struct mkhct_entry *e;

	if (kind == MKHCT_MODEL && check_length(s, name, path) != HCT_OK)
		return HCT_ERR_UNSUPPORTED;
	if (src->count == MAX_ENTRIES)
		return hct_fail(s->diag, HCT_ERR_LIMIT, "%s: more than %u files", src->path,
				MAX_ENTRIES);
	if (src->count == s->capacity) {
		size_t capacity = s->capacity ? 2 * s->capacity : 64;
		struct mkhct_entry *grown = reallocarray(src->entries, capacity, sizeof(*grown));

		if (!grown)
			return out_of_memory(s->diag, path);
		src->entries = grown;
		s->capacity = capacity;
	}
	e = &src->entries[src->count];
	*e = (struct mkhct_entry){.kind = kind,
				  .name = strdup(name),
				  .path = strdup(path),
				  .size = kind == MKHCT_FOLDER ? 0 : (uint64_t)sb->st_size,
				  .mtime = sb->st_mtim,
				  .mode = sb->st_mode & 0777,
				  .dev = sb->st_dev,
				  .ino = sb->st_ino};
	src->count++; /* counted first, so that mkhct_source_free finds either string */
	if (!e->name || !e->path)
		return out_of_memory(s->diag, path);
	if (kind == MKHCT_MODEL) {
		src->model_count++;
		src->model_bytes += e->size;
	} else if (kind == MKHCT_CARRIED) {
		src->carried_count++;
		src->carried_bytes += e->size;
	}
	return HCT_OK;
}

/* stat() with a line for the one failure that users of a cache do meet. */
static hct_error stat_followed(struct scan *s, const char *path, struct stat *sb)
{
	struct stat link;
	int errnum;

	if (stat(path, sb) == 0)
		return HCT_OK;
	errnum = errno;
	if (errnum == ENOENT && lstat(path, &link) == 0 && S_ISLNK(link.st_mode))
		return hct_fail(s->diag, HCT_ERR_NOT_FOUND,
				"%s: a symlink to a file that is not there; finish the download, "
				"or remove the link",
				path);
	return hct_fail_errno(s->diag, errnum, "%s: cannot be examined", path);
}

static hct_error scan_folder(struct scan *s, const char *name, const char *path,
			     const struct ancestor *up, const struct stat *sb);

static hct_error scan_child(struct scan *s, const char *name, const char *path,
			    const struct ancestor *up)
{
	struct stat sb;
	hct_error err = stat_followed(s, path, &sb);

	if (err)
		return err;
	if (mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX MKHCT_HCT_SUFFIX) ||
	    strcmp(name, ".hct") == 0)
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: the source is a bundle already; give the original model",
				path);
	if (S_ISDIR(sb.st_mode)) {
		err = add_entry(s, MKHCT_FOLDER, name, path, &sb);
		return err ? err : scan_folder(s, name, path, up, &sb);
	}
	if (!S_ISREG(sb.st_mode))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: neither a file nor a folder (a socket, FIFO or device); "
				"remove it from the source",
				path);
	return add_entry(
		s, mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX) ? MKHCT_MODEL : MKHCT_CARRIED,
		name, path, &sb);
}

static hct_error scan_folder(struct scan *s, const char *name, const char *path,
			     const struct ancestor *up, const struct stat *sb)
{
	struct ancestor here = {up, sb->st_dev, sb->st_ino, up ? up->depth + 1 : 0};
	hct_error err = HCT_OK;
	DIR *dir;

	for (const struct ancestor *a = up; a; a = a->up)
		if (a->dev == here.dev && a->ino == here.ino)
			return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
					"%s: a symlink to a folder that holds it; remove the link",
					path);
	if (here.depth > MAX_DEPTH)
		return hct_fail(s->diag, HCT_ERR_LIMIT, "%s: folders are nested more than %d deep",
				path, MAX_DEPTH);
	dir = opendir(path);
	if (!dir)
		return hct_fail_errno(s->diag, errno, "%s: cannot be listed", path);
	while (!err) {
		struct dirent *d;
		char *child_name, *child_path;

		errno = 0;
		d = readdir(dir);
		if (!d) {
			if (errno)
				err = hct_fail_errno(s->diag, errno, "%s: cannot be listed", path);
			break;
		}
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		child_name = mkhct_name_join(name, d->d_name);
		child_path = mkhct_name_join(path, d->d_name);
		if (child_name && child_path)
			err = scan_child(s, child_name, child_path, &here);
		else
			err = out_of_memory(s->diag, path);
		free(child_name);
		free(child_path);
	}
	closedir(dir);
	return err;
}

static hct_error scan_single(struct scan *s, const char *path, const struct stat *sb)
{
	const char *base = mkhct_name_base(path);

	if (mkhct_name_has_suffix(base, MKHCT_HCT_SUFFIX))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: compressed already; give the original model", path);
	if (!S_ISREG(sb->st_mode) || !mkhct_name_has_suffix(base, MKHCT_MODEL_SUFFIX))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: neither a folder nor a .safetensors file", path);
	return add_entry(s, MKHCT_MODEL, base, path, sb);
}

/* Says what the user has instead, and how it becomes safetensors. */
static hct_error no_models(const struct mkhct_source *src, struct hct_diag *diag)
{
	static const char *const weights[] = {".bin",  ".pt", ".pth", ".ckpt",   ".gguf",
					      ".onnx", ".h5", ".npz", ".msgpack"};
	const char *how = "convert it to safetensors first, in transformers: "
			  "AutoModel.from_pretrained(DIR).save_pretrained(NEW)";

	for (size_t w = 0; w < sizeof(weights) / sizeof(*weights); w++) {
		for (size_t i = 0; i < src->count; i++) {
			const struct mkhct_entry *e = &src->entries[i];

			if (e->kind != MKHCT_CARRIED || !mkhct_name_has_suffix(e->name, weights[w]))
				continue;
			if (strcmp(weights[w], ".gguf") == 0)
				how = "convert it to safetensors first, in transformers: "
				      "AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME)"
				      ".save_pretrained(NEW)";
			return hct_fail(diag, HCT_ERR_UNSUPPORTED,
					"%s: no .safetensors file, but %s; %s", src->path, e->name,
					how);
		}
	}
	return hct_fail(diag, HCT_ERR_UNSUPPORTED,
			"%s: no .safetensors file in it (%zu other file%s); give a model folder",
			src->path, src->carried_count, src->carried_count == 1 ? "" : "s");
}

static int compare_entries(const void *a, const void *b)
{
	const struct mkhct_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* The last component of the real path: "." and "model/" have a name as well. */
static char *label_of(const char *path)
{
	char *real = realpath(path, NULL);
	char *label = strdup(mkhct_name_base(real ? real : path));

	free(real);
	return label;
}

hct_error mkhct_source_scan(const char *path, struct mkhct_source *out, struct hct_diag *diag)
{
	struct scan s = {.source = out, .diag = diag};
	size_t n = strlen(path);
	struct stat sb;
	hct_error err;

	memset(out, 0, sizeof(*out));
	while (n > 1 && path[n - 1] == '/')
		n--;
	out->path = strndup(path, n);
	if (!out->path)
		return out_of_memory(diag, path);
	if (stat(path, &sb) != 0) {
		err = hct_fail_errno(diag, errno, "%s: cannot be opened", path);
		goto out;
	}
	out->dev = sb.st_dev;
	out->ino = sb.st_ino;
	out->is_folder = S_ISDIR(sb.st_mode);
	/* A single file keeps the name it was given: behind the symlink of a cache
	 * snapshot lies a blob named by its digest. */
	out->label = out->is_folder ? label_of(path) : strdup(mkhct_name_base(out->path));
	if (!out->label)
		err = out_of_memory(diag, path);
	else if (out->is_folder)
		err = scan_folder(&s, "", out->path, NULL, &sb);
	else
		err = scan_single(&s, out->path, &sb);
	if (!err && out->count)
		qsort(out->entries, out->count, sizeof(*out->entries), compare_entries);
	if (!err && out->model_count == 0)
		err = no_models(out, diag);
out:
	if (err)
		mkhct_source_free(out);
	return err;
}

void mkhct_source_free(struct mkhct_source *s)
{
	for (size_t i = 0; i < s->count; i++) {
		free(s->entries[i].name);
		free(s->entries[i].path);
	}
	free(s->entries);
	free(s->label);
	free(s->path);
	memset(s, 0, sizeof(*s));
}

const struct mkhct_entry *mkhct_source_find(const struct mkhct_source *s, const char *name)
{
	struct mkhct_entry key = {.name = (char *)name};

	if (s->count == 0)
		return NULL;
	return bsearch(&key, s->entries, s->count, sizeof(*s->entries), compare_entries);
}

hct_error mkhct_source_refuse_inside(const struct mkhct_source *src, const char *out,
				     const char *folder, struct hct_diag *diag)
{
	char *real = realpath(folder, NULL);
	hct_error err = HCT_OK;
	struct stat sb;

	if (!real)
		return hct_fail_errno(diag, errno, "%s: cannot be examined", folder);
	while (!err && src->is_folder) {
		char *slash = strrchr(real, '/');

		if (stat(*real ? real : "/", &sb) != 0)
			err = hct_fail_errno(diag, errno, "%s: cannot be examined", real);
		else if (sb.st_dev == src->dev && sb.st_ino == src->ino)
			err = HCT_ERR_ARGUMENT;
		for (size_t i = 0; !err && i < src->count; i++)
			if (src->entries[i].kind == MKHCT_FOLDER &&
			    src->entries[i].dev == sb.st_dev && src->entries[i].ino == sb.st_ino)
				err = HCT_ERR_ARGUMENT;
		if (err == HCT_ERR_ARGUMENT)
			hct_fail(diag, err, "%s: lies in the source %s; choose a place outside it",
				 out, src->path);
		if (!slash)
			break;
		*slash = '\0';
	}
	free(real);
	return err;
}

hct_error mkhct_source_refuse_around(const struct mkhct_source *src, const char *out,
				     const struct stat *sb, struct hct_diag *diag)
{
	char *real = realpath(src->path, NULL);
	hct_error err = HCT_OK;
	struct stat up;

	if (!real)
		return hct_fail_errno(diag, errno, "%s: cannot be examined", src->path);
	for (char *slash; !err && (slash = strrchr(real, '/')) != NULL;) {
		*slash = '\0';
		if (stat(*real ? real : "/", &up) == 0 && up.st_dev == sb->st_dev &&
		    up.st_ino == sb->st_ino)
			err = hct_fail(diag, HCT_ERR_ARGUMENT,
				       "%s: the source %s lies in it; choose another folder", out,
				       src->path);
	}
	free(real);
	return err;
}
