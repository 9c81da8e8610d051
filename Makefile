# healthgpt-server. `make help` lists the targets; CONTRIBUTING.md explains the variants.
#   make                                  optimised build: build/healthgpt, build/healthgptd
#   make SANITIZE=address,undefined       the same programs under sanitizers (also: thread)
MAKEFLAGS += -r --no-print-directory
.DEFAULT_GOAL := all

PREFIX ?= /usr/local
IMAGE ?=
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZE ?=
comma := ,
VARIANT := $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)
OUT := build/$(VARIANT)
OPT := $(if $(SANITIZE),-O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=all,-O3)

PKGS := libmicrohttpd jansson libpng libjpeg
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS = $(shell pkg-config --libs $(PKGS)) -lunistring -lm -lpthread -ldl
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -I. $(OPT) -g -fno-math-errno -fno-trapping-math -ffp-contract=off \
  -fstack-protector-strong -fPIE -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wvla \
  -Wformat=2 -Werror=implicit-function-declaration $(if $(WERROR),-Werror) -MMD -MP $(CFLAGS)
LDFLAGS_ALL := -pie -rdynamic -Wl,-z,relro,-z,now,--as-needed $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)

LIB_SRC := $(sort $(shell find common kernels model server -name '*.c' ! -path server/main.c ! -path server/git_commit.c ! -path 'kernels/cuda/*'))
CLI_SRC := $(sort $(wildcard tools/healthgpt/*.c)) tools/bench/peak.c
TEST_SRC := $(sort $(shell find tests -name 'test_*.c' ! -path 'tests/simt/*' 2>/dev/null))
TEST_LIB_SRC := $(sort $(shell find tests -name '*.c' ! -name 'test_*.c' ! -path 'tests/fuzz/*' ! -path 'tests/simt/*' \
  ! -path 'tests/preload/*' ! -path 'tests/http/*' 2>/dev/null))
obj = $(patsubst %.c,$(OUT)/%.o,$(1))
LIB := $(OUT)/libhealthgpt.a
PAGE := $(OUT)/server/page_data
OPENAPI := $(OUT)/server/openapi_data
# The cuda backend as a shared object, by g++ on the emulation of tests/simt or by nvcc; both hold their own copy of
# the few files of common/ that they need.
CUDA_C := $(sort $(wildcard kernels/cuda/*.c)) kernels/check.c kernels/quantise.c common/status.c common/log.c common/utf8.c \
  common/half.c common/region.c
CUDA_CU := $(sort $(wildcard kernels/cuda/*.cu))
SIMT_SRC := $(sort $(wildcard tests/simt/*.cpp))
SIMT := $(OUT)/libhealthgpt_simt.so
CUDA := build/libhealthgpt_cuda.so
CUDA_ARCHS := 80 86 89 90 120
GPU_ARCHS := $(if $(filter command,$(firstword $(origin CUDA_ARCHS))),$(CUDA_ARCHS),90)
GPU_PACK := build/gpu
BACKEND ?= cuda
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),/usr/local/cuda/bin/nvcc)
CXX ?= g++
# One thread in all, but with stacks of its own, which ThreadSanitizer cannot follow: not instrumented there.
SIMT_SANITIZE := $(filter-out thread,$(SANITIZE))
SIMT_FLAGS = -DHG_SIMT -DHG_CUDA_ARCHS='"sm_90, emulated"' -I. -Itests/simt $(if $(filter thread,$(SANITIZE)),-O2,$(OPT)) -g -fPIC -ffp-contract=off -fno-strict-aliasing -Wall -Wextra $(if $(WERROR),-Werror) -MMD -MP
TESTS := $(patsubst %.c,$(OUT)/%,$(TEST_SRC)) $(OUT)/tests/simt/test_simt $(OUT)/tests/simt/test_streams
PROGRAMS := $(OUT)/healthgpt $(OUT)/healthgptd $(OUT)/healthgpt-load
LOAD_SRC := $(sort $(filter-out tools/load/main.c,$(wildcard tools/load/*.c)))

.PHONY: parity-live parity-venv
.PHONY: all cuda gpu-pack gpu-check form deps clients demo run test full-size test-simt-full test-asan test-tsan bench load-check tokenizer-check golden fuzz fuzz-http format format-check lint layers \
  schema install clean help report programs check-deps

all: programs ## build build/healthgpt, build/healthgptd and build/healthgpt-load
	@cp -f $(PROGRAMS) build/

programs: check-deps report $(PROGRAMS)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

report:
	@tools/build/report.sh "$(CC)" "$(VARIANT)" $(PKGS)

deps: ## install the Debian/Ubuntu packages that the build needs (root or sudo)
	@tools/build/deps.sh install

check-deps:
	@tools/build/deps.sh check

cuda: $(CUDA) ## build build/libhealthgpt_cuda.so with nvcc (NVCC=), found by the programs beside it

gpu-pack: check-deps ## build/gpu: all that a machine with a GPU needs for gpu-check (CUDA_ARCHS=, default 90)
	@$(MAKE) -s programs test-programs
	@$(MAKE) -s $(CUDA) build/cuda/gpu-peak $(if $(wildcard $(CUDA_HOME)/include/cublasLt.h),build/cuda/gpu-gemm) \
	  CUDA_ARCHS="$(GPU_ARCHS)"
	@python3 tools/gpu/pack.py $(OUT) $(GPU_PACK)

gpu-check: ## check and measure the cuda backend with build/gpu (ARGS=); BACKEND=simt: rehearse without a GPU
ifeq ($(BACKEND),simt)
	@$(MAKE) -s programs test-programs
else
	@[ -d $(GPU_PACK) ] || $(MAKE) -s gpu-pack
endif
	@python3 tools/gpu/check.py --backend $(BACKEND) $(if $(RESULTS),--results "$(RESULTS)") $(ARGS)

form: ## check registers, spills and instructions of the CUDA kernels; needs nvcc, no GPU
	@python3 tools/build/form.py --nvcc "$(NVCC)" $(CUDA_ARCHS)

clients: ## build/venv-clients (openai, playwright, schemathesis from PyPI) and chromium, for the checks that need them
	@tools/build/clients.sh

demo: check-deps ## build, draw a chest X-ray, ask about it (and about IMAGE=file)
	@$(MAKE) -s all
	@tools/demo/demo.sh build "$(IMAGE)"

run: check-deps ## build and start the daemon on 127.0.0.1:8080 with the demo model
	@$(MAKE) -s all
	build/healthgptd

.PHONY: eval eval-venv
eval: check-deps eval-venv ## the evaluation harness on the demo model and the data of HG_SHARED (tools/eval/README.md; ARGS="--limit 40")
	@$(MAKE) -s all
	@py=build/venv-eval/bin/python; [ -x $$py ] || py=python3; $$py tools/eval/demo.py $(ARGS)

eval-venv: ## build/venv-eval: the packages that BLEU, ROUGE, PSNR and SSIM need (PyPI, 360 MB)
	@tools/eval/venv.sh

test: check-deps ## build and run every test; ends with "N passed, N failed, N skipped"
	@$(MAKE) -s all test-programs
	@python3 tests/run.py $(OUT)

test-simt-full: check-deps ## the whole sweep of shapes on the emulated CUDA kernels, three orders of threads
	@$(MAKE) -s programs test-programs
	@python3 tests/full.py $(OUT)

test-asan: check-deps ## the tests under AddressSanitizer and UBSan
	@$(MAKE) -s programs test-programs SANITIZE=address,undefined
	@python3 tests/run.py build/address-undefined

test-tsan: check-deps ## the threaded tests under ThreadSanitizer
	@$(MAKE) -s programs test-programs SANITIZE=thread
	@python3 tests/run.py build/thread

.PHONY: test-programs
test-programs: check-deps $(SIMT) $(TESTS) $(OUT)/kernel-bench $(OUT)/random-model $(OUT)/full-size-fill $(OUT)/greedy $(OUT)/forward $(OUT)/healthgptd-faults $(OUT)/h1mut \
  $(OUT)/preload/fail_malloc.so

bench: all $(OUT)/kernel-bench $(OUT)/random-model ## model and kernel speed, as shares of what this machine can do
	@python3 tools/bench/bench.py $(OUT)

.PHONY: bench-beside
bench-beside: all $(OUT)/kernel-bench ## ours beside another engine's bench in turns: MODEL=DIR PEER='llama-bench ... -o json' (ARGS=)
	@python3 tools/bench/beside.py $(OUT) --model '$(MODEL)' --peer '$(PEER)' $(ARGS)

full-size: all $(OUT)/full-size-fill ## random models as the published ones are laid out, 11 to 31 GB: written, loaded, checked (ARGS=)
	@python3 tools/full_size/check.py $(OUT) $(ARGS)

load-check: check-deps ## what the engine promises under load, measured: docs/load.md (ARGS="--only NAME")
	@$(MAKE) -s all test-programs
	@python3 tests/load/main.py $(OUT) $(ARGS)

tokenizer-check: all ## compare every tokenizer with transformers, tokenizers and tiktoken (PyPI): docs/tokenizers.md (ARGS="--count N")
	@"$(or $(HG_TOKENIZERS_PYTHON),python3)" tests/tokenizers/check.py $(OUT) $(ARGS)

parity-live: check-deps ## logits and tokens beside transformers' own modules (build/venv-parity or HG_PARITY_PYTHON); ARGS="--seed N"
	@$(MAKE) -s $(OUT)/forward
	@python3 tests/parity/live/main.py $(OUT) $(ARGS)

parity-venv: ## build/venv-parity: torch and the two pinned versions of transformers from PyPI, for parity-live
	@tests/parity/live/venv.sh build/venv-parity

golden: ## rebuild tests/golden with PyTorch in build/venv (minutes, downloads PyTorch)
	@tools/oracle/golden.sh build/venv

fuzz: ## build the libFuzzer targets with clang into build/fuzz
	@tools/build/fuzz.sh

fuzz-http: check-deps ## mutated requests against the daemon under AddressSanitizer and UBSan (COUNT=150000, SEED=)
	@$(MAKE) -s SANITIZE=address,undefined programs build/address-undefined/healthgptd-faults build/address-undefined/h1mut
	@python3 tests/http/fuzz.py build/address-undefined $(or $(COUNT),150000) $(SEED)

C_FILES = $(shell git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')
format: ## reformat every source file in place
	@clang-format -i $(C_FILES)

format-check: ## fail when a source file is not formatted
	@clang-format --dry-run -Werror $(C_FILES)

lint: ## clang-tidy, and the limits: functions <= 80 lines, files <= 600
	@python3 tools/build/limits.py $(C_FILES)
	@tools/build/tidy.sh $(filter-out tests/%,$(filter %.c,$(C_FILES)))

layers: ## fail when a folder includes what stands to its right
	@tools/build/layers.sh

schema: all ## write config/schema.json from the table in server/config/config.h
	@build/healthgptd --print-schema > build/schema.json && cp build/schema.json config/schema.json

SHARE = $(DESTDIR)$(PREFIX)/share
install: all ## install programs, the CUDA backend if it was built, demo model, cards, manual pages, completions, service files under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/healthgpt/models
	install -m 755 build/healthgpt build/healthgptd $(DESTDIR)$(PREFIX)/bin
	[ ! -f $(CUDA) ] || { install -d $(DESTDIR)$(PREFIX)/lib && install -m 755 $(CUDA) $(DESTDIR)$(PREFIX)/lib; }
	cp -R config/models/demo config/models/*.json $(DESTDIR)$(PREFIX)/share/healthgpt/models/
	cp -R deploy config/default.json config/schema.json $(DESTDIR)$(PREFIX)/share/healthgpt/
	install -d $(SHARE)/man/man1 $(SHARE)/man/man5 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions
	build/healthgptd --man 1 > $(SHARE)/man/man1/healthgptd.1
	build/healthgptd --man 5 > $(SHARE)/man/man5/healthgptd.conf.5
	build/healthgptd --completion bash > $(SHARE)/bash-completion/completions/healthgptd
	build/healthgptd --completion zsh > $(SHARE)/zsh/site-functions/_healthgptd
	chmod 644 $(SHARE)/man/man1/healthgptd.1 $(SHARE)/man/man5/healthgptd.conf.5 \
	  $(SHARE)/bash-completion/completions/healthgptd $(SHARE)/zsh/site-functions/_healthgptd

clean: ## remove build/
	rm -rf build

# ---- rules -----------------------------------------------------------------------------------------
# One object folder per variant. The SIMD files get their instruction sets; the choice between them is
# made at run time. -ffp-contract=off: fused multiply-adds are written out, never invented.
SIMD_avx2 := -mavx2 -mfma -mf16c
SIMD_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 $(SIMD_avx2)

simd_flags = $(if $(findstring /simd_avx2,$(1)),$(SIMD_avx2))$(if $(findstring /simd_avx512,$(1)),$(SIMD_avx512))

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(CFLAGS_ALL) $(PKG_CFLAGS) $(call simd_flags,$<) -c $< -o $@

# The page of GET /, embedded.
$(PAGE).c: tools/build/page.py server/notice.h $(wildcard server/http/page/*)
	@echo "PAGE $@"
	@python3 $< $@

# The schemas of /openapi.json.
$(OPENAPI).c: tools/build/embed.py server/api/openapi_schemas.json
	@echo "EMBED $@"
	@python3 $^ hg_openapi_schemas $@

$(PAGE).o $(OPENAPI).o: %.o: %.c
	@$(CC) $(CFLAGS_ALL) -c $< -o $@

$(LIB): $(call obj,$(LIB_SRC)) $(PAGE).o $(OPENAPI).o
	@rm -f $@
	@ar rcs $@ $^

$(OUT)/healthgptd: $(call obj,server/main.c server/git_commit.c) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

# Of the build, for /version; compiled again when it changes.
$(OUT)/git: FORCE
	@mkdir -p $(@D)
	@git rev-parse --short=12 HEAD > $@.now 2>/dev/null || : > $@.now
	@cmp -s $@.now $@ && rm $@.now || mv $@.now $@
$(OUT)/server/git_commit.o: $(OUT)/git
$(OUT)/server/git_commit.o: CFLAGS_ALL += -DHG_GIT='"$(shell cat $(OUT)/git 2>/dev/null)"'

# The daemon with the fault points of common/fault.h, for tests/e2e/check_faults.py: the files that have some are
# compiled once more; their objects stand before those of the library.
FAULT_SRC := $(shell grep -l 'common/fault.h' $(LIB_SRC)) server/main.c
$(OUT)/faults/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $< (faults)"
	@$(CC) $(CFLAGS_ALL) $(PKG_CFLAGS) -DHG_FAULTS -c $< -o $@

$(OUT)/healthgptd-faults: $(patsubst %.c,$(OUT)/faults/%.o,$(FAULT_SRC)) $(call obj,server/git_commit.c) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/healthgpt: $(call obj,$(CLI_SRC)) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/kernel-bench: $(call obj,$(sort $(wildcard tools/bench/*.c))) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/greedy: $(call obj,tools/gpu/greedy.c) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/forward: $(call obj,tools/oracle/forward.c) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/healthgpt-load: $(call obj,tools/load/main.c $(LOAD_SRC)) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -o $@

$(OUT)/h1mut: $(call obj,$(sort $(wildcard tests/http/*.c)))
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ -o $@

$(OUT)/full-size-fill: $(call obj,tools/full_size/fill.c)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ -lm -o $@

$(OUT)/random-model: $(call obj,$(sort $(wildcard tools/random_model/*.c)))
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ -o $@

$(OUT)/simt/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $< (simt)"
	@$(CC) -std=c11 -D_GNU_SOURCE $(SIMT_FLAGS) -c $< -o $@

$(OUT)/simt/%.o: %.cu
	@mkdir -p $(@D)
	@echo "CXX $< (simt)"
	@$(CXX) -x c++ -std=c++17 $(SIMT_FLAGS) -c $< -o $@

$(OUT)/simt/%.o: %.cpp
	@mkdir -p $(@D)
	@echo "CXX $<"
	@$(CXX) -std=c++17 $(SIMT_FLAGS) -c $< -o $@

$(SIMT): $(patsubst %,$(OUT)/simt/%.o,$(basename $(CUDA_C) $(CUDA_CU) $(SIMT_SRC)))
	@echo "LD $@"
	@$(CXX) -shared -Wl,-z,defs $(if $(SIMT_SANITIZE),-fsanitize=$(SIMT_SANITIZE)) $^ -lm -lpthread -o $@

# One cubin per architecture, and PTX of the last for those to come. The CUDA runtime is inside; the driver's library
# is opened at run time.
CUDA_GENCODE = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
  -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
CUDA_HAS = $(addprefix sm_,$(CUDA_ARCHS)), PTX of the last
STATIC_CXX = -Xcompiler -static-libstdc++,-static-libgcc
CUDA_HOME = $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))

# What was compiled for other architectures is compiled again.
build/cuda/archs: FORCE
	@mkdir -p $(@D)
	@echo "$(CUDA_ARCHS)" | cmp -s - $@ || echo "$(CUDA_ARCHS)" > $@
.PHONY: FORCE
FORCE:

build/cuda/gpu-peak: tools/gpu/peak.cu build/cuda/archs
	@echo "NVCC $<"
	@$(NVCC) -std=c++17 -O3 $(CUDA_GENCODE) -cudart static $(STATIC_CXX) $< -o $@

build/cuda/gpu-gemm: tools/gpu/gemm_shapes.cu build/cuda/archs
	@echo "NVCC $<"
	@$(NVCC) -std=c++17 -O3 $(CUDA_GENCODE) -cudart static $(STATIC_CXX) $< -ldl -o $@

build/cuda/%.o: %.c build/cuda/archs
	@mkdir -p $(@D)
	@echo "CC $< (cuda)"
	@$(CC) -std=c11 -D_GNU_SOURCE -I. -I$(CUDA_HOME)/include -DHG_CUDA_ARCHS='"$(CUDA_HAS)"' -O3 -g -fPIC -ffp-contract=off -Wall -Wextra \
	  $(if $(WERROR),-Werror) -MMD -MP -c $< -o $@

build/cuda/%.o: %.cu build/cuda/archs
	@mkdir -p $(@D)
	@echo "NVCC $<"
	@$(NVCC) -std=c++17 -O3 -I. $(CUDA_GENCODE) -Xcompiler -fPIC,-Wall,-Wextra -MMD -MP -c $< -o $@

$(CUDA): $(patsubst %,build/cuda/%.o,$(basename $(CUDA_C) $(CUDA_CU)))
	@echo "LD $@"
	@$(NVCC) -shared -cudart static $(STATIC_CXX) -Xlinker -z,defs $(CUDA_GENCODE) $^ -lm -lpthread -ldl -o $@

$(OUT)/tests/simt/test_simt $(OUT)/tests/simt/test_streams: %: %.o \
  $(patsubst %,$(OUT)/simt/%.o,$(basename $(SIMT_SRC)) tests/simt/cases common/half)
	@echo "LD $@"
	@$(CXX) $(LDFLAGS_ALL) $^ -lcmocka -lm -o $@

# Put before a daemon by tests/e2e (LD_PRELOAD); never linked. A sanitizer has a malloc of its own, so it is not used there.
$(OUT)/preload/%.so: tests/preload/%.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) -std=c11 -D_GNU_SOURCE -I. -O2 -g -fPIC -shared -Wall -Wextra $(if $(WERROR),-Werror) $< -o $@

$(OUT)/libtest.a: $(call obj,$(TEST_LIB_SRC) $(LOAD_SRC) tools/healthgpt/bench_quant_dist.c)
	@rm -f $@
	@ar rcs $@ $^

$(OUT)/tests/%: $(OUT)/tests/%.o $(OUT)/libtest.a $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_ALL) $^ $(LIBS) -lcmocka -o $@

.SECONDARY:
-include $(shell find $(OUT) build/cuda -name '*.d' 2>/dev/null)
