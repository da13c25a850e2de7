#!/bin/sh
# bench/mount.sh FILE.safetensors WORK: what a mount costs against the plain file.
#
# The file is repeated to about a gigabyte of shards, compressed, mounted, and read cold (page
# cache dropped where that is permitted), again from the page cache, and at random.
set -eu

build=${HCT_BUILD:-build}
source=$1 work=$2/mount
mnt=$work/mnt
mkdir -p "$work/src" "$mnt"
finish() {
	fusermount3 -u "$mnt" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
if [ ! -c /dev/fuse ]; then
	echo 'mount: skipped, there is no /dev/fuse here'
	exit 0
fi

bytes=$(wc -c <"$source")
shards=$((1000000000 / bytes + 1))
i=0
while [ "$i" -lt "$shards" ]; do
	cp "$source" "$work/src/model-$i.safetensors"
	i=$((i + 1))
done

echo
echo "mount: $shards shards, $((shards * bytes / 1000000)) MB, $(nproc) CPUs"
"$build/mkhct" --lossless -q "$work/src" "$work/out.hct"
"$build/hctfs" -o cache_size=256M "$work/out.hct" "$mnt"
${PYTHON:-python3} bench/readers.py "$work/src" "$mnt" "$work/out.hct"
