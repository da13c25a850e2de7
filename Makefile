# hctfs: make, make check, make quickstart.  V=1 shows the commands.

VERSION := $(shell sed -n 's/^\#define HCT_VERSION "\(.*\)"/\1/p' codec/hct.h)
PREFIX  ?= /usr/local
DESTDIR ?=
B       ?= build
CC      ?= cc
CFLAGS  ?= -O3 -g
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wpointer-arith -Wvla
WERROR  ?=
HCT_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIC -fvisibility=default \
              -pthread -I. $(WARN) $(if $(WERROR),-Werror) -MMD -MP

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)';)

PKG := pkg-config
CODEC_PKGS  := libzstd libcjson libxxhash
FUSE_PKGS   := fuse3
WRITER_PKGS := libcrypto
TEST_PKGS   := cmocka

CODEC_SRC  := $(wildcard codec/*.c)
FS_SRC     := $(filter-out fs/hctfs.c fs/hct.c fs/fuse_%.c fs/hct_%.c,$(wildcard fs/*.c))
HCTFS_SRC  := fs/hctfs.c $(wildcard fs/fuse_*.c)
HCT_SRC    := fs/hct.c $(wildcard fs/hct_*.c)
WRITER_SRC := $(filter-out writer/mkhct.c,$(wildcard writer/*.c))
UNIT_SRC   := $(wildcard tests/unit/test_*.c)

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
CODEC_LIBS  = $(shell $(PKG) --libs $(CODEC_PKGS)) -lm -pthread
FUSE_LIBS   = $(shell $(PKG) --libs $(FUSE_PKGS))
WRITER_LIBS = $(shell $(PKG) --libs $(WRITER_PKGS))
TEST_LIBS   = $(shell $(PKG) --libs $(TEST_PKGS))

PROGRAMS := $(B)/mkhct $(B)/hctfs $(B)/hct
LIBS     := $(B)/libhct.a $(B)/libhct.so

all: $(PROGRAMS) $(LIBS)

# A variant that needs more than the baseline instruction set is named for it.
SIMD_avx2   := -mavx2 -mbmi2 -mpopcnt
SIMD_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2 -mbmi2 -mpopcnt
X86 := $(filter x86_64% amd64%,$(shell $(CC) -dumpmachine))
simd_flags = $(if $(X86),$(if $(findstring _avx512.,$(1)),$(SIMD_avx512))$(if $(findstring _avx2.,$(1)),$(SIMD_avx2)))

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(HCT_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(call simd_flags,$<) $(EXTRA_$(subst /,_,$*)) -c -o $@ $<

$(call obj,fs/hctfs.c $(wildcard fs/fuse_*.c)): HCT_CFLAGS += $(shell $(PKG) --cflags $(FUSE_PKGS))

$(B)/libhct.a: $(call obj,$(CODEC_SRC))
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

$(B)/libhct.so: $(call obj,$(CODEC_SRC))
	$(call say,LD,$@)$(CC) -shared -Wl,-soname,libhct.so.0 $(CFLAGS) $(LDFLAGS) -o $@ $^ $(CODEC_LIBS)

$(B)/mkhct: $(call obj,writer/mkhct.c $(WRITER_SRC)) $(B)/libhct.a
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WRITER_LIBS) $(CODEC_LIBS)

$(B)/hctfs: $(call obj,$(HCTFS_SRC) $(FS_SRC)) $(B)/libhct.a
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(CODEC_LIBS)

$(B)/hct: $(call obj,$(HCT_SRC) $(FS_SRC)) $(B)/libhct.a
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(CODEC_LIBS)

# Unit tests: one program for each module, linked with everything but the mains.
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
$(B)/tests/%: $(B)/obj/tests/unit/%.o $(call obj,$(FS_SRC) $(WRITER_SRC)) $(B)/libhct.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) $(WRITER_LIBS) $(CODEC_LIBS)

unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do $$t; done

clean:
	rm -rf $(B)

.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
