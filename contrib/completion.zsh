#compdef mkhct hctfs hct
# zsh completion for mkhct, hctfs and hct; make install puts it where zsh looks.

local -a common
common=('(-h --help)'{-h,--help}'[show help]')

case $service in
mkhct)
	_arguments -s $common \
		'--lossless[every file comes back bit for bit]' \
		'(-j --jobs)'{-j,--jobs}'[encoding threads]:number:' \
		'(-f --force)'{-f,--force}'[write the bundle anew when it exists]' \
		'(-q --quiet -v --verbose)'{-q,--quiet}'[print nothing but errors]' \
		'(-q --quiet -v --verbose)'{-v,--verbose}'[print a line for each tensor]' \
		'--json[print the final report as JSON]' \
		'(-V --version)'{-V,--version}'[print the version]' \
		'1:source model:_files' '2:bundle:_files -/'
	;;
hctfs)
	_arguments -s $common \
		'(-V --version)'{-V,--version}'[print the version]' \
		'-f[stay in the foreground]' '(-d --debug)'{-d,--debug}'[show every request]' '-s[one thread]' \
		'*-o[mount options]:option:_values -s , option cache_size:size: threads:number: readahead:size: uid:number: gid:number: allow_other allow_root auto_unmount nonempty debug' \
		'1:bundle:_files' '2:mount point:_files -/'
	;;
hct)
	if ((CURRENT == 2)); then
		_values 'command' \
			'ls[list tensors]' 'info[totals and options]' 'check[verify every checksum]' \
			'extract[unpack without FUSE]' 'compare[how far two models are apart]' \
			'help[show help]' '--help[show help]' '--version[print the version]'
		return
	fi
	local command=$words[2]
	shift words
	((CURRENT--))
	case $command in
	help) _values 'command' ls info check extract compare ;;
	ls) _arguments $common '(-l --long)'{-l,--long}'[more columns]' '--json[print JSON]' '*:bundle:_files' ;;
	info) _arguments $common '--json[print JSON]' '*:bundle:_files' ;;
	check)
		_arguments $common '(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'(-q --quiet)'{-q,--quiet}'[print only what is bad]' '--json[print JSON]' '*:bundle:_files'
		;;
	extract)
		_arguments $common '(-f --force)'{-f,--force}'[replace files]' \
			'(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'(-q --quiet)'{-q,--quiet}'[no progress]' '1:bundle:_files' '2:folder:_files -/'
		;;
	compare)
		_arguments $common '(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'(-q --quiet)'{-q,--quiet}'[no progress]' '--json[print JSON]' '*:model:_files'
		;;
	esac
	;;
esac
