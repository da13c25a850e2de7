#!/bin/sh
# Submits what makes one bundle on many machines: an array of tasks, and a job that finishes.
set -euf

usage() {
	cat <<'TEXT'
Usage: contrib/slurm/submit.sh [OPTION]... SRC OUT [-- MKHCT OPTION...]
Compress the model folder SRC into the bundle OUT with a job array of Slurm.  Both are on a
filesystem that all nodes share.  Submitted again with the same options, OUT is gone on with;
when it is finished already, nothing is submitted.

  -n, --tasks N         tasks of the array (default: one for each model file, 16 at most, or
                        as many as OUT was begun with)
      --at-once N       tasks that run at the same time (default: all)
  -c, --cpus N          processors of each task (default: 4)
  -m, --memory SIZE     memory of each task's mkhct, as 4G or 600M (default: 1G; 256M or more);
                        the job asks for half a gigabyte more
  -t, --time LIMIT      time limit of a task; one that meets it goes on in another
  -p, --partition NAME  partition of both jobs
  -l, --logs DIR        folder of the jobs' logs (default: this folder)
  -s, --sbatch WORD     one more option for sbatch, such as --account=NAME; repeatable
      --wait            return when the bundle is finished, or cannot be (exit code 1)
      --dry-run         print the commands and submit nothing
  -h, --help            print this help

The environment variable MKHCT names the program, on this machine and on the nodes
(default: mkhct in PATH).  Here it checks options and source, which takes seconds.
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
# getopt_long takes a part of a long option's name, and letters in one word.  What might mean an
# option that is not to be given is refused, even where it is the value of another one.
for word; do
	case $word in
	-- | -) fail "'$word' is one too many: after -- there are options of mkhct only" ;;
	--*) ;;
	-*j*) fail "$word: give --cpus before SRC" ;;
	-*[fhV]*) fail "$word: not for a bundle that several machines make" ;;
	*) continue ;;
	esac
	for name in restart memory jobs shards finish force dry-run help version; do
		case --$name in
		"${word%%=*}") ;;
		"${word%%=*}"*) word="$word (--$name)" ;;
		*) continue ;;
		esac
		case $name in
		restart) fail "$word: a task would begin anew after every preemption; remove OUT instead" ;;
		memory) fail "$word: give it before SRC, so that the job asks for as much" ;;
		jobs) fail "$word: give --cpus before SRC" ;;
		*) fail "$word: not for a bundle that several machines make" ;;
		esac
	done
done

mib=$(mebibytes "$memory") || fail "--memory: '$memory' is no size such as 4G or 600M"
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

# The names of what the parts have saved, one a line.
saved=$(find "$out/.hct" -maxdepth 1 -name 'checkpoint*.json' 2>/dev/null) || :
if [ -e "$out/.hct/report.json" ] && [ ! "$saved" ]; then
	echo "submit: $out is finished already; to make it anew, remove it first"
	exit 0
fi
[ -d "$out/.hct" ] || [ ! -d "$out" ] || [ ! "$(ls -A -- "$out")" ] || fail "$out: has files that are no bundle's"
[ ! -e "$out/.hct/checkpoint.json" ] || fail "$out: was begun by one machine; mkhct SRC OUT goes on with it"

program=${MKHCT:-mkhct}
MKHCT=$(command -v -- "$program") || fail "$program: not found; make install, or set MKHCT"
case $MKHCT in
/*) ;;
*) MKHCT=$PWD/$MKHCT ;;
esac
export MKHCT

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
trap 'exit 130' HUP INT TERM

# mkhct itself knows its options, and what excludes what.  There is no source here; code 2, for
# the command line, comes before it notices that.
code=0
said=$("$MKHCT" --shards 1/1 -j "$cpus" --memory "$memory" "$@" --log /dev/null -- \
	"$scratch/none" "$scratch/out" 2>&1 >/dev/null) || code=$?
[ "$code" -ne 2 ] || fail "options: $said"

# Prints how many model files of the source, a bundle or not, --include and --exclude leave.  A
# part behind the last file checks the headers of all and lists all in its checkpoint; without
# loss it measures nothing, whatever the options are.
count_files() {
	value=
	for word; do # as they are now, whatever becomes of them
		shift
		if [ "$value" ]; then
			set -- "$@" "$word"
			value=
			continue
		fi
		case $word in
		--ex*=* | --in*=*) set -- "$@" "$word" ;;
		--ex* | --in*) set -- "$@" "$word" && value=1 ;;
		esac
	done
	"$MKHCT" -q --lossless --shards 65535/65535 "$@" -- "$source" "$scratch/out" >/dev/null || return
	grep -o '"kind": *"model"' "$scratch/out/.hct/checkpoint-65535-of-65535.json" | wc -l
}

files=$(count_files "$@") || exit
[ "$files" -gt 0 ] || fail "$source: has no model file that is not left out"
rm -rf -- "$scratch"
trap - EXIT HUP INT TERM

begun=$(printf '%s\n' "$saved" | sed -n 's/.*-of-\([0-9]*\)\.json$/\1/p' | sort -u)
case $begun in
'') ;;
0* | *[!0-9]*) fail "$out: was begun with different numbers of tasks; remove it" ;;
*)
	[ "${tasks:-$begun}" -eq "$begun" ] || fail "$out: was begun with $begun tasks; give --tasks $begun, or remove it"
	tasks=$begun
	;;
esac
[ "$tasks" ] || tasks=$((files < 16 ? files : 16))
if [ "$tasks" -gt "$files" ] && [ ! "$begun" ]; then
	echo "submit: $files tasks and not $tasks: one model file is one machine's work" >&2
	tasks=$files
fi

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
