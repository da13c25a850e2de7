#include "gpu/cufft.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <dlfcn.h>

#include "gpu/cuda_error.h"

namespace
{

/* Newest first. */
const char *const names[] = {"libcufft.so.12", "libcufft.so.11", "libcufft.so.10"};

std::mutex lock; /* of what follows */
struct gpu_cufft library;
bool loaded;

/* In a folder, or where the linker looks when it is NULL. */
void *open_in(const char *folder)
{
	char path[4096];
	void *handle = nullptr;

	for (const char *name : names) {
		int n = snprintf(path, sizeof path, "%s%s%s", folder ? folder : "",
				 folder ? "/" : "", name);

		if (n < (int)sizeof path)
			handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (handle)
			return handle;
	}
	return nullptr;
}

void *open_library(struct hct_diag *diag)
{
	const char *named = getenv("HCT_CUFFT");
	void *handle;

	if (!named || !*named) {
		handle = open_in(nullptr);
		if (!handle)
			gpu_fail(diag, HCT_ERR_UNSUPPORTED,
				 "transforms of this shape need cuFFT, and there is no %s: install "
				 "it, or let HCT_CUFFT name it",
				 names[0]);
		return handle;
	}
	handle = open_in(named);
	if (!handle)
		handle = dlopen(named, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		gpu_fail(diag, HCT_ERR_UNSUPPORTED,
			 "transforms of this shape need cuFFT, and HCT_CUFFT does not lead to it: "
			 "%s",
			 dlerror());
	return handle;
}

/* The first function that is missing, or NULL. */
const char *find_functions(void *handle, struct gpu_cufft *l)
{
	const struct {
		const char *name;
		void **function;
	} wanted[] = {
		{"cufftCreate", (void **)&l->create},
		{"cufftSetAutoAllocation", (void **)&l->set_auto_allocation},
		{"cufftMakePlanMany64", (void **)&l->make_plan_many},
		{"cufftSetStream", (void **)&l->set_stream},
		{"cufftSetWorkArea", (void **)&l->set_work_area},
		{"cufftExecR2C", (void **)&l->exec_r2c},
		{"cufftExecC2R", (void **)&l->exec_c2r},
		{"cufftDestroy", (void **)&l->destroy},
	};

	for (const auto &w : wanted) {
		*w.function = dlsym(handle, w.name);
		if (!*w.function)
			return w.name;
	}
	return nullptr;
}

} // namespace

hct_error gpu_cufft_load(const struct gpu_cufft **out, struct hct_diag *diag)
{
	std::lock_guard<std::mutex> hold(lock);
	const char *missing;
	void *handle;

	*out = nullptr;
	if (!loaded) {
		handle = open_library(diag);
		if (!handle)
			return HCT_ERR_UNSUPPORTED;
		missing = find_functions(handle, &library);
		if (missing) {
			dlclose(handle);
			return gpu_fail(diag, HCT_ERR_UNSUPPORTED,
					"the cuFFT that was found has no %s", missing);
		}
		loaded = true;
	}
	*out = &library;
	return HCT_OK;
}
