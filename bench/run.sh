#!/bin/bash
# make bench: lossless coding beside its peers, and reading through a mount, in one run.
# Rates are for one core and depend on the machine; compare them within one output only.
set -eu

cd "$(dirname "$0")/.."
build=${HCT_BUILD:-build}
models=${HCT_MODELS:-../shared/models}
work=$build/bench
rm -rf "$work"
mkdir -p "$work"

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(date -u +%F), hctfs $("$build/mkhct" --version | head -n 1)"

# The peers come from PyPI and may not be had.
peers=''
venv=build/venv-bench
if [ ! -e "$venv/done" ] || [ bench/requirements.txt -nt "$venv/done" ]; then
	${PYTHON:-python3} -m venv --clear "$venv"
	if "$venv/bin/python" -m pip -qq --disable-pip-version-check install \
		-r bench/requirements.txt 2>/dev/null; then touch "$venv/done"; fi
fi
if [ -e "$venv/done" ]; then peers=$venv/bin/python; fi

lossless() { # FILE DTYPE
	echo
	"$build/bench_lossless" "$1" --dtype "$2" --write "$work/$2.safetensors"
	if [ "$peers" ]; then
		"$peers" bench/peers.py "$work/$2.safetensors" "$2"
	else
		echo '  zipnn, openzl                not to be had: PyPI was not reached'
	fi
}

model=$models/gpt2-attn/model.safetensors
if [ ! -e "$model" ]; then
	model=$(ls build/models/*/model.safetensors 2>/dev/null | head -n 1) || true
	if [ -z "$model" ]; then
		echo 'bench: no model to measure with: make quickstart fetches one' >&2
		exit 3
	fi
	echo "gpt2-attn is not here: measured with $model"
fi
for dtype in bf16 f16 f32; do lossless "$model" "$dtype"; done
bench/mount.sh "$work/bf16.safetensors" "$work"
