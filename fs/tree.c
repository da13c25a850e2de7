#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle_state.h"
#include "codec/io.h"

#define MODEL_SUFFIX ".safetensors.hct"
#define FILE_SUFFIX  ".hct"

/* Folders within folders; no model has more than a few, and code may recurse safely. */
#define MAX_DEPTH 64

/* Symbolic links can make a few folders look like very many. */
#define MAX_NODES 1000000

struct hct_tree {
	struct hct_node **nodes; /* depth first */
	size_t count, capacity;
	uint64_t chunk_count;
	int is_bundle;
};

/* A folder on the way from the root: a symbolic link that leads back there is a loop. */
struct trail {
	const struct trail *above;
	dev_t dev;
	ino_t ino;
	unsigned depth;
};

struct build {
	struct hct_tree *tree;
	unsigned flags;
	struct hct_bundle_state state;
	struct hct_diag *diag;
};

static hct_error no_memory(const struct build *b, const char *path)
{
	return hct_fail(b->diag, HCT_ERR_NOMEM, "%s: out of memory", path);
}

static int ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n > k && strcmp(s + n - k, suffix) == 0;
}

static char *join(const char *dir, const char *name)
{
	size_t n = strlen(dir), k = strlen(name);
	const char *slash = n && dir[n - 1] == '/' ? "" : "/";
	char *path = malloc(n + k + 2);

	if (path) {
		memcpy(path, dir, n);
		n += strlen(strcpy(path + n, slash));
		memcpy(path + n, name, k + 1);
	}
	return path;
}

static void node_free(struct hct_node *n)
{
	if (!n)
		return;
	hct_reader_close(n->reader);
	free((char *)n->name);
	free((char *)n->path);
	free(n->children);
	free(n->diag);
	free(n);
}

/* A node that is not in the tree yet.  name_length bytes of name are shown; path becomes
 * the node's, also when this fails. */
static struct hct_node *node_new(enum hct_node_kind kind, const char *name, size_t name_length,
				 char *path, const struct stat *st)
{
	struct hct_node *n = calloc(1, sizeof *n);

	if (n)
		n->name = strndup(name, name_length);
	if (!n || !n->name) {
		free(n);
		free(path);
		return NULL;
	}
	n->kind = kind;
	n->path = path;
	n->parent = n;
	n->mtime = st->st_mtim;
	if (kind != HCT_NODE_DIR) {
		n->size = (uint64_t)st->st_size;
		n->stored_bytes = n->size;
	}
	return n;
}

/* Gives the node the next number, and a model its chunks. */
static hct_error tree_add(struct build *b, struct hct_node *n)
{
	struct hct_tree *t = b->tree;

	if (t->count == MAX_NODES)
		return hct_fail(b->diag, HCT_ERR_LIMIT, "%s: more than %d files", n->path,
				MAX_NODES);
	if (t->count == t->capacity) {
		size_t capacity = t->capacity ? 2 * t->capacity : 64;
		struct hct_node **nodes = realloc(t->nodes, capacity * sizeof(struct hct_node *));

		if (!nodes)
			return no_memory(b, n->path);
		t->nodes = nodes;
		t->capacity = capacity;
	}
	t->nodes[t->count++] = n;
	n->ino = t->count;
	n->first_chunk = t->chunk_count;
	if (n->reader)
		t->chunk_count += hct_reader_chunk_count(n->reader);
	return HCT_OK;
}

/* Opens a model's file and shows what it says of its source. */
static hct_error open_model(struct build *b, struct hct_node *n)
{
	const struct hct_source *source;
	struct hct_diag diag = {{0}};
	hct_error e = hct_reader_open(n->path, &n->reader, &diag);

	b->tree->is_bundle = 1;
	if (!e) {
		source = hct_reader_source(n->reader);
		n->size = source->size;
		n->mtime.tv_sec = (time_t)source->mtime_sec;
		n->mtime.tv_nsec = (long)source->mtime_nsec;
		n->stored_bytes = hct_reader_file_bytes(n->reader);
		return HCT_OK;
	}
	if (e == HCT_ERR_NOMEM || !(b->flags & HCT_TREE_KEEP_BAD)) {
		if (b->diag)
			*b->diag = diag;
		return e;
	}
	n->error = e;
	n->size = 0;
	n->diag = malloc(sizeof *n->diag);
	if (!n->diag)
		return no_memory(b, n->path);
	*n->diag = diag;
	return HCT_OK;
}

static int compare_names(const void *a, const void *b)
{
	const struct hct_node *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* Makes a node for one entry of a folder, without looking inside. */
static hct_error entry_node(struct build *b, const char *dir, const char *name,
			    struct hct_node **out)
{
	enum hct_node_kind kind;
	struct stat st;
	size_t shown = strlen(name);
	char *path = join(dir, name);
	hct_error e;

	if (!path)
		return no_memory(b, dir);
	if (stat(path, &st) < 0) {
		e = hct_fail_errno(b->diag, errno, "%s: cannot look at it", path);
		free(path);
		return e;
	}
	if (S_ISDIR(st.st_mode)) {
		kind = HCT_NODE_DIR;
	} else if (S_ISREG(st.st_mode)) {
		kind = ends_with(name, MODEL_SUFFIX) ? HCT_NODE_MODEL : HCT_NODE_PLAIN;
	} else {
		e = hct_fail(b->diag, HCT_ERR_UNSUPPORTED, "%s: neither a file nor a folder", path);
		free(path);
		return e;
	}
	if (kind == HCT_NODE_MODEL)
		shown -= strlen(FILE_SUFFIX);
	*out = node_new(kind, name, shown, path, &st);
	return *out ? HCT_OK : no_memory(b, dir);
}

/* Reads the entries of a folder into dir->children, sorted; none is in the tree yet. */
static hct_error list_folder(struct build *b, struct hct_node *dir, int is_root)
{
	size_t capacity = 0;
	hct_error e = is_root ? hct_bundle_state_read(dir->path, &b->state, b->diag) : HCT_OK;
	DIR *d = e ? NULL : opendir(dir->path);
	struct dirent *entry;

	if (e)
		return e;
	b->tree->is_bundle |= b->state.has_folder;
	if (!d)
		return hct_fail_errno(b->diag, errno, "%s: cannot list it", dir->path);
	while (errno = 0, (entry = readdir(d))) {
		struct hct_node *n;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    hct_bundle_state_hides(&b->state, entry->d_name))
			continue;
		e = entry_node(b, dir->path, entry->d_name, &n);
		if (e)
			goto out;
		n->parent = dir;
		if (is_root && n->kind == HCT_NODE_DIR && strcmp(n->name, HCT_HIDDEN_FOLDER) == 0) {
			node_free(n);
			continue;
		}
		if (dir->child_count == capacity) {
			size_t more = capacity ? 2 * capacity : 16;
			struct hct_node **children =
				realloc(dir->children, more * sizeof(struct hct_node *));

			if (!children) {
				node_free(n);
				e = no_memory(b, dir->path);
				goto out;
			}
			dir->children = children;
			capacity = more;
		}
		dir->children[dir->child_count++] = n;
	}
	if (errno) {
		e = hct_fail_errno(b->diag, errno, "%s: cannot list it", dir->path);
		goto out;
	}
	if (dir->child_count)
		qsort(dir->children, dir->child_count, sizeof(struct hct_node *), compare_names);
	for (size_t i = 1; !e && i < dir->child_count; i++)
		if (strcmp(dir->children[i - 1]->name, dir->children[i]->name) == 0)
			e = hct_fail(b->diag, HCT_ERR_CORRUPT,
				     "%s: %s and %s" FILE_SUFFIX
				     " would be shown under the same name; remove one",
				     dir->path, dir->children[i]->name, dir->children[i]->name);
out:
	closedir(d);
	return e;
}

static hct_error add_folder(struct build *b, struct hct_node *dir, const struct trail *above);

static hct_error add_child(struct build *b, struct hct_node *n, const struct trail *here)
{
	hct_error e = HCT_OK;

	if (n->kind == HCT_NODE_DIR)
		return add_folder(b, n, here);
	if (n->kind == HCT_NODE_MODEL)
		e = open_model(b, n);
	return e ? e : tree_add(b, n);
}

/* Adds a folder and what it holds.  Children that were not added are freed: what is in
 * the tree belongs to it. */
static hct_error add_folder(struct build *b, struct hct_node *dir, const struct trail *above)
{
	struct trail here = {.above = above, .depth = above ? above->depth + 1 : 0};
	size_t done = 0;
	struct stat st;
	hct_error e;

	e = tree_add(b, dir);
	if (e)
		return e;
	if (stat(dir->path, &st) < 0)
		return hct_fail_errno(b->diag, errno, "%s: cannot look at it", dir->path);
	here.dev = st.st_dev;
	here.ino = st.st_ino;
	for (const struct trail *t = above; t; t = t->above)
		if (t->dev == here.dev && t->ino == here.ino)
			return hct_fail(b->diag, HCT_ERR_UNSUPPORTED,
					"%s: a link to a folder that it lies in", dir->path);
	if (here.depth > MAX_DEPTH)
		return hct_fail(b->diag, HCT_ERR_LIMIT, "%s: more than %d folders in one another",
				dir->path, MAX_DEPTH);
	e = list_folder(b, dir, !above);
	while (!e && done < dir->child_count) {
		size_t before = b->tree->count;

		e = add_child(b, dir->children[done], &here);
		if (!e || b->tree->count > before)
			done++;
	}
	for (size_t i = done; i < dir->child_count; i++)
		node_free(dir->children[i]);
	dir->child_count = done;
	return e;
}

/* The root of a tree of one file: a folder that holds it. */
static hct_error add_single(struct build *b, const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	int is_model = ends_with(name, FILE_SUFFIX);
	size_t shown = strlen(name) - (is_model ? strlen(FILE_SUFFIX) : 0);
	char *root_path = strndup(path, slash && slash > path ? (size_t)(slash - path) : 1);
	char *file_path = strdup(path);
	struct hct_node *root, *n;
	hct_error e;

	if (!root_path || !file_path) {
		free(root_path);
		free(file_path);
		return no_memory(b, path);
	}
	n = node_new(is_model ? HCT_NODE_MODEL : HCT_NODE_PLAIN, name, shown, file_path, st);
	root = node_new(HCT_NODE_DIR, "", 0, root_path, st);
	if (root)
		root->children = malloc(sizeof(struct hct_node *));
	if (!n || !root || !root->children) {
		e = no_memory(b, path);
		goto fail;
	}
	if (is_model) {
		e = open_model(b, n);
		if (e)
			goto fail;
	}
	n->parent = root;
	root->mtime = n->mtime;
	e = tree_add(b, root);
	if (e)
		goto fail;
	e = tree_add(b, n);
	if (e) {
		node_free(n);
		return e;
	}
	root->children[root->child_count++] = n;
	return HCT_OK;
fail:
	node_free(n);
	node_free(root);
	return e;
}

/* The path from the root of the file system, without a '/' at its end; symbolic links
 * stay, because the name of a link is the name that is shown. */
static char *absolute(const char *path)
{
	char *cwd = NULL, *result;
	size_t n;

	if (path[0] == '/') {
		result = strdup(path);
	} else {
		cwd = getcwd(NULL, 0);
		result = cwd ? join(cwd, path) : NULL;
		free(cwd);
	}
	if (!result)
		return NULL;
	n = strlen(result);
	while (n > 1 && result[n - 1] == '/')
		result[--n] = '\0';
	return result;
}

hct_error hct_tree_open(const char *path, unsigned flags, struct hct_tree **out,
			struct hct_diag *diag)
{
	struct build b = {.flags = flags, .diag = diag};
	struct hct_node *root;
	struct stat st;
	char *full;
	hct_error e;

	*out = NULL;
	if (stat(path, &st) < 0)
		return hct_fail_errno(diag, errno, "%s: cannot open", path);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: neither a file nor a folder", path);
	full = absolute(path);
	if (!full)
		return hct_fail_errno(diag, errno, "%s: cannot find where it lies", path);
	b.tree = calloc(1, sizeof *b.tree);
	if (!b.tree) {
		free(full);
		return no_memory(&b, path);
	}
	if (S_ISDIR(st.st_mode)) {
		size_t before = b.tree->count;

		root = node_new(HCT_NODE_DIR, "", 0, full, &st);
		e = root ? add_folder(&b, root, NULL) : no_memory(&b, path);
		if (!e)
			e = hct_bundle_state_check(root->path, &b.state, diag);
		if (e && b.tree->count == before)
			node_free(root);
	} else {
		e = add_single(&b, full, &st);
		free(full);
	}
	if (e) {
		hct_tree_close(b.tree);
		return e;
	}
	*out = b.tree;
	return HCT_OK;
}

void hct_tree_close(struct hct_tree *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		node_free(t->nodes[i]);
	free(t->nodes);
	free(t);
}

struct hct_node *hct_tree_root(const struct hct_tree *t)
{
	return t->nodes[0];
}

struct hct_node *hct_tree_node(const struct hct_tree *t, size_t index)
{
	return index < t->count ? t->nodes[index] : NULL;
}

size_t hct_tree_count(const struct hct_tree *t)
{
	return t->count;
}

uint64_t hct_tree_chunk_count(const struct hct_tree *t)
{
	return t->chunk_count;
}

int hct_tree_is_bundle(const struct hct_tree *t)
{
	return t->is_bundle;
}

struct hct_node *hct_node_child(const struct hct_node *dir, const char *name)
{
	size_t low = 0, high = dir->child_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(dir->children[mid]->name, name);

		if (order == 0)
			return dir->children[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* Puts what fits of s at position `at` of buf; returns the position behind it. */
static size_t put(char *buf, size_t size, size_t at, const char *s)
{
	size_t n = strlen(s);

	if (at < size)
		memcpy(buf + at, s, n < size - at ? n : size - at);
	return at + n;
}

static size_t put_path(const struct hct_node *node, char *buf, size_t size)
{
	size_t at;

	if (node->parent == node)
		return 0;
	at = put_path(node->parent, buf, size);
	if (at)
		at = put(buf, size, at, "/");
	return put(buf, size, at, node->name);
}

size_t hct_node_path(const struct hct_node *node, char *buf, size_t size)
{
	size_t n = put_path(node, buf, size);

	if (size)
		buf[n < size ? n : size - 1] = '\0';
	return n;
}

hct_error hct_node_pread(const struct hct_node *node, hct_decoder *d, int fd, uint64_t offset,
			 void *dst, size_t length, struct hct_diag *diag)
{
	hct_error e;
	int opened;

	if (node->kind == HCT_NODE_MODEL && node->reader)
		return hct_reader_pread(node->reader, d, offset, dst, length, diag);
	if (node->kind == HCT_NODE_MODEL) {
		if (diag && node->diag)
			*diag = *node->diag;
		return node->error;
	}
	if (node->kind != HCT_NODE_PLAIN || offset > node->size || length > node->size - offset)
		return hct_fail(diag, HCT_ERR_ARGUMENT, "%s: no bytes %llu to %llu", node->path,
				(unsigned long long)offset, (unsigned long long)(offset + length));
	if (fd >= 0)
		return hct_read_at(fd, node->path, dst, length, offset, diag);
	opened = open(node->path, O_RDONLY | O_CLOEXEC);
	if (opened < 0)
		return hct_fail_errno(diag, errno, "%s: cannot open", node->path);
	e = hct_read_at(opened, node->path, dst, length, offset, diag);
	close(opened);
	return e;
}
