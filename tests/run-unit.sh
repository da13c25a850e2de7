#!/bin/sh
# Runs cmocka programs and adds up what they report; a line for each, and its whole output
# when something failed in it (or with V=1).
# usage: run-unit.sh SUITE PROGRAM...
set -eu

suite=$1 && shift
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The sum of the numbers behind a closing word such as PASSED: one line for each group.
count() { sed -n "s/^\[  *$1 *\] \([0-9]*\) test(s).*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }

for program; do
	code=0
	"$program" >"$log" 2>&1 </dev/null || code=$?
	p=$(count PASSED) f=$(count FAILED) s=$(count SKIPPED)
	# A crash, or a program that ran no test, has no line of its own.
	if [ "$f" -eq 0 ] && { [ "$code" -ne 0 ] || [ $((p + s)) -eq 0 ]; }; then
		f=1
		echo "$program: exit code $code" >>"$log"
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f" -gt 0 ] || [ "${V:-}" ]; then cat "$log"; fi
	printf '  %-24s %4d passed, %d failed, %d skipped\n' "${program##*/}" "$p" "$f" "$s"
done

echo "$suite: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
