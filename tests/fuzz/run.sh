#!/bin/sh
# Runs libFuzzer targets one after the other, each from its seeds; the corpus is kept for the
# next run.  An input that fails is left in CORPUS as NAME-crash-..., and make fuzz fails.
# usage: run.sh CORPUS SECONDS TARGET...
set -eu

corpus=$1 seconds=$2 && shift 2
"${PYTHON:-python3}" -B "$(dirname "$0")/seeds.py" "$corpus/seeds"
bad=''
for target; do
	name=${target##*/}
	mkdir -p "$corpus/$name"
	log=$corpus/$name.log
	if "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=65536 \
		-artifact_prefix="$corpus/$name-" "$corpus/$name" "$corpus/seeds/$name" >"$log" 2>&1
	then
		echo "  $name: $(grep '^Done ' "$log")"
	else
		tail -n 60 "$log"
		bad="$bad $name"
	fi
done
if [ "$bad" ]; then
	echo "fuzz: failed:$bad"
	exit 1
fi
