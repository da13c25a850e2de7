# bash completion for mkhct, hctfs and hct; make install puts it where bash looks.

_hct_files() {
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

_hct_words() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_mkhct() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	case $prev:$cur in
	--policy:*) _hct_words 'uniform hybrid layertype adaptive importance' ;;
	--transform:*) _hct_words 'auto none dct' ;;
	--encoder:*) _hct_words 'auto tcq topk mixed svd int4' ;;
	--effort:*) _hct_words '1 2 3 4 5 6 7 8 9' ;;
	--layers:*) _hct_words '1 2 3 4' ;;
	--gpu:*) _hct_words 'auto off 0' ;;
	--importance:* | --log:*) _hct_files -f ;;
	-j:* | --jobs:* | --retention:* | --cosine:* | --snr:* | --bpw:* | --size:* | --keep:* | --tensor:* | \
		--target-quality:* | --fp16-ratio:* | --quality-sample:* | --exclude:* | --include:* | \
		--checkpoint-interval:* | --shards:* | --memory:*) COMPREPLY=() ;;
	*:-*)
		_hct_words '--retention --cosine --snr --bpw --size --lossless --policy --target-quality
			--importance --keep --tensor --effort --transform --encoder --fp16-ratio --layers
			--exclude --include --restart --checkpoint-interval --shards --finish
			--dry-run --quality-sample --verify --memory --gpu --jobs --force --quiet --verbose
			--json --log
			-V --version -h --help'
		;;
	*) _hct_files -f ;;
	esac
}

_hctfs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	case $prev:$cur in
	-o:*)
		compopt -o nospace
		_hct_words 'cache_size= threads= readahead= uid= gid= allow_other allow_root auto_unmount nonempty debug gpu= quality='
		;;
	quality:=) cur='' && _hct_words 'essentials quick balanced full' ;;
	gpu:= | --gpu:=) cur='' && _hct_words 'auto off 0' ;;
	--gpu:*) _hct_words 'auto off 0' ;;
	=:*)
		case ${COMP_WORDS[COMP_CWORD - 2]} in
		quality) _hct_words 'essentials quick balanced full' ;;
		gpu | --gpu) _hct_words 'auto off 0' ;;
		esac
		;;
	*:-*) _hct_words '-f -d -s -o -h -V --debug --gpu --help --version' ;;
	*) _hct_files -f ;;
	esac
}

_hct() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	if [ "$COMP_CWORD" -eq 1 ]; then
		_hct_words 'ls info check extract compare plot help -h --help -V --version'
		return
	fi
	if [ "${COMP_WORDS[1]}" = help ]; then
		_hct_words 'ls info check extract compare plot'
		return
	fi
	case $prev:$cur in
	-j:* | --jobs:*) COMPREPLY=() ;;
	-o:* | --output:*) _hct_files -f ;;
	--quality:*) _hct_words 'essentials quick balanced full' ;;
	*:-*)
		case ${COMP_WORDS[1]} in
		ls) _hct_words '--long --json --help' ;;
		info) _hct_words '--json --help' ;;
		check) _hct_words '--jobs --quiet --json --help' ;;
		extract) _hct_words '--force --jobs --quality --quiet --help' ;;
		compare) _hct_words '--jobs --quiet --json --help' ;;
		plot) _hct_words '--force --long --output --help' ;;
		esac
		;;
	*) _hct_files -f ;;
	esac
}

complete -F _mkhct mkhct
complete -F _hctfs hctfs
complete -F _hct hct
