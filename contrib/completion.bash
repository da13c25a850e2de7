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
	-j:* | --jobs:*) COMPREPLY=() ;;
	*:-*) _hct_words '--lossless --jobs --force --quiet --verbose --json -V --version -h --help' ;;
	*) _hct_files -f ;;
	esac
}

_hctfs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	case $prev:$cur in
	-o:*)
		compopt -o nospace
		_hct_words 'cache_size= threads= readahead= uid= gid= allow_other allow_root auto_unmount nonempty debug'
		;;
	*:-*) _hct_words '-f -d -s -o -h -V --debug --help --version' ;;
	*) _hct_files -f ;;
	esac
}

_hct() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	if [ "$COMP_CWORD" -eq 1 ]; then
		_hct_words 'ls info check extract compare help -h --help -V --version'
		return
	fi
	if [ "${COMP_WORDS[1]}" = help ]; then
		_hct_words 'ls info check extract compare'
		return
	fi
	case $prev:$cur in
	-j:* | --jobs:*) COMPREPLY=() ;;
	*:-*)
		case ${COMP_WORDS[1]} in
		ls) _hct_words '--long --json --help' ;;
		info) _hct_words '--json --help' ;;
		check) _hct_words '--jobs --quiet --json --help' ;;
		extract) _hct_words '--force --jobs --quiet --help' ;;
		compare) _hct_words '--jobs --quiet --json --help' ;;
		esac
		;;
	*) _hct_files -f ;;
	esac
}

complete -F _mkhct mkhct
complete -F _hctfs hctfs
complete -F _hct hct
