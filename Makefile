# hctfs: make, make check, make quickstart; make help lists the rest.  V=1 shows the commands.

VERSION := $(shell sed -n 's/^.define HCT_VERSION  *"\(.*\)"/\1/p' codec/hct.h)
SOVERSION := 0
B       ?= build
CC      ?= cc
CFLAGS  ?= -O3 -g
PYTHON  ?= python3
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wpointer-arith -Wvla
WERROR  ?=
# No contraction: what the encoder learns, and so its files, does not depend on -march.
HCT_CFLAGS := -std=gnu11 -ffp-contract=off -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIC -fvisibility=default \
              -pthread -I. $(WARN) $(if $(WERROR),-Werror) -MMD -MP

PREFIX  ?= /usr/local
DESTDIR ?=
bindir      ?= $(PREFIX)/bin
libdir      ?= $(PREFIX)/lib
includedir  ?= $(PREFIX)/include
datadir     ?= $(PREFIX)/share
mandir      ?= $(datadir)/man
bashcompdir ?= $(datadir)/bash-completion/completions
zshcompdir  ?= $(datadir)/zsh/site-functions

# All cores, unless -j on the command line or a calling make says otherwise.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --no-print-directory -j$(shell nproc 2>/dev/null || echo 1)
endif

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)';)

PKG := pkg-config
CODEC_PKGS   := libzstd libcjson libxxhash
FUSE_PKGS    := fuse3
FFTW_PKGS    := fftw3f fftw3
LAPACK_PKGS  := openblas# by LAPACK's Fortran interface: not every OpenBLAS has LAPACKE
WRITER_PKGS  := libcrypto
TEST_PKGS    := cmocka

# Libraries are asked for once, and only by goals that compile something themselves.  What reads
# bundles is built without the libraries of the encoder.
INDIRECT := setup check check-loaders quickstart sanitize fuzz lint uninstall clean distclean help
GOALS    := $(filter-out $(INDIRECT),$(or $(MAKECMDGOALS),all))
ifneq ($(GOALS),)
READERS  := $(addprefix $(B)/,hct hctfs libhct.a libhct.so libhct.pc)
ENCODING := $(filter-out $(READERS),$(GOALS))
NEEDED   := $(CODEC_PKGS) $(if $(ENCODING)$(filter $(B)/hctfs,$(GOALS)),$(FUSE_PKGS)) \
            $(if $(ENCODING),$(FFTW_PKGS) $(LAPACK_PKGS) $(WRITER_PKGS)) \
            $(if $(filter unit $(B)/tests/%,$(GOALS)),$(TEST_PKGS))
MISSING  := $(strip $(foreach p,$(NEEDED),$(if $(shell $(PKG) --exists $(p) 2>&1 || echo no),$(p))))
ifneq ($(MISSING),)
$(error $(PKG) does not find $(MISSING): run contrib/setup.sh, which installs what hctfs needs)
endif
pkg = $(shell $(PKG) $(1) 2>/dev/null)
FUSE_CFLAGS    := $(call pkg,--cflags $(FUSE_PKGS))
ENCODER_CFLAGS := $(call pkg,--cflags $(FFTW_PKGS) $(LAPACK_PKGS))
CODEC_LIBS     := $(call pkg,--libs $(CODEC_PKGS)) -lm -pthread -ldl
FUSE_LIBS      := $(call pkg,--libs $(FUSE_PKGS))
LAPACK_LIBS    := $(call pkg,--libs $(LAPACK_PKGS))
# OpenBLAS starts threads as soon as it is loaded: only a program that calls it should.
ENCODER_LIBS   := -Wl,--push-state,--as-needed $(call pkg,--libs $(FFTW_PKGS)) $(LAPACK_LIBS) -Wl,--pop-state
WRITER_LIBS    := $(call pkg,--libs $(WRITER_PKGS))
TEST_LIBS      := $(call pkg,--libs $(TEST_PKGS))
endif

# What only encodes, and may need FFTW and LAPACK: libhctenc.  The rest of codec/ is libhct.
ENCODER_SRC := $(addprefix codec/, \
                 accelerator.c appender.c census.c check.c check_chunk.c coef_plan.c cut.c cut_avx512.c dct.c dct_tiles.c dct_tiles_avx2.c \
                 dct_tiles_avx512.c encoder.c int4.c judge.c lowrank_plan.c matrix.c plan.c rank.c repeats.c \
                 split_encode.c split_plan.c svd.c tcq_classes.c tcq_encode.c \
                 tcq_encode_avx512.c tcq_fit.c tcq_layers.c tcq_plan.c tcq_sample.c trial.c viterbi.c \
                 viterbi_avx2.c viterbi_avx512.c widen.c)
CODEC_SRC   := $(filter-out $(ENCODER_SRC),$(wildcard codec/*.c))
FS_SRC     := $(filter-out fs/hctfs.c fs/hct.c fs/fuse_%.c fs/hct_%.c,$(wildcard fs/*.c))
HCTFS_SRC  := fs/hctfs.c $(wildcard fs/fuse_*.c)
HCT_SRC    := fs/hct.c $(wildcard fs/hct_*.c)
WRITER_SRC := $(filter-out writer/mkhct.c,$(wildcard writer/*.c))
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
GPU_SRC    := $(wildcard gpu/*.cu)
GPU_TEST   := $(wildcard tests/gpu/test_*.c)
EMULATOR   := $(wildcard tests/gpu/emulator/*.cc)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SRC  := $(wildcard bench/*.c)
BENCH_MAIN := $(addprefix bench/,lossless.c lossy.c gpu.c)

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

PROGRAMS := $(B)/mkhct $(B)/hctfs $(B)/hct
LIBS     := $(addprefix $(B)/,libhct.a libhct.so libhctenc.a libhctenc.so)

# The plug-in for NVIDIA's GPUs is made where CUDA's compiler is; GPU= leaves it out.
NVCC      ?= nvcc
CXX       ?= c++
GPU       ?= $(if $(shell command -v $(NVCC) 2>/dev/null),1)
GPU_ARCHS ?= 75 80 86 89 90
PLUGIN    := $(if $(GPU),$(B)/libhct_cuda.so)

all: $(PROGRAMS) $(LIBS) $(PLUGIN) ## the programs and libraries, in build/ (the default)

# A variant that needs more than the baseline instruction set is named for it.
SIMD_avx2   := -mavx2 -mbmi2 -mpopcnt
SIMD_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2 -mbmi2 -mpopcnt
X86 := $(filter x86_64% amd64%,$(shell $(CC) -dumpmachine))
simd_flags = $(if $(X86),$(if $(findstring _avx512.,$(1)),$(SIMD_avx512))$(if $(findstring _avx2.,$(1)),$(SIMD_avx2)))

# libfuse's FUSE_OPT_KEY does itself what clang's -Wconversion warns of.
EXTRA_fs_fuse_options := -Wno-conversion

# Rewritten only when compiler or flags change, and then everything is compiled again.
FLAGS := $(CC) $(HCT_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(FLAGS))' | cmp -s - $@ || echo '$(subst ','\'',$(FLAGS))' >$@

$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(HCT_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(call simd_flags,$<) $(EXTRA_$(subst /,_,$*)) -c -o $@ $<

$(call obj,$(HCTFS_SRC)): HCT_CFLAGS += $(FUSE_CFLAGS)
$(call obj,$(ENCODER_SRC)): HCT_CFLAGS += $(ENCODER_CFLAGS)

$(B)/libhct.a: $(call obj,$(CODEC_SRC))
$(B)/libhctenc.a: $(call obj,$(ENCODER_SRC))
$(B)/libhct.a $(B)/libhctenc.a:
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

$(B)/libhct.so: $(call obj,$(CODEC_SRC)) codec/libhct.map
	$(call say,LD,$@)$(CC) -shared -Wl,-soname,libhct.so.$(SOVERSION) -Wl,--version-script=codec/libhct.map \
		$(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(CODEC_LIBS)

# With what it uses of libhct inside, hidden: the encoder and libhct.so need not be of one version.
$(B)/libhctenc.so: $(call obj,$(ENCODER_SRC)) $(B)/libhct.a codec/libhctenc.map
	$(call say,LD,$@)$(CC) -shared -Wl,-soname,libhctenc.so.$(SOVERSION) \
		-Wl,--version-script=codec/libhctenc.map $(CFLAGS) $(LDFLAGS) -o $@ \
		$(filter %.o %.a,$^) $(ENCODER_LIBS) $(CODEC_LIBS)

ENCODER := $(B)/libhctenc.a $(B)/libhct.a

$(B)/mkhct: $(call obj,writer/mkhct.c $(WRITER_SRC)) $(ENCODER)
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WRITER_LIBS) $(ENCODER_LIBS) $(CODEC_LIBS)

$(B)/hctfs: $(call obj,$(HCTFS_SRC) $(FS_SRC)) $(B)/libhct.a
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(CODEC_LIBS)

$(B)/hct: $(call obj,$(HCT_SRC) $(FS_SRC)) $(B)/libhct.a
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(CODEC_LIBS)

# No contraction on the GPU, too: it decodes to the same bytes.
GPU_ARCH_FLAGS := $(foreach a,$(GPU_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
                  -gencode arch=compute_$(lastword $(GPU_ARCHS)),code=compute_$(lastword $(GPU_ARCHS))
NVCC_FLAGS := -std=c++17 -O3 -lineinfo --fmad=false -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra
$(B)/obj/%.cu.o: %.cu $(B)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVCC_FLAGS) $(GPU_ARCH_FLAGS) $(NVCCFLAGS) -MMD -MF $(@:.o=.d) -c -o $@ $<

$(B)/libhct_cuda.so: $(patsubst %,$(B)/obj/%.o,$(GPU_SRC)) gpu/plugin.map
	$(call say,LD,$@)$(NVCC) -shared -o $@ $(filter %.o,$^) -cudart static -ldl \
		-Xlinker --version-script=gpu/plugin.map

# The same sources, compiled as C++ for an emulator of CUDA on the CPU: for tests.
CXX_FLAGS = -std=gnu++17 -ffp-contract=off -fPIC -fvisibility=hidden -pthread -I. -Itests/gpu/emulator \
            -Wall -Wextra -Wshadow -Wno-unknown-pragmas $(if $(WERROR),-Werror) -MMD -MP
EMULATED := $(B)/tests/gpu/libhct_cuda.so
EMULATED_OBJ := $(patsubst %,$(B)/obj/emulated/%.o,$(GPU_SRC) $(EMULATOR))
$(B)/obj/emulated/%.o: % $(B)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CXX_FLAGS) $(CPPFLAGS) $(CFLAGS) -x c++ -c -o $@ $<

$(EMULATED): $(EMULATED_OBJ)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CXX) -shared $(CFLAGS) $(LDFLAGS) -o $@ $^ $(call pkg,--libs $(FFTW_PKGS)) -pthread -ldl

# Unit tests: one program for each module, linked with everything but the mains.
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
$(UNIT_BIN): $(B)/tests/%: $(B)/obj/tests/unit/%.o $(call obj,$(FS_SRC) $(WRITER_SRC)) $(ENCODER)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) $(WRITER_LIBS) $(ENCODER_LIBS) $(CODEC_LIBS)

SUITE ?=
GPU_BIN := $(patsubst tests/gpu/%.c,$(B)/tests/gpu/%,$(GPU_TEST))
$(GPU_BIN): $(B)/tests/gpu/%: $(B)/obj/tests/gpu/%.o $(call obj,$(FS_SRC) $(WRITER_SRC)) $(ENCODER) | $(EMULATED)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) $(WRITER_LIBS) $(ENCODER_LIBS) $(CODEC_LIBS) -ldl

# HCT_TEST_PLUGIN: the emulated one.
unit: $(UNIT_BIN) $(GPU_BIN) ## the unit tests
	@V='$(V)' HCT_TEST_PLUGIN='$(abspath $(EMULATED))' tests/run-unit.sh $(or $(SUITE),unit) $(UNIT_BIN) $(GPU_BIN)

# End-to-end tests, with Python packages of fixed versions.  ARGS goes to pytest.
VENV := build/venv
VENV_LOADERS := build/venv-loaders
PIP := -m pip --disable-pip-version-check -qq install
PYTEST = HCT_BUILD='$(abspath $(B))' HCT_SUITE=$(or $(SUITE),$@) $(1)/bin/python -B -m pytest -q

$(VENV)/done: tests/e2e/requirements.txt
	$(call say,VENV,$(@D))$(PYTHON) -m venv --clear $(@D)
	$(Q)$(@D)/bin/python $(PIP) -r $<
	@touch $@

e2e: all $(EMULATED) $(VENV)/done ## the end-to-end tests, through real mounts; ARGS='-k mount' picks some
	$(Q)$(call PYTEST,$(VENV)) tests/e2e $(ARGS)

# PyPI's own torch for Linux brings gigabytes of CUDA.  The CPU build comes from where pip is
# configured to look, when it is there, or else from PyTorch's index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
$(VENV_LOADERS)/done: tests/e2e/requirements-loaders.txt tests/e2e/requirements.txt
	$(call say,VENV,$(@D))$(PYTHON) -m venv --clear $(@D)
	$(Q)$(@D)/bin/python $(PIP) -r $< 2>/dev/null || \
		$(@D)/bin/python $(PIP) -r $< --extra-index-url $(TORCH_INDEX)
	@touch $@

MINILM := build/models/all-MiniLM-L6-v2
$(MINILM): contrib/fetch-minilm.sh | $(VENV)/done
	$(call say,FETCH,$@)PYTHON=$(VENV)/bin/python contrib/fetch-minilm.sh $@

loaders: all $(VENV_LOADERS)/done $(MINILM)
	$(Q)HF_HUB_OFFLINE=1 HCT_MINILM='$(abspath $(MINILM))' $(call PYTEST,$(VENV_LOADERS)) tests/e2e/test_loaders.py $(ARGS)

# The writer is killed, its calls fail, its disk forgets: what it goes on with must be the same.
KILLS  ?= 3000
STATES ?= 3000
$(B)/tests/shim.so: tests/crash/shim.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu11 -D_GNU_SOURCE -O1 -fPIC -shared -Wall -Wextra -o $@ $< -ldl

crash: all $(VENV)/done $(B)/tests/shim.so ## kills, failing calls and power cuts; KILLS=3000 STATES=3000
	$(Q)for t in kill faults power; do HCT_BUILD='$(abspath $(B))' HCT_KILLS=$(KILLS) HCT_STATES=$(STATES) \
		$(VENV)/bin/python -B tests/crash/$$t.py || exit 1; done

# Under AddressSanitizer and UBSan, in a build folder of their own.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
sanitize: ## unit and end-to-end tests under ASan and UBSan
	@if echo 'int main(void) { return 0; }' | $(CC) $(SANITIZE) -x c -o /dev/null - 2>/dev/null; \
	then flags='CFLAGS=-O1 -g -fno-omit-frame-pointer $(SANITIZE)'; bad=0; \
	     $(MAKE) B=$(B)/sanitize GPU= "$$flags" SUITE=unit-sanitized unit || bad=1; \
	     $(MAKE) B=$(B)/sanitize GPU= "$$flags" SUITE=e2e-sanitized e2e || bad=1; exit $$bad; \
	else echo 'sanitize: skipped, $(CC) cannot link $(SANITIZE)'; fi

# libFuzzer comes with clang.
FUZZ_SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_FLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(B)/%,$(FUZZ_SRC))
$(FUZZ_BIN): $(B)/%: $(B)/obj/tests/fuzz/%.o $(call obj,$(FS_SRC) $(WRITER_SRC)) $(ENCODER)
	$(call say,LD,$@)$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(WRITER_LIBS) $(ENCODER_LIBS) $(CODEC_LIBS)

fuzz: ## each fuzz target for FUZZ_SECONDS (60)
	@if echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
		$(FUZZ_CC) -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null; \
	then $(MAKE) B=$(B)/fuzz CC='$(FUZZ_CC)' CFLAGS='-O1 -g -fno-omit-frame-pointer $(FUZZ_FLAGS)' \
		FUZZ_SECONDS=$(FUZZ_SECONDS) run-fuzz; \
	else echo 'fuzz: skipped, $(FUZZ_CC) cannot link libFuzzer (contrib/setup.sh --dev installs it)'; fi

run-fuzz: $(FUZZ_BIN) $(VENV)/done
	$(Q)PYTHON=$(VENV)/bin/python tests/fuzz/run.sh $(B)/corpus $(FUZZ_SECONDS) $(FUZZ_BIN)

lint: $(VENV)/done ## format, static analysis, manual pages, shell scripts
	$(Q)CLANG_FORMAT=$(VENV)/bin/clang-format tests/lint.sh

setup: ## installs the packages that are missing
	$(Q)contrib/setup.sh

# Every suite runs, also after one that failed.
check: setup ## set-up, build, and every test that needs no heavy packages
	$(Q)$(MAKE) all
	@bad=; for suite in unit e2e sanitize 'fuzz FUZZ_SECONDS=15' lint; do \
		echo "== make $$suite"; $(MAKE) $$suite || bad="$$bad $${suite%% *}"; \
	done; \
	if [ -n "$$bad" ]; then echo "make check: failed:$$bad"; exit 1; fi; echo 'make check: all passed'

check-loaders: setup ## the tests that load models with torch and transformers
	$(Q)$(MAKE) loaders

quickstart: ## set-up, build, and a real model from end to end
	$(Q)MAKE='$(MAKE)' B='$(B)' contrib/quickstart.sh

# A benchmark may look inside the libraries, as the unit tests do.
BENCH_BIN := $(patsubst bench/%.c,$(B)/bench_%,$(BENCH_MAIN))
$(BENCH_BIN): $(B)/bench_%: $(B)/obj/bench/%.o $(call obj,$(filter-out $(BENCH_MAIN),$(BENCH_SRC))) $(ENCODER)
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(ENCODER_LIBS) $(CODEC_LIBS)

bench: all $(BENCH_BIN) ## benchmarks, some minutes; ONLY='frontier peers' picks groups, QUICK=1 does less of each
	$(Q)HCT_BUILD='$(abspath $(B))' PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' bench/run.sh

PUBLIC_HEADERS := $(addprefix codec/,hct.h backend.h dtype.h error.h metrics.h reader.h safetensors.h) \
                  $(addprefix codec/,hctenc.h appender.h dct.h encoder.h)
MAN := $(wildcard writer/*.[1-8] fs/*.[1-8])

$(B)/libhct.pc: REQUIRES := $(CODEC_PKGS)
$(B)/libhctenc.pc: REQUIRES := $(FFTW_PKGS) $(CODEC_PKGS)
$(B)/%.pc: codec/%.pc.in codec/hct.h Makefile FORCE
	@mkdir -p $(@D)
	@sed -e 's|@prefix@|$(PREFIX)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|' \
		-e 's|@version@|$(VERSION)|; s|@requires@|$(REQUIRES)|; s|@lapack_libs@|$(LAPACK_LIBS)|' $< >$@

install: all $(B)/libhct.pc $(B)/libhctenc.pc ## programs, libraries, manual pages ... to PREFIX (/usr/local)
	$(Q)install -d $(addprefix '$(DESTDIR)',$(bindir) $(libdir)/pkgconfig $(includedir)/hct $(bashcompdir) $(zshcompdir))
	$(Q)install -m 755 $(PROGRAMS) '$(DESTDIR)$(bindir)'
	$(Q)install -m 644 $(filter %.a,$(LIBS)) '$(DESTDIR)$(libdir)'
	$(Q)cd '$(DESTDIR)$(libdir)' && for so in libhct.so libhctenc.so; do \
		install -m 755 '$(abspath $(B))'/$$so $$so.$(VERSION) && \
		ln -sf $$so.$(VERSION) $$so.$(SOVERSION) && ln -sf $$so.$(SOVERSION) $$so || exit 1; done
	$(Q)install -m 644 $(B)/libhct.pc $(B)/libhctenc.pc '$(DESTDIR)$(libdir)/pkgconfig'
	$(Q)install -m 644 $(PUBLIC_HEADERS) '$(DESTDIR)$(includedir)/hct'
	$(Q)if [ '$(PLUGIN)' ]; then install -m 755 $(PLUGIN) '$(DESTDIR)$(libdir)' && \
		sed 's|"codec/error.h"|"error.h"|' gpu/hct_gpu.h >'$(DESTDIR)$(includedir)/hct/hct_gpu.h'; fi
	$(Q)for page in $(MAN); do install -D -m 644 $$page "$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}"; done
	$(Q)for p in mkhct hctfs hct; do install -m 644 contrib/completion.bash "$(DESTDIR)$(bashcompdir)/$$p"; done
	$(Q)install -m 644 contrib/completion.zsh '$(DESTDIR)$(zshcompdir)/_hctfs'

uninstall: ## removes what install put there
	$(Q)rm -f $(patsubst $(B)/%,'$(DESTDIR)$(bindir)'/%,$(PROGRAMS)) '$(DESTDIR)$(zshcompdir)/_hctfs'
	$(Q)for lib in libhct libhctenc; do rm -f '$(DESTDIR)$(libdir)'/$$lib.a '$(DESTDIR)$(libdir)'/$$lib.so* \
		'$(DESTDIR)$(libdir)'/pkgconfig/$$lib.pc; done
	$(Q)rm -f '$(DESTDIR)$(libdir)/libhct_cuda.so'
	$(Q)rm -rf '$(DESTDIR)$(includedir)/hct'
	$(Q)for page in $(MAN); do rm -f "$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}"; done
	$(Q)for p in mkhct hctfs hct; do rm -f "$(DESTDIR)$(bashcompdir)/$$p"; done

clean: ## removes what was built; the Python environments and the model stay
	rm -rf $(PROGRAMS) $(LIBS) $(B)/libhct_cuda.so $(BENCH_BIN) $(addprefix $(B)/,obj tests sanitize fuzz quickstart libhct.pc libhctenc.pc flags)

distclean: ## removes build/ as a whole
	rm -rf build $(B)

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r goal text; do \
		printf 'make %-14s %s\n' "$$goal" "$$text"; done

FORCE:
.PHONY: all unit e2e crash loaders sanitize fuzz run-fuzz lint setup check check-loaders quickstart bench \
        install uninstall clean distclean help FORCE
.SECONDARY:
.DELETE_ON_ERROR:
-include $(patsubst %.o,%.d,$(call obj,$(CODEC_SRC) $(ENCODER_SRC) $(FS_SRC) $(HCTFS_SRC) $(HCT_SRC) $(WRITER_SRC) \
         writer/mkhct.c $(UNIT_SRC) $(GPU_TEST) $(FUZZ_SRC) $(BENCH_SRC))) \
         $(EMULATED_OBJ:.o=.d) $(patsubst %,$(B)/obj/%.d,$(GPU_SRC))
