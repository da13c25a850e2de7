#!/bin/bash
# make bench: lossless coding, reading through a mount, mkhct from end to end, and lossy coding, beside
# the peers of each, in one run.  Rates are for one core and depend on the machine; compare them
# within one output only.
#
#     make bench ONLY='frontier peers'    some groups
#     make bench QUICK=1                  less of each, for a look
#
# Rows as JSON, and a plot, are left in build/bench/, those of the run before are removed.
set -eu

cd "$(dirname "$0")/.."
build=${HCT_BUILD:-build}
models=${HCT_MODELS:-../shared/models}
python=${PYTHON:-python3}
work=$build/bench
groups='lossless mount writer gpu frontier peers gaussian effort layers transforms tiles dct spectral mixed encoders
	lowrank adaptive importance policies scaling'
quick=()
failed=''
export OPENBLAS_NUM_THREADS=1 # the svd coder's

# shellcheck disable=SC2086 # lists of words
{
	groups=$(echo $groups)
	only=$(echo ${ONLY:-$groups})
}
for group in $only; do
	case " $groups " in
	*" $group "*) ;;
	*)
		echo "bench: ONLY: no group $group; there are: $groups" >&2
		exit 2
		;;
	esac
done
if [ "${QUICK:-}" ]; then quick=(--quick); fi
rm -rf "$work" # the table and the plot are of one run
mkdir -p "$work"

wanted() { # GROUP
	case " $only " in *" $1 "*) ;; *) return 1 ;; esac
}

# Runs a command, and says how long it took.  One that fails does not end the others.
timed() {
	local start=$SECONDS
	echo
	if ! "$@"; then
		failed="$failed $1"
		echo "  failed: $*"
	fi
	echo "  ($((SECONDS - start)) s)"
}

# The peers come from PyPI and may not be had.  Line by line: one that fails does not cost the
# others; all lines are constraints of each, so that nothing brings another torch.
venv=build/venv-bench
peers=''
install_peers() {
	local files='bench/requirements.txt bench/requirements-quantisers.txt' line missing=''
	local pip=("$venv/bin/python" -m pip -qq --disable-pip-version-check --retries 1 install)
	local torch=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

	# shellcheck disable=SC2086 # a list of words
	if [ ! -e "$venv/done" ] || [ "$(ls -t $files "$venv/done" | head -n 1)" != "$venv/done" ]; then
		[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || return 0
		sed 's/#.*//; /^ *$/d' $files | sort -u >"$venv/constraints.txt"
		for line in $(sed 's/#.*//' $files); do
			"${pip[@]}" -c "$venv/constraints.txt" "$line" 2>/dev/null ||
				"${pip[@]}" -c "$venv/constraints.txt" --extra-index-url "$torch" "$line" 2>/dev/null ||
				missing="$missing $line"
		done
		if [ "$missing" ]; then echo "not to be had from PyPI:$missing"; else touch "$venv/done"; fi
	fi
	peers=$venv/bin/python
}

lossless() { # DTYPE
	"$build/bench_lossless" "$model" --dtype "$1" --write "$work/$1.safetensors"
	if [ "$peers" ]; then
		"$peers" bench/peers.py "$work/$1.safetensors" "$1"
	else
		echo '  zipnn, openzl                not to be had: PyPI was not reached'
	fi
}

writer() {
	[ -e "$work/bf16.safetensors" ] ||
		"$build/bench_lossless" "$model" --dtype bf16 --repeat 1 --write "$work/bf16.safetensors" >/dev/null
	"$python" -B bench/writer.py "$build" "$work/bf16.safetensors" "$work" --json "$work/writer.json" \
		${quick[@]+"${quick[@]}"}
}

# A quarter of a gigabyte of matrices, compressed in both ways.
gpu() {
	[ -e "$work/bf16.safetensors" ] ||
		"$build/bench_lossless" "$model" --dtype bf16 --repeat 1 --write "$work/bf16.safetensors" >/dev/null
	mkdir -p "$work/gpu/source"
	"$python" -B -c 'import sys; sys.path.insert(0, "bench"); import writer; writer.stack(*sys.argv[1:])' \
		"$work/bf16.safetensors" "$work/gpu/source/model.safetensors"
	"$build/mkhct" -q --lossless "$work/gpu/source" "$work/gpu/lossless"
	"$build/mkhct" -q "$work/gpu/source" "$work/gpu/lossy"
	"$build/bench_gpu" "$work"/gpu/{lossless,lossy}/model.safetensors.hct ${quick[@]+"${quick[@]}"}
	rm -r "$work/gpu"
}

# Groups of bench_lossy: DTYPE GROUP OPTION...
lossy() {
	local dtype=$1 group=$2
	shift 2
	case $group in
	gaussian | lowrank | tiles | scaling | dct) ;; # they make their data
	*) echo "$name, matrices as $dtype" ;;
	esac
	"$build/bench_lossy" ${quick[@]+"${quick[@]}"} --dtype "$dtype" --json "$work/$group-$dtype.json" \
		"$@" "$model" "$group"
}

quantisers() { # DTYPE
	rm -f "$work/quantisers-$1.json"
	if [ ! "$peers" ] || ! "$peers" -c 'import numpy' 2>/dev/null; then
		echo 'Q8_0 ... Q2_K, IQ4_XS, NF4: not to be had: PyPI was not reached'
		return 0
	fi
	"$peers" bench/quantisers.py "$model" --dtype "$1" --json "$work/quantisers-$1.json" \
		--rounds "$([ "${quick[*]-}" ] && echo 1 || echo 3)"
}

# All that this run has measured at one dtype.
table() { # DTYPE
	local rows
	rows=$(ls "$work"/{frontier,quantisers,spectral,encoders}-"$1".json 2>/dev/null) || true
	if [ "$rows" ]; then
		echo
		echo "all coders, $name, matrices as $1, sorted by bits"
		# shellcheck disable=SC2086 # a list of words
		"$python" -B bench/table.py $rows
	fi
}

plot() {
	local rows
	rows=$(ls -U "$work"/{frontier,peers,spectral,quantisers}-f32.json 2>/dev/null) || true
	# shellcheck disable=SC2086 # a list of words
	"$python" -B bench/plot.py $rows -o "$work/rate-distortion.svg" \
		--title "Relative error against size, $name, F32"
	echo "plot: $work/rate-distortion.svg; for the README: cp $work/rate-distortion.svg bench/"
}

policies() { # GROUP
	local group=$1
	[ "$group" = policies ] && group=layers
	mkdir -p "$work/matrices"
	"$build/bench_lossy" --dtype bf16 --write "$work/matrices/model.safetensors" "$model"
	echo "$name, matrices as bf16"
	"$python" -B bench/policies.py "$build" "$work/matrices" "$group" ${quick[@]+"${quick[@]}"} \
		--json "$work/$1.json"
	rm -r "$work/matrices"
}

echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(date -u +%F), hctfs $("$build/mkhct" --version | head -n 1)"
if wanted lossless || wanted peers; then install_peers; fi

model=$models/gpt2-attn/model.safetensors
name=gpt2-attn
if [ ! -e "$model" ]; then
	model=$(ls build/models/*/model.safetensors 2>/dev/null | head -n 1) || true
	if [ -z "$model" ]; then
		echo 'bench: no model to measure with: make quickstart fetches one' >&2
		exit 3
	fi
	name=$(basename "$(dirname "$model")")
	echo "gpt2-attn is not here, which the bars are for: measured with $name"
fi

if wanted lossless; then
	for dtype in bf16 f16 f32; do timed lossless "$dtype"; done
fi
if wanted mount; then
	[ -e "$work/bf16.safetensors" ] ||
		"$build/bench_lossless" "$model" --dtype bf16 --repeat 1 --write "$work/bf16.safetensors" >/dev/null
	timed bench/mount.sh "$work/bf16.safetensors" "$work"
fi
if wanted writer; then timed writer; fi
if wanted gpu; then timed gpu; fi
for dtype in f32 bf16; do
	if wanted frontier; then timed lossy "$dtype" frontier; fi
	if wanted peers; then
		timed quantisers "$dtype"
		if [ -e "$work/quantisers-$dtype.json" ]; then
			timed lossy "$dtype" peers --peers "$work/quantisers-$dtype.json"
		fi
	fi
done
for group in gaussian spectral mixed encoders lowrank; do
	if wanted "$group"; then timed lossy f32 "$group"; fi
done
for group in effort layers transforms tiles scaling; do
	if wanted "$group"; then timed lossy bf16 "$group"; fi
done
if wanted dct; then timed lossy f32 dct; fi
for group in adaptive importance policies; do
	if wanted "$group"; then timed policies "$group"; fi
done
if wanted frontier || wanted peers; then
	for dtype in f32 bf16; do table "$dtype"; done
fi
if wanted frontier; then plot; fi
echo "rows: $work/*.json"
if [ "$failed" ]; then
	echo "bench: failed:$failed" >&2
	exit 1
fi
