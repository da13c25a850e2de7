#compdef mkhct hctfs hct
# zsh completion for mkhct, hctfs and hct; make install puts it where zsh looks.

local -a common
common=('(-h --help)'{-h,--help}'[show help]')

case $service in
mkhct)
	# One of these says what is wanted.
	local wishes='--retention --cosine --snr --bpw --size --lossless --target-quality'
	_arguments -s $common \
		"($wishes)--retention[error of keeping a fraction of white noise]:retention:" \
		"($wishes)--cosine[cosine between a matrix and its source]:cosine:" \
		"($wishes)--snr[signal to error]:decibels:" \
		"($wishes --policy --importance)--bpw[bits a weight over all matrices]:bits:" \
		"($wishes --policy --importance)--size[size of the bundle]:size:" \
		"($wishes --policy --importance)--lossless[every file comes back bit for bit]" \
		'--policy[which tensor gets what]:policy:(uniform hybrid layertype adaptive importance)' \
		"($wishes)--target-quality[of adaptive\: energy to keep]:fraction:" \
		'--importance[of importance\: a number for each tensor]:file:_files' \
		'*--keep[tensors of such names are lossless]:pattern:' \
		'*--tensor[a target for tensors of such names]:pattern=target:' \
		'--effort[quick to small]:effort:(1 2 3 4 5 6 7 8 9)' \
		'--transform[before the quantiser]:transform:(auto none dct)' \
		'--encoder[of lossy tensors]:encoder:(auto tcq topk mixed svd int4)' \
		'--fp16-ratio[of mixed\: coefficients in FP16]:fraction:' \
		'--layers[refinements of each chunk]:layers:(1 2 3 4)' \
		'*--exclude[leave out files of such names]:pattern:' \
		'*--include[but take these]:pattern:' \
		'--restart[begin an unfinished bundle anew]' \
		'--checkpoint-interval[save what is done every N tensors, or Ns]:interval:' \
		'--shards[do only part I of N]:part:' \
		'--finish[make one bundle of all parts]' \
		'--dry-run[write nothing, print what would be done]' \
		'--quality-sample[tensors to decode and measure]:fraction:' \
		'--verify[decode every chunk as it is written]' \
		'--memory[resident memory, at most]:size:' \
		'--gpu[that helps]:gpu:(auto off 0)' \
		'(-j --jobs)'{-j,--jobs}'[encoding threads]:number:' \
		'(-f --force)'{-f,--force}'[write the bundle anew when it exists]' \
		'(-q --quiet -v --verbose)'{-q,--quiet}'[print nothing but errors]' \
		'(-q --quiet -v --verbose)'{-v,--verbose}'[print a line for each tensor]' \
		'--json[print events as JSON]' \
		'--log[append what happens to a file]:file:_files' \
		'(-V --version)'{-V,--version}'[print the version]' \
		'1:source model:_files' '2:bundle:_files -/'
	;;
hctfs)
	_arguments -s $common \
		'(-V --version)'{-V,--version}'[print the version]' \
		'-f[stay in the foreground]' '(-d --debug)'{-d,--debug}'[show every request]' '-s[one thread]' \
		'--gpu[that decodes ahead]:gpu:(auto off 0)' \
		'*-o[mount options]:option:_values -s , option cache_size:size: threads:number: readahead:size: quality:quality:(essentials quick balanced full) gpu:gpu:(auto off 0) uid:number: gid:number: allow_other allow_root auto_unmount nonempty debug' \
		'1:bundle:_files' '2:mount point:_files -/'
	;;
hct)
	if ((CURRENT == 2)); then
		_values 'command' \
			'ls[list tensors]' 'info[totals and options]' 'check[verify every checksum]' \
			'extract[unpack without FUSE]' 'compare[how far two models are apart]' \
			'plot[draw bits and error]' 'help[show help]' '--help[show help]' '--version[print the version]'
		return
	fi
	local command=$words[2]
	shift words
	((CURRENT--))
	case $command in
	help) _values 'command' ls info check extract compare plot ;;
	ls) _arguments $common '(-l --long)'{-l,--long}'[more columns]' '--json[print JSON]' '*:bundle:_files' ;;
	info) _arguments $common '--json[print JSON]' '*:bundle:_files' ;;
	check)
		_arguments $common '(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'(-q --quiet)'{-q,--quiet}'[print only what is bad]' '--json[print JSON]' '*:bundle:_files'
		;;
	extract)
		_arguments $common '(-f --force)'{-f,--force}'[replace files]' \
			'(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'--quality[layers to read]:quality:(essentials quick balanced full)' \
			'(-q --quiet)'{-q,--quiet}'[no progress]' '1:bundle:_files' '2:folder:_files -/'
		;;
	compare)
		_arguments $common '(-j --jobs)'{-j,--jobs}'[threads]:number:' \
			'(-q --quiet)'{-q,--quiet}'[no progress]' '--json[print JSON]' '*:model:_files'
		;;
	plot)
		_arguments $common '(-f --force)'{-f,--force}'[replace the file]' \
			'(-l --long)'{-l,--long}'[all tensors]' \
			'(-o --output)'{-o,--output}'[where to write]:file:_files' '1:bundle:_files'
		;;
	esac
	;;
esac
