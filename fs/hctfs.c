/* hctfs: mounts a bundle. */
#include "fuse_fs.h"

#include <stdio.h>
#include <sys/resource.h>

#include "codec/io.h"

/* Each .hct file of the bundle stays open, and so does each plain file that somebody reads. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static hct_error open_bundle(struct hctfs *fs, struct hct_diag *diag)
{
	hct_error e = hct_tree_open(fs->options.bundle, 0, &fs->tree, diag);

	if (e)
		return e;
	if (!hct_tree_is_bundle(fs->tree))
		return hct_fail(diag, HCT_ERR_NOT_HCT,
				"%s: neither a bundle made by mkhct nor an .hct file",
				fs->options.bundle);
	e = hctfs_check_mountpoint(&fs->options, diag);
	return e ? e : hctfs_read_prepare(fs, diag);
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct hct_diag diag = {{0}};
	struct hctfs fs = {.ready_fd = -1};
	hct_error e;
	int code;

	if (hct_open_standard_descriptors() < 0)
		return HCT_EXIT_SYSTEM;
	hctfs_log_setup();
	code = hctfs_parse(&args, &fs.options);
	if (code >= 0)
		goto out;
	if (hct_simd_check_environment(&diag) != HCT_OK)
		fprintf(stderr, "hctfs: warning: %s\n", diag.text);
	diag.text[0] = '\0';
	raise_file_limit();
	e = open_bundle(&fs, &diag);
	if (e) {
		fprintf(stderr, "hctfs: %s\n", diag.text[0] ? diag.text : hct_error_string(e));
		code = hct_error_exit_code(e);
	} else {
		code = hctfs_serve(&fs, &args);
	}
	hctfs_read_release(&fs);
	hct_tree_close(fs.tree);
out:
	hctfs_options_free(&fs.options);
	fuse_opt_free_args(&args);
	return code;
}
