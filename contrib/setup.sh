#!/bin/sh
# Installs what hctfs needs to be built, run and tested, on Debian, Ubuntu, Fedora and Arch.
# Does nothing, and needs no rights, when nothing is missing.
set -eu

usage() {
	cat <<'TEXT'
usage: contrib/setup.sh [--check] [--dev]
  --check  only say what is missing; exit code 1 when something is
  --dev    also what developers use: clang with libFuzzer, cppcheck, shellcheck, mandoc, Slurm, chromium
TEXT
}

check_only='' dev=''
for arg; do
	case $arg in
	--check) check_only=1 ;;
	--dev) dev=1 ;;
	-h | --help) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
done

has() { command -v "$1" >/dev/null 2>&1; }
has_admin() { PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1; }
has_browser() { has chromium || has chromium-browser || has google-chrome; }
library() { pkg-config --exists "$1" 2>/dev/null; }
compiles() { has cc && echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; }
# With the library: clang alone answers to c++, too.
compiles_cxx() {
	has c++ && printf '#include <string>\nint main() { return (int)std::string().size(); }\n' |
		c++ -x c++ -o /dev/null - 2>/dev/null
}
venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }
fuzzer() {
	has clang && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null
}
sanitizers() {
	has cc && echo 'int main(void) { return 0; }' |
		cc -fsanitize=address,undefined -x c -o /dev/null - 2>/dev/null
}

if has apt-get; then
	manager=apt
elif has dnf; then
	manager=dnf
elif has pacman; then
	manager=pacman
else
	manager=none
fi

# need NAME TEST... -- APT DNF PACMAN: when the test fails, NAME is missing and the packages of
# this system (words separated by commas, - for none) are wanted.
missing='' packages=''
need() {
	name=$1 && shift
	probe=
	while [ "$1" != -- ]; do probe="$probe $1" && shift; done
	shift
	$probe && return
	case $manager in
	apt) words=$1 ;;
	dnf) words=$2 ;;
	pacman) words=$3 ;;
	*) words= ;;
	esac
	if [ "$words" = - ]; then return; fi
	missing="$missing $name"
	packages="$packages $(echo "$words" | tr ',' ' ')"
}

survey() {
	missing='' packages=''
	need cc compiles -- gcc,libc6-dev gcc,glibc-devel gcc
	need make has make -- make make make
	need pkg-config has pkg-config -- pkg-config pkgconf-pkg-config pkgconf
	need libfuse3 library fuse3 -- libfuse3-dev fuse3-devel fuse3
	need fusermount3 has fusermount3 -- fuse3 fuse3 fuse3
	need libzstd library libzstd -- libzstd-dev libzstd-devel zstd
	need cJSON library libcjson -- libcjson-dev cjson-devel cjson
	need xxHash library libxxhash -- libxxhash-dev xxhash-devel xxhash
	need libcrypto library libcrypto -- libssl-dev openssl-devel openssl
	need FFTW library fftw3f -- libfftw3-dev fftw-devel fftw
	need FFTW-double library fftw3 -- libfftw3-dev fftw-devel fftw
	need OpenBLAS library openblas -- libopenblas-dev openblas-devel openblas
	need c++ compiles_cxx -- g++ gcc-c++ gcc
	need cmocka library cmocka -- libcmocka-dev libcmocka-devel cmocka
	need python3-venv venv -- python3,python3-venv,python3-pip python3,python3-pip python
	need find has find -- findutils findutils findutils
	[ "$dev" ] || return 0
	need sanitizers sanitizers -- gcc libasan,libubsan gcc
	need clang fuzzer -- clang,libclang-rt-dev clang,compiler-rt clang,compiler-rt
	need cppcheck has cppcheck -- cppcheck cppcheck cppcheck
	need shellcheck has shellcheck -- shellcheck ShellCheck shellcheck
	need mandoc has mandoc -- mandoc mandoc -
	need slurmctld has_admin slurmctld -- slurmctld slurm-slurmctld -
	need slurmd has_admin slurmd -- slurmd slurm-slurmd -
	need sbatch has sbatch -- slurm-client slurm -
	need munge has_admin munged -- munge munge -
	need chromium has_browser -- chromium chromium chromium
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif has sudo; then
		sudo "$@"
	else
		echo "setup: must be run as root, or with sudo installed, to run: $*" >&2
		exit 1
	fi
}

install_packages() {
	case $manager in
	apt)
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
		# Older releases have this within another package of clang.
		apt-cache show libclang-rt-dev >/dev/null 2>&1 ||
			packages=$(echo "$packages" | sed 's/libclang-rt-dev//')
		# shellcheck disable=SC2086 # words
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
			-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install $packages >/dev/null
		;;
	dnf)
		# shellcheck disable=SC2086
		as_root dnf -q -y install $packages
		;;
	pacman)
		# shellcheck disable=SC2086
		as_root pacman -S -y --needed --noconfirm $packages >/dev/null
		;;
	*)
		echo "setup: no apt-get, dnf or pacman here; please install:$missing" >&2
		exit 1
		;;
	esac
}

survey
if [ -z "$missing" ]; then
	[ -z "$check_only" ] || echo 'setup: nothing is missing'
	exit 0
fi
if [ "$check_only" ]; then
	echo "setup: missing:$missing"
	[ -z "$packages" ] || echo "setup: packages:$packages"
	exit 1
fi
echo "setup: installing$packages"
install_packages
survey
if [ "$missing" ]; then
	echo "setup: still missing after installing packages:$missing" >&2
	exit 1
fi
