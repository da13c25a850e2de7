#include "plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODE (RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)

/* dir/more where that is a file.  Returns whether it is. */
static int is_there(const char *dir, const char *more, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/%s", dir, more);

	return n > 0 && (size_t)n < size && access(path, R_OK) == 0;
}

/* Cuts off the last name of a path, which must be a whole one: a program may call itself
 * anything.  Returns whether a folder is left. */
static int folder_of(char *path)
{
	char *slash = strrchr(path, '/');

	if (path[0] != '/' || !slash)
		return 0;
	*slash = '\0';
	return 1;
}

/* The plug-in of the same build or installation.  Returns 0 when there is none. */
static int find(char *path, size_t size)
{
	char dir[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
	Dl_info info;

	if (n > 0) {
		dir[n] = '\0';
		if (folder_of(dir) && (is_there(dir, HCT_DEVICE_FILE, path, size) ||
				       is_there(dir, "../lib/" HCT_DEVICE_FILE, path, size)))
			return 1;
	}
	if (!dladdr((const void *)hct_plugin_open, &info) || !info.dli_fname)
		return 0;
	snprintf(dir, sizeof dir, "%s", info.dli_fname);
	return folder_of(dir) && is_there(dir, HCT_DEVICE_FILE, path, size);
}

/* NULL with the reason in diag. */
static void *load(const char *path, struct hct_diag *diag)
{
	void *handle = dlopen(path, MODE);

	if (!handle)
		hct_fail(diag, HCT_ERR_UNSUPPORTED, "the GPU plug-in cannot be loaded: %s",
			 dlerror());
	return handle;
}

hct_error hct_plugin_open(struct hct_plugin *out, struct hct_diag *diag)
{
	const char *given = secure_getenv("HCT_CUDA_PLUGIN");
	char path[PATH_MAX + sizeof HCT_DEVICE_FILE];

	*out = (struct hct_plugin){0};
	if (given && *given) {
		snprintf(path, sizeof path, "%s", given);
		out->handle = load(path, diag);
	} else if (find(path, sizeof path)) {
		out->handle = load(path, diag);
	} else {
		snprintf(path, sizeof path, "%s", HCT_DEVICE_FILE);
		out->handle = dlopen(path, MODE);
		if (!out->handle)
			return hct_fail(diag, HCT_ERR_NOT_FOUND, "no GPU plug-in %s is installed",
					path);
	}
	if (!out->handle)
		return HCT_ERR_UNSUPPORTED;
	out->class = dlsym(out->handle, HCT_DEVICE_SYMBOL);
	if (!out->class || out->class->abi != HCT_DEVICE_ABI) {
		hct_fail(diag, HCT_ERR_UNSUPPORTED,
			 "%s: %s; install the one that came with this libhct", path,
			 out->class ? "a GPU plug-in of another version" : "no GPU plug-in");
		hct_plugin_close(out);
		return HCT_ERR_UNSUPPORTED;
	}
	return HCT_OK;
}

void hct_plugin_close(struct hct_plugin *p)
{
	if (p->handle)
		dlclose(p->handle);
	*p = (struct hct_plugin){0};
}
