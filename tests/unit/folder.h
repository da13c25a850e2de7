/* An empty folder for each unit test, which is the current one while it runs.  Include cmocka.h
 * first. */
#ifndef FOLDER_H
#define FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder_path[] = "/tmp/hct-unit-XXXXXX";

static inline int folder_remove_one(const char *path, const struct stat *sb, int type,
				    struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* The setup and teardown of a test. */
static inline int folder_enter(void **state)
{
	(void)state;
	strcpy(folder_path + strlen(folder_path) - 6, "XXXXXX");
	return mkdtemp(folder_path) && chdir(folder_path) == 0 ? 0 : -1;
}

static inline int folder_leave(void **state)
{
	(void)state;
	return chdir("/") == 0 ? nftw(folder_path, folder_remove_one, 16, FTW_DEPTH | FTW_PHYS)
			       : -1;
}

static inline void folder_write(const char *path, const void *data, size_t length)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, length, f), length);
	assert_int_equal(fclose(f), 0);
}

static inline void folder_write_text(const char *path, const char *text)
{
	folder_write(path, text, strlen(text));
}

#endif
