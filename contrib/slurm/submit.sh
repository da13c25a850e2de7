#!/bin/sh
# Submits what makes one bundle on many machines: an array of tasks, and a job that finishes.
set -euf

usage() {
	cat <<'TEXT'
Usage: contrib/slurm/submit.sh [OPTION]... SRC OUT [-- MKHCT OPTION...]
Compress the model folder SRC into the bundle OUT with a job array of Slurm.  Both are on a
filesystem that all nodes share.  Submitted again with the same options, OUT is gone on with.

  -n, --tasks N         tasks of the array (default: one for each model file, 16 at most)
      --at-once N       tasks that run at the same time (default: all)
  -c, --cpus N          processors of each task (default: 4)
  -m, --memory SIZE     memory of each task's mkhct, as 4G or 600M (default: 1G); the
                        job asks for half a gigabyte more
  -t, --time LIMIT      time limit of a task; one that meets it goes on in another
  -p, --partition NAME  partition of both jobs
  -l, --logs DIR        folder of the jobs' logs (default: this folder)
  -s, --sbatch WORD     one more option for sbatch, such as --account=NAME; repeatable
      --wait            return when the bundle is finished, or cannot be (exit code 1)
      --dry-run         print the commands and submit nothing
  -h, --help            print this help

The environment variable MKHCT names the program, on this machine and on the nodes
(default: mkhct in PATH).
TEXT
}

fail() {
	echo "submit: $1" >&2
	exit 2
}

number() {
	case $2 in
	*[!0-9]* | '' | 0* | ??????*) fail "$1: '$2' is no number from 1" ;;
	esac
}

# SIZE as 1G or 600M, in MiB.
mebibytes() {
	case $1 in
	*[!0-9MG]* | [MG]* | *[MG]?* | ??????????* | 0*) return 1 ;;
	*G) echo $((${1%G} * 1024)) ;;
	*M) echo "${1%M}" ;;
	*) return 1 ;;
	esac
}

tasks='' at_once='' cpus=4 memory=1G time='' partition='' logs=. more='' wait='' dry=''
while [ "$#" -gt 0 ]; do
	case $1 in
	-n | --tasks | --at-once | -c | --cpus | -m | --memory | -t | --time | -p | --partition | \
		-l | --logs | -s | --sbatch)
		[ "$#" -ge 2 ] || fail "$1: its value is missing"
		;;
	esac
	case $1 in
	-n | --tasks) number "$1" "$2" && tasks=$2 && shift ;;
	--at-once) number "$1" "$2" && at_once=$2 && shift ;;
	-c | --cpus) number "$1" "$2" && cpus=$2 && shift ;;
	-m | --memory) memory=$2 && shift ;;
	-t | --time) time=$2 && shift ;;
	-p | --partition) partition=$2 && shift ;;
	-l | --logs) logs=$2 && shift ;;
	-s | --sbatch)
		case $2 in
		-*[![:graph:]]* | [!-]*) fail "$1: '$2' is no option of sbatch in one word" ;;
		esac
		more="$more $2" && shift
		;;
	--wait) wait=--wait ;;
	--dry-run) dry=1 ;;
	-h | --help) usage && exit 0 ;;
	--) break ;;
	-*) fail "$1: no such option; mkhct's own follow SRC OUT and --" ;;
	*) break ;;
	esac
	shift
done
[ "${1:-}" != -- ] || shift
[ "$#" -ge 2 ] || fail 'SRC and OUT are wanted; --help tells more'
source=$1 out=$2
shift 2
if [ "$#" -gt 0 ]; then
	[ "$1" = -- ] || fail "'$1' is one too many: SRC and OUT, then -- and options of mkhct"
	shift
fi
for word; do
	case $word in
	--shards* | --finish* | -f | --force | --dry-run)
		fail "$word: not for a bundle that several machines make" ;;
	--restart) fail '--restart: a task would begin anew after every preemption; remove OUT instead' ;;
	--memory*) fail "$word: give it before SRC, so that the job asks for as much" ;;
	-j* | --jobs*) fail "$word: give --cpus before SRC" ;;
	esac
done

mib=$(mebibytes "$memory") || fail "--memory: '$memory' is no size such as 4G or 600M"
[ "$mib" -ge 64 ] || fail "--memory: '$memory' is too little (64M or more)"
[ -d "$source" ] || fail "$source: no folder; a single file needs one machine: mkhct SRC OUT"
parent=$(dirname -- "$out")
[ -d "$parent" ] || fail "$parent: no folder; make it, or correct OUT"
[ ! -e "$out" ] || [ -d "$out" ] || fail "$out: is no folder"
# Not in the environment of every node is the folder the same that the shell shows here.
source=$(cd -- "$source" && pwd -P)
out=$(cd -- "$parent" && pwd -P)/$(basename -- "$out")
case $out/ in
"$source"/*) fail "$out lies in the source" ;;
esac
case $source in
*'
'* | "$out"/*) fail "$source: lies in OUT, or has a line break in its name" ;;
esac

files=$(find -L "$source" -name '*.safetensors' -type f | wc -l)
[ "$files" -gt 0 ] || fail "$source: has no .safetensors file"
[ "$tasks" ] || tasks=$((files < 16 ? files : 16))
if [ "$tasks" -gt "$files" ]; then
	echo "submit: $files tasks and not $tasks: one model file is one machine's work" >&2
	tasks=$files
fi

program=${MKHCT:-mkhct}
MKHCT=$(command -v -- "$program") || fail "$program: not found; make install, or set MKHCT"
case $MKHCT in
/*) ;;
*) MKHCT=$PWD/$MKHCT ;;
esac
export MKHCT
[ "$dry" ] || command -v sbatch >/dev/null || fail 'sbatch: not found; this needs the commands of Slurm'
[ -d "$logs" ] || fail "$logs: no folder for logs"
logs=$(cd -- "$logs" && pwd -P)
case $logs in
*%* | *\\*) fail "$logs: sbatch would take the % or \\ in its name for a pattern" ;;
esac
comment=mkhct:$out # how the jobs are found again
script=$(cd -- "$(dirname -- "$0")" && pwd)/mkhct-array.sbatch
[ -r "$script" ] || fail "$script: not there"

# Prints the command, or runs it and prints what it prints.
submit() {
	if [ "$dry" ]; then
		for word; do
			case $word in
			*[!A-Za-z0-9_./:=,%@+-]* | '') printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")" ;;
			*) printf '%s ' "$word" ;;
			esac
		done
		echo
	else
		"$@"
	fi
}

# shellcheck disable=SC2086 # words
submit_array() {
	submit sbatch --parsable --export=ALL --job-name=mkhct --comment="$comment" \
		--array="1-$tasks${at_once:+%$at_once}" --cpus-per-task="$cpus" --mem="$((mib + 512))M" \
		--output="$logs/mkhct-%A_%a.log" ${time:+--time="$time"} ${partition:+--partition="$partition"} \
		$more "$script" "$source" "$out" --memory "$memory" "$@"
}

# It reads and writes little, and ends with an error when a part is not there.
# shellcheck disable=SC2086
submit_finish() {
	submit sbatch --parsable --export=ALL --job-name=mkhct-finish --comment="$comment" \
		--dependency="afterok:$1" --kill-on-invalid-dep=yes --cpus-per-task=1 \
		--output="$logs/mkhct-finish-%j.log" ${partition:+--partition="$partition"} \
		$wait $more "$script" --finish "$out"
}

if [ "$dry" ]; then
	submit_array "$@"
	submit_finish JOB
	exit 0
fi
# Two tasks at the same part would be in each other's way.
busy=$(squeue --noheader --format='%A %k' | sed -n 's/^\([0-9]*\) //p' | grep -cxF -- "$comment") || :
[ "$busy" -eq 0 ] || fail "$out: jobs for it are in the queue already; wait for them, or scancel them"
unset MKHCT_SHARDS # all parts, whatever was submitted by hand before
# With --parsable "JOB" or "JOB;CLUSTER".
job=$(submit_array "$@")
job=${job%%;*}
echo "submit: job $job: $tasks tasks; logs: $logs/mkhct-${job}_*.log"
echo "submit: when all are done, $out is finished; otherwise submit it again, and it goes on"
code=0
last=$(submit_finish "$job") || code=$?
last=${last%%;*}
if [ ! "$last" ]; then
	echo "submit: the job that finishes was refused; when the tasks are done: mkhct --finish $out" >&2
	exit 1
fi
# sbatch --wait returns 0, too, for a job that was cancelled because a task had failed.
if [ "$wait" ] && ! { [ "$code" -eq 0 ] && scontrol show job "$last" | grep -q 'JobState=COMPLETED '; }; then
	echo "submit: $out is not finished; the logs tell why" >&2
	exit 1
fi
