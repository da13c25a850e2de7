/* Internal: loops that the compiler vectorises for the machine that they run on.
 *
 * A function marked HCT_CLONES is compiled for each of a few instruction sets, and the loader picks
 * one.  It is for loops whose result does not depend on that: sums in a fixed order of their own,
 * and no contraction (the Makefile says so).  Loops that need intrinsics have a file for each set
 * instead, and are picked by hct_simd. */
#ifndef HCT_CLONES_H
#define HCT_CLONES_H

#if defined __x86_64__ && defined __gnu_linux__ && defined __has_attribute
#if __has_attribute(target_clones) && !defined __clang__
#define HCT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef HCT_CLONES
#define HCT_CLONES
#endif

#endif
