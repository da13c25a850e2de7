#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/hct.h"
#include "codec/io.h"
#include "writer/names.h"

#define MAX_BYTES (INT64_C(1) << 31)

static const char *const lists[] = {[MKHCT_MANIFEST_FILE] = "files",
				    [MKHCT_MANIFEST_FOLDER] = "folders",
				    [MKHCT_MANIFEST_PART] = "parts"};

cJSON *mkhct_manifest_json(int root, const char *name)
{
	cJSON *json = NULL;
	char *text = NULL;
	struct stat sb;
	int fd = openat(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) && sb.st_size > 0 && sb.st_size < MAX_BYTES)
		text = malloc((size_t)sb.st_size);
	if (text && hct_read_at(fd, name, text, (size_t)sb.st_size, 0, NULL) == HCT_OK)
		json = cJSON_ParseWithLength(text, (size_t)sb.st_size);
	free(text);
	close(fd);
	return json;
}

/* Takes the name; frees it when it is not to be trusted.  Returns -1 out of memory. */
static int add_item(struct mkhct_manifest *m, enum mkhct_manifest_kind kind, char *name)
{
	if (!mkhct_name_is_safe(name)) {
		free(name);
		return 0;
	}
	if (m->count == m->capacity) {
		size_t capacity = m->capacity ? 2 * m->capacity : 64;
		struct mkhct_manifest_item *grown =
			reallocarray(m->items, capacity, sizeof(*grown));

		if (!grown) {
			free(name);
			return -1;
		}
		m->items = grown;
		m->capacity = capacity;
	}
	m->items[m->count++] = (struct mkhct_manifest_item){name, kind};
	return 0;
}

static int add_json(struct mkhct_manifest *m, enum mkhct_manifest_kind kind, const cJSON *item)
{
	const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "kind"));
	char *name = mkhct_name_from_json(item);

	if (name && role && strcmp(role, "model") == 0) {
		char *stem = name;

		name = malloc(strlen(stem) + sizeof(MKHCT_HCT_SUFFIX));
		if (name)
			strcat(strcpy(name, stem), MKHCT_HCT_SUFFIX);
		free(stem);
		if (!name)
			return -1;
	}
	return name ? add_item(m, kind, name) : 0;
}

hct_error mkhct_manifest_read(struct mkhct_manifest *m, int root, const char *name,
			      struct hct_diag *diag)
{
	cJSON *json = mkhct_manifest_json(root, name);
	const cJSON *in = cJSON_GetObjectItemCaseSensitive(json, MKHCT_MANIFEST_KEY);
	hct_error err = HCT_OK;

	in = in ? in : json;
	for (int kind = MKHCT_MANIFEST_FILE; kind <= MKHCT_MANIFEST_PART; kind++) {
		const cJSON *list = cJSON_GetObjectItemCaseSensitive(in, lists[kind]), *item;

		cJSON_ArrayForEach(item, list)
		{
			if (!err && add_json(m, (enum mkhct_manifest_kind)kind, item) != 0)
				err = hct_fail(diag, HCT_ERR_NOMEM, "%s: out of memory", name);
		}
	}
	cJSON_Delete(json);
	return err;
}

static int compare_items(const void *a, const void *b)
{
	const struct mkhct_manifest_item *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void mkhct_manifest_sort(struct mkhct_manifest *m)
{
	if (m->count)
		qsort(m->items, m->count, sizeof(*m->items), compare_items);
}

enum mkhct_manifest_kind mkhct_manifest_find(const struct mkhct_manifest *m, const char *name)
{
	struct mkhct_manifest_item key = {.name = (char *)name};
	const struct mkhct_manifest_item *found = NULL;

	if (m->count)
		found = bsearch(&key, m->items, m->count, sizeof(*m->items), compare_items);
	return found ? found->kind : MKHCT_MANIFEST_NONE;
}

/* unlinkat that follows no symlink on the way: a folder of the bundle that was replaced
 * by a link must not lead it outside. */
static int remove_below(int root, const char *name, int flags)
{
	int folder = root, rc = -1, saved;

	for (const char *slash; (slash = strchr(name, '/')) != NULL; name = slash + 1) {
		char *component = strndup(name, (size_t)(slash - name));
		int next = component ? openat(folder, component,
					      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
				     : -1;

		saved = errno;
		free(component);
		if (folder != root)
			close(folder);
		if (next < 0) {
			errno = saved;
			return -1;
		}
		folder = next;
	}
	rc = unlinkat(folder, name, flags);
	saved = errno;
	if (folder != root)
		close(folder);
	errno = saved;
	return rc;
}

hct_error mkhct_manifest_remove_parts(const struct mkhct_manifest *m, int root,
				      struct hct_diag *diag)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->items[i].kind == MKHCT_MANIFEST_PART &&
		    remove_below(root, m->items[i].name, 0) != 0 && errno != ENOENT &&
		    errno != ENOTDIR && errno != ELOOP)
			return hct_fail_errno(diag, errno,
					      "%s: cannot be removed, the remains of a killed run",
					      m->items[i].name);
	return HCT_OK;
}

/* What lies there, if anything, is not, or no longer, what mkhct wrote. */
static int is_not_ours(int errnum)
{
	return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP || errnum == EISDIR ||
	       errnum == ENOTEMPTY || errnum == EEXIST || errnum == ENAMETOOLONG;
}

hct_error mkhct_manifest_remove_old(const struct mkhct_manifest *m, int root,
				    int (*keep)(const char *name, void *arg), void *arg,
				    struct hct_diag *diag)
{
	/* Backwards, so that what a folder holds comes before the folder. */
	for (size_t i = m->count; i-- > 0;) {
		const struct mkhct_manifest_item *item = &m->items[i];
		int flags = item->kind == MKHCT_MANIFEST_FOLDER ? AT_REMOVEDIR : 0;

		if (item->kind == MKHCT_MANIFEST_PART || keep(item->name, arg))
			continue;
		if (remove_below(root, item->name, flags) != 0 && !is_not_ours(errno))
			return hct_fail_errno(diag, errno,
					      "%s: cannot be removed, of the bundle that was there",
					      item->name);
	}
	return HCT_OK;
}

void mkhct_manifest_free(struct mkhct_manifest *m)
{
	for (size_t i = 0; i < m->count; i++)
		free(m->items[i].name);
	free(m->items);
	memset(m, 0, sizeof(*m));
}

cJSON *mkhct_manifest_create(void)
{
	cJSON *root = cJSON_CreateObject();

	if (root && cJSON_AddStringToObject(root, "tool", "mkhct") &&
	    cJSON_AddStringToObject(root, "version", HCT_VERSION) &&
	    cJSON_AddArrayToObject(root, lists[MKHCT_MANIFEST_FILE]) &&
	    cJSON_AddArrayToObject(root, lists[MKHCT_MANIFEST_FOLDER]) &&
	    cJSON_AddArrayToObject(root, lists[MKHCT_MANIFEST_PART]))
		return root;
	cJSON_Delete(root);
	return NULL;
}

int mkhct_manifest_add(cJSON *document, enum mkhct_manifest_kind kind, const char *name)
{
	cJSON *item = cJSON_CreateObject();

	if (!item || mkhct_name_to_json(item, name) != 0 ||
	    !cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(document, lists[kind]), item)) {
		cJSON_Delete(item);
		return -1;
	}
	return 0;
}
