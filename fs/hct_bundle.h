/* Bundles as the subcommands of hct see them: opening, choosing files, sums. */
#ifndef HCT_BUNDLE_H
#define HCT_BUNDLE_H

#include <stdint.h>

#include "codec/error.h"
#include "codec/reader.h"
#include "hct_cli.h"
#include "tree.h"

/* Opens a bundle or an .hct file, with the files of it that do not open kept as such;
 * or says why not. */
hct_error hct_open_bundle(const struct hct_command *c, const char *path, struct hct_tree **tree);

/* Path of a node as it is shown.  Free it; NULL without memory. */
char *hct_shown_path(const struct hct_node *node);

/* The node of a path as it is shown, with or without .hct behind it, or NULL. */
struct hct_node *hct_find_node(const struct hct_tree *tree, const char *path);

/* Which nodes the names choose: one byte for each node of the tree, in its order, all of
 * them when count is 0.  A name is a path as it is shown, with or without .hct behind
 * it; a directory chooses what lies in it.  Says which name is not there
 * (HCT_ERR_NOT_FOUND).  Free *chosen. */
hct_error hct_choose(const struct hct_command *c, const struct hct_tree *tree, char **names,
		     int count, unsigned char **chosen);

/* Says which of the chosen files do not open; returns the gravest of their exit codes, or
 * HCT_EXIT_OK. */
int hct_say_bad_files(const struct hct_command *c, const struct hct_tree *tree,
		      const unsigned char *chosen);

/* A bundle that is open while a subcommand shows what it holds. */
struct hct_opened {
	const char *path; /* as it was given */
	const struct hct_tree *tree;
	const struct hct_options *options;
	int code; /* of the files that do not open, which have been said: as hct_say_bad_files */
};

/* The frame of a subcommand that shows one bundle: reads the options, of which it takes those of
 * hct_parse_options' `takes`, opens the bundle that is the only argument, and calls show.  What
 * show returns is said, with its diagnosis if there is one.  Returns the exit code. */
int hct_show_bundle(const struct hct_command *c, int argc, char **argv, const char *takes,
		    hct_error (*show)(const struct hct_opened *b, struct hct_diag *diag));

/* Sums over tensors or files. */
struct hct_tally {
	uint64_t count, elements, source_bytes, stored_bytes;
};

void hct_tally_add(struct hct_tally *sum, const struct hct_tally *part);
/* Stored bits for each element; 0 without elements. */
double hct_tally_bits(const struct hct_tally *t);
/* Source bytes to stored bytes; 0 when nothing is stored. */
double hct_tally_ratio(const struct hct_tally *t);

/* Tensor i of a model file: its extents and tables. */
struct hct_tally hct_tensor_tally(const hct_reader *r, size_t i);
/* All tensors of a model file: count and bytes without header and index. */
struct hct_tally hct_tensors_tally(const hct_reader *r);

/* What a file holds besides its tensors: header and index. */
struct hct_tally hct_rest_tally(const struct hct_tally *whole, const struct hct_tally *tensors);

/* The least cosine between an array and one with that relative squared error: sqrt(1 - error),
 * 0 for errors of 1 and more. */
double hct_least_cosine(double error);

/* The quality of the tensors of a model file that were coded with loss. */
struct hct_quality {
	uint64_t tensors, elements, stored_bytes;
	double errors, cosines; /* relative squared and the least that go with them, each times
				 * its elements */
	double worst;           /* the largest */
	const char *worst_name; /* belongs to the reader; NULL when there is none */
};

/* Adds those of a model file to the sum. */
void hct_quality_add(struct hct_quality *sum, const hct_reader *r);

/* "[768,3072]", "[]" for a scalar.  Free it; NULL without memory. */
char *hct_shape_text(const struct hct_tensor *t);

#endif
