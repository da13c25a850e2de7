#!/bin/sh
# Formatting, static analysis, manual pages, shell scripts.  A tool that is not installed is
# named and skipped; contrib/setup.sh --dev installs all of them.
set -eu

cd "$(dirname "$0")/.."
clang_format=${CLANG_FORMAT:-clang-format}
sources="$(find codec fs writer tests bench -name '*.[ch]' ! -path 'tests/gpu/emulator/*' | sort) gpu/hct_gpu.h"
cuda=$(find gpu tests/gpu/emulator -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.cc' | sort)
scripts="$(find contrib tests bench -name '*.sh' -o -name '*.sbatch' 2>/dev/null | sort) .ci/run"
pages=$(find writer fs -name '*.[1-8]' | sort)
bad=

# check NAME PROGRAM WORDS: runs it over the words, and remembers when it complains.
check() {
	name=$1 program=$2 && shift 2
	if ! command -v "$program" >/dev/null 2>&1; then
		echo "lint: $name skipped: $program is not installed"
	elif "$program" "$@"; then
		echo "lint: $name ok"
	else
		bad="$bad $name"
	fi
}

# shellcheck disable=SC2086 # lists of words
{
	check format "$clang_format" --dry-run -Werror $sources $cuda
	check cppcheck cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --library=posix \
		--enable=warning,portability,performance --suppress=readdirCalled -j2 -I. \
		-D__GNUC__ -D__x86_64__ '-DcJSON_ArrayForEach(e,a)=for(e=(a)->child;e;e=e->next)' $sources
	[ -z "$pages" ] || check pages mandoc -T lint -W warning,stop $pages
	check shell shellcheck -S warning $scripts
}
if [ "$bad" ]; then
	echo "lint: complaints from:$bad"
	exit 1
fi
