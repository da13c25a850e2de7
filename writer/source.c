#include "source.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/metrics.h"
#include "writer/config.h"
#include "writer/convert.h"
#include "writer/hub.h"
#include "writer/names.h"
#include "writer/patience.h"
#include "writer/select.h"
#include "writer/shards.h"
#include "writer/target.h"

#define MAX_DEPTH   64
#define MAX_ENTRIES 4000000u

/* The folders on the way to the one being read. */
struct ancestor {
	const struct ancestor *up;
	dev_t dev;
	ino_t ino;
	unsigned depth;
	size_t verdict; /* of mkhct_select_judge */
};

struct scan {
	struct mkhct_source *source;
	size_t capacity;
	struct mkhct_select select;
	size_t left_out; /* models that it leaves out */
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

/* look: of a packed model, otherwise NULL. */
static hct_error add_entry(struct scan *s, enum mkhct_kind kind, const char *name, const char *path,
			   const struct stat *sb, const struct mkhct_look *look)
{
	struct mkhct_source *src = s->source;
	uint64_t size = kind == MKHCT_FOLDER ? 0 : (uint64_t)sb->st_size;
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
				  .size = look ? look->size : size,
				  .mtime = look ? look->mtime : sb->st_mtim,
				  .mode = sb->st_mode & 0777,
				  .packed = look != NULL,
				  .scratch = look ? src->scratch : NULL,
				  .dev = sb->st_dev,
				  .ino = sb->st_ino,
				  .disk_size = size,
				  .disk_mtime = sb->st_mtim};
	src->count++; /* counted first, so that mkhct_source_free finds either string */
	if (!e->name || !e->path)
		return out_of_memory(s->diag, path);
	if (kind == MKHCT_MODEL) {
		src->model_count++;
		src->model_bytes += e->size;
		src->packed_count += look != NULL;
		src->lossy_count += look && !look->lossless;
		src->lossy_weights += look ? look->weights : 0;
		src->lossy_error += look ? look->error : 0;
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

	if (mkhct_patient_stat(path, sb) == 0)
		return HCT_OK;
	errnum = errno;
	if (errnum == ENOENT && lstat(path, &link) == 0 && S_ISLNK(link.st_mode))
		return hct_fail(s->diag, HCT_ERR_NOT_FOUND,
				"%s: a symlink to a file that is not there; finish the download, "
				"or remove the link",
				path);
	if (errnum == ELOOP)
		return hct_fail(s->diag, HCT_ERR_IO,
				"%s: a symlink that leads back to itself; remove the link, or "
				"leave it out with --exclude",
				path);
	return hct_fail_errno(s->diag, errnum, "%s: cannot be examined", path);
}

static hct_error scan_folder(struct scan *s, const char *name, const char *path,
			     const struct ancestor *up, const struct stat *sb, size_t verdict);

/* Adds the compressed file at path as what it decodes to. */
static hct_error add_packed(struct scan *s, const char *name, const char *path,
			    const struct stat *sb)
{
	struct mkhct_source *src = s->source;
	struct mkhct_look look;
	hct_error err;

	if (!src->scratch)
		src->scratch = calloc(1, sizeof(*src->scratch));
	if (!src->scratch)
		return out_of_memory(s->diag, path);
	err = mkhct_transcode_look(path, &look, s->diag);
	return err ? err : add_entry(s, MKHCT_MODEL, name, path, sb, &look);
}

/* A folder that patterns leave out is made all the same when they take something in it. */
static hct_error scan_subfolder(struct scan *s, const char *name, const char *path,
				const struct ancestor *up, const struct stat *sb, size_t verdict)
{
	int takes = mkhct_select_takes(&s->select, verdict);
	size_t before = s->source->count;
	hct_error err = HCT_OK;

	if (!mkhct_select_enters(&s->select, verdict))
		return HCT_OK;
	if (takes)
		err = add_entry(s, MKHCT_FOLDER, name, path, sb, NULL);
	if (!err)
		err = scan_folder(s, name, path, up, sb, verdict);
	if (!err && !takes && s->source->count > before)
		err = add_entry(s, MKHCT_FOLDER, name, path, sb, NULL);
	return err;
}

/* The hidden folder of a bundle, which is not part of the model: of the source itself (folder is
 * ""), or of one that lies in it, whose files are compressed anew like those around it. */
static hct_error pass_hidden(struct scan *s, const char *folder, const char *path,
			     const struct stat *sb)
{
	struct mkhct_source *src = s->source;
	hct_error err;

	if (!S_ISDIR(sb->st_mode))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: a file where a bundle has its hidden folder; remove it", path);
	err = mkhct_transcode_finished(path, s->diag);
	if (err == HCT_ERR_UNFINISHED && *folder)
		hct_fail(s->diag, err,
			 "%s/%s: mkhct has not finished this bundle; finish it first, or leave it "
			 "out with --exclude %s",
			 src->path, folder, folder);
	else if (err == HCT_ERR_UNFINISHED)
		hct_fail(s->diag, err,
			 "%s: mkhct has not finished this bundle; finish it first, or give the "
			 "original model",
			 src->path);
	if (err || !*folder)
		return err;
	src->bundle_count++;
	if (!src->bundle || strcmp(folder, src->bundle) < 0) {
		free(src->bundle);
		src->bundle = strdup(folder);
	}
	return src->bundle ? HCT_OK : out_of_memory(s->diag, path);
}

/* folder: that which holds it; shown: the name without the ".hct" of a compressed file. */
static hct_error scan_child(struct scan *s, const char *folder, const char *name, const char *shown,
			    const char *path, const struct ancestor *up)
{
	int packed = strcmp(name, shown) != 0, takes;
	int hidden = strcmp(mkhct_name_base(name), ".hct") == 0;
	size_t verdict;
	struct stat sb;
	hct_error err;

	/* That of the source itself is nothing that patterns see. */
	verdict = hidden && !*folder ? MKHCT_SELECT_NONE
				     : mkhct_select_judge(&s->select, shown, up->verdict);
	if (hidden)
		takes = !*folder || mkhct_select_takes(&s->select, up->verdict);
	else
		takes = mkhct_select_takes(&s->select, verdict);
	if (!takes && stat(path, &sb) != 0)
		return HCT_OK;
	err = takes ? stat_followed(s, path, &sb) : HCT_OK;
	if (err)
		return err;
	if (hidden && (!*folder || S_ISDIR(sb.st_mode)))
		return takes ? pass_hidden(s, folder, path, &sb) : HCT_OK;
	if (S_ISDIR(sb.st_mode))
		return scan_subfolder(s, name, path, up, &sb, verdict);
	if (!takes) {
		s->left_out += packed || mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX);
		return HCT_OK;
	}
	if (!S_ISREG(sb.st_mode))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: neither a file nor a folder (a socket, FIFO or device); "
				"remove it from the source",
				path);
	if (packed)
		return add_packed(s, shown, path, &sb);
	return add_entry(
		s, mkhct_name_has_suffix(name, MKHCT_MODEL_SUFFIX) ? MKHCT_MODEL : MKHCT_CARRIED,
		name, path, &sb, NULL);
}

static hct_error scan_named(struct scan *s, const char *folder, const char *folder_path,
			    const char *base, const struct ancestor *up)
{
	char *name = mkhct_name_join(folder, base), *path = mkhct_name_join(folder_path, base);
	char *shown = name ? strdup(name) : NULL;
	hct_error err;

	if (shown && mkhct_name_has_suffix(shown, MKHCT_MODEL_SUFFIX MKHCT_HCT_SUFFIX))
		shown[strlen(shown) - strlen(MKHCT_HCT_SUFFIX)] = '\0';
	if (shown && path)
		err = scan_child(s, folder, name, shown, path, up);
	else
		err = out_of_memory(s->diag, folder_path);
	free(name);
	free(path);
	free(shown);
	return err;
}

/* A whole entry of a Hugging Face cache, unless its blobs are left out. */
static hct_error check_hub(struct scan *s, const char *name, const char *path, size_t verdict)
{
	static const char entry[] = "models--";
	char *blobs;
	int takes;

	/* Below the source a folder may have any others by chance. */
	if (*name && strncmp(mkhct_name_base(name), entry, sizeof(entry) - 1) != 0)
		return HCT_OK;
	if (!mkhct_hub_is_entry(path))
		return HCT_OK;
	blobs = mkhct_name_join(name, "blobs");
	if (!blobs)
		return out_of_memory(s->diag, path);
	takes = mkhct_select_takes(&s->select, mkhct_select_judge(&s->select, blobs, verdict));
	free(blobs);
	return takes ? mkhct_hub_refuse(path, s->diag) : HCT_OK;
}

static hct_error scan_folder(struct scan *s, const char *name, const char *path,
			     const struct ancestor *up, const struct stat *sb, size_t verdict)
{
	struct ancestor here = {up, sb->st_dev, sb->st_ino, up ? up->depth + 1 : 0, verdict};
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
	err = check_hub(s, name, path, verdict);
	if (err)
		return err;
	dir = mkhct_patient_opendir(path);
	if (!dir)
		return hct_fail_errno(s->diag, errno, "%s: cannot be listed", path);
	while (!err) {
		struct dirent *d;

		errno = 0;
		d = readdir(dir);
		if (!d) {
			if (errno)
				err = hct_fail_errno(s->diag, errno, "%s: cannot be listed", path);
			break;
		}
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		err = scan_named(s, name, path, d->d_name, &here);
	}
	closedir(dir);
	return err;
}

static hct_error scan_single(struct scan *s, const char *path, const struct stat *sb)
{
	const char *base = mkhct_name_base(path);
	int packed = S_ISREG(sb->st_mode) && mkhct_name_has_suffix(base, MKHCT_HCT_SUFFIX);
	char *shown = NULL;
	hct_error err = HCT_OK;

	if (!S_ISREG(sb->st_mode) || (!packed && !mkhct_name_has_suffix(base, MKHCT_MODEL_SUFFIX)))
		return hct_fail(s->diag, HCT_ERR_UNSUPPORTED,
				"%s: neither a folder nor a .safetensors or .hct file", path);
	/* A compressed file by any name is a model. */
	if (asprintf(&shown, "%.*s%s",
		     (int)(strlen(base) - (packed ? strlen(MKHCT_HCT_SUFFIX) : 0)), base,
		     packed && !mkhct_name_has_suffix(base, MKHCT_MODEL_SUFFIX MKHCT_HCT_SUFFIX)
			     ? MKHCT_MODEL_SUFFIX
			     : "") < 0)
		return out_of_memory(s->diag, path);
	if (!mkhct_select_takes(&s->select,
				mkhct_select_judge(&s->select, shown, MKHCT_SELECT_NONE)))
		s->left_out++;
	else if (packed)
		err = add_packed(s, shown, path, sb);
	else
		err = add_entry(s, MKHCT_MODEL, shown, path, sb, NULL);
	free(shown);
	return err;
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

/* A bundle may hold x.safetensors.hct beside an x.safetensors, and both be x.safetensors. */
static hct_error check_twins(const struct mkhct_source *src, struct hct_diag *diag)
{
	for (size_t i = 1; i < src->count; i++)
		if (strcmp(src->entries[i - 1].name, src->entries[i].name) == 0)
			return hct_fail(diag, HCT_ERR_EXISTS,
					"%s: is there twice, as it is and compressed; remove one",
					src->entries[i].path);
	return HCT_OK;
}

hct_error mkhct_source_scan(const char *path, const struct mkhct_selection *selections,
			    size_t selection_count, struct mkhct_source *out, struct hct_diag *diag)
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
	err = mkhct_select_begin(&s.select, selections, selection_count, diag);
	if (!err && mkhct_patient_stat(path, &sb) != 0)
		err = hct_fail_errno(diag, errno, "%s: cannot be opened", path);
	if (err)
		goto out;
	out->dev = sb.st_dev;
	out->ino = sb.st_ino;
	out->is_folder = S_ISDIR(sb.st_mode);
	/* A single file keeps the name it was given: behind the symlink of a cache
	 * snapshot lies a blob named by its digest. */
	out->label = out->is_folder ? label_of(path) : strdup(mkhct_name_base(out->path));
	if (!out->label)
		err = out_of_memory(diag, path);
	else if (out->is_folder)
		err = scan_folder(&s, "", out->path, NULL, &sb, MKHCT_SELECT_NONE);
	else
		err = scan_single(&s, out->path, &sb);
	if (!err && out->count)
		qsort(out->entries, out->count, sizeof(*out->entries), compare_entries);
	if (!err)
		err = check_twins(out, diag);
	if (!err)
		err = mkhct_shards_find_missing(out, &s.select, diag);
	if (!err)
		err = mkhct_select_check(&s.select, out->path, diag);
	if (!err && out->model_count == 0)
		err = s.left_out || s.select.skipped
			      ? hct_fail(diag, HCT_ERR_ARGUMENT,
					 "%s: --include and --exclude leave no .safetensors file "
					 "of it; take one",
					 out->path)
			      : mkhct_convert_advise(out, diag);
	if (!err)
		err = mkhct_config_check(out, diag);
out:
	mkhct_select_free(&s.select);
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
	if (s->scratch)
		free(s->scratch->out);
	for (size_t i = 0; i < s->note_count; i++)
		free(s->notes[i]);
	free(s->notes);
	free(s->bundle);
	free(s->scratch);
	free(s->entries);
	free(s->label);
	free(s->path);
	memset(s, 0, sizeof(*s));
}

hct_error mkhct_source_decode_at(struct mkhct_source *s, const char *out, unsigned threads,
				 struct hct_diag *diag)
{
	if (!s->scratch)
		return HCT_OK;
	free(s->scratch->out);
	s->scratch->out = out ? strdup(out) : NULL;
	s->scratch->threads = threads;
	if (!out)
		return HCT_OK;
	if (!s->scratch->out)
		return out_of_memory(diag, out);
	for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--)
		s->scratch->out[n - 1] = '\0';
	return HCT_OK;
}

hct_error mkhct_source_add_note(struct mkhct_source *s, struct hct_diag *diag, const char *format,
				...)
{
	char **grown = reallocarray(s->notes, s->note_count + 1, sizeof(*grown));
	char *line = NULL;
	va_list args;

	if (grown) {
		s->notes = grown;
		va_start(args, format);
		if (vasprintf(&line, format, args) < 0)
			line = NULL;
		va_end(args);
	}
	if (!line)
		return out_of_memory(diag, s->path);
	s->notes[s->note_count++] = line;
	return HCT_OK;
}

static void note_loss(const struct mkhct_source *s, struct hct_diag *line)
{
	double error = s->lossy_weights > 0 ? s->lossy_error / s->lossy_weights : 0;
	char cosine[HCT_COSINE_TEXT];

	error = error < MKHCT_ERROR_MAX ? error : MKHCT_ERROR_MAX;
	hct_fail(line, HCT_OK,
		 "%s was compressed with loss already, to a mean cosine of %s (as of --retention "
		 "%.3g): its errors stay, and what is lost now comes on top; a target that is no "
		 "coarser only loses, and the original model gives a better bundle",
		 s->label, hct_metrics_cosine_text(sqrt(1 - error), 4, cosine),
		 mkhct_retention_of_error(error));
}

int mkhct_source_note(const struct mkhct_source *s, unsigned i, struct hct_diag *line)
{
	if (i < s->note_count) {
		hct_fail(line, HCT_OK, "%s", s->notes[i]);
		return 1;
	}
	i -= (unsigned)s->note_count;
	if (s->lossy_count && i-- == 0) {
		note_loss(s, line);
		return 1;
	}
	if (s->bundle_count == 0 || i > 0)
		return 0;
	if (s->bundle_count == 1)
		hct_fail(
			line, HCT_OK,
			"%s is a bundle itself: its files are compressed anew as part of this one, "
			"without its .hct; to keep it as it is, --exclude it and copy it",
			s->bundle);
	else
		hct_fail(line, HCT_OK,
			 "%s and %zu more folders are bundles themselves: their files are "
			 "compressed anew as part of this one, without their .hct; to keep them as "
			 "they are, --exclude and copy them",
			 s->bundle, s->bundle_count - 1);
	return 1;
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
