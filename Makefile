# make venv      only install: .venv with the pinned packages
# make summary   measure the default study and write results/summary.md and report.html
# make test      every check, and every test but the slow ones, some at a time
# make test-slow the slow tests: minimal rebuilds, long faults, engine builds, the browser
# make kernels   the tests of the fused kernels, with Triton
# make sanitize  on a GPU: the fused kernels under each tool of compute-sanitizer; needs PyTorch for CUDA and pytest alone
# Each makes .venv first and installs the pinned packages: the GPU's where there is an NVIDIA driver.
# make kit       the project and its packages in parts, for a host without a network (docs/offline.md)
# make bring     on such a host: its results in parts, to be carried home
# make unpack    at home: PARTS=FOLDER of what was brought

PYTHON ?= python3
# Graphs and plots are made side by side; whatever is timed runs alone.
CORES  ?= $(shell nproc 2>/dev/null || echo 1)
KIND   ?= $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)

VENV := .venv
BIN  := $(CURDIR)/$(VENV)/bin
PIP  := $(BIN)/pip --disable-pip-version-check install --quiet
export PATH := $(BIN):$(PATH)

venv: $(VENV)/$(KIND)

summary: $(VENV)/$(KIND)
	snakemake --cores $(CORES) --quiet reason host -- results/summary.md results/report.html
	@echo "Done: results/summary.md, results/report.html"

# Images of containers often forbid Python to keep bytecode: each of the tests' processes would compile what it imports.
test test-slow unit: export PYTHONDONTWRITEBYTECODE :=
# One more worker than cores: a sixth of the time a worker waits for a process that it started.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n + 1 : 4)))
# The few files with tests of a mark: with all others, collecting them takes longer than running them.
marked = $(shell grep -rlE --include='*.py' 'mark\.$(1)\b' tests)

test: $(VENV)/$(KIND) $(VENV)/dev
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	snakemake --lint
	pytest -n $(WORKERS) --dist loadfile --durations 15 -m "not timing and not slow"
	pytest -m "timing and not slow" $(call marked,timing)

# Tests of one file share a whole study, made anew by each worker that takes one of them. Workers begin at the head of
# their third of the list, and steal from the ends: the dearest stands first, and stays with one worker.
DEAREST := tests/workflow/test_generation.py

test-slow: $(VENV)/$(KIND) $(VENV)/dev $(VENV)/serving
	pytest -n $(WORKERS) --dist worksteal --durations 15 -m "slow and not timing" $(DEAREST) $(call marked,slow)
	pytest -m "slow and timing" $(call marked,timing)

unit: $(VENV)/$(KIND) $(VENV)/dev
	pytest tests/unit

# Once in Triton's interpreter, once compiled for Hopper.
kernels: export PYTHONPATH := $(CURDIR)/$(VENV)/kernels
kernels: $(VENV)/$(KIND) $(VENV)/dev $(VENV)/kernels
	TRITON_INTERPRET=1 pytest -n $(WORKERS) --dist worksteal tests/unit/kernels
	pytest -n $(WORKERS) --dist worksteal tests/unit/kernels

# Each tensor an allocation of its own: what lies beyond one is then no other's memory.
TOOLS := memcheck initcheck racecheck synccheck
sanitize: export PYTORCH_NO_CUDA_MEMORY_CACHING := 1
sanitize:
	set -e; for tool in $(TOOLS); do compute-sanitizer --tool $$tool --error-exitcode 9 --target-processes all \
		$(PYTHON) -m pytest -q -p no:cacheprovider tests/gpu/test_fused_kernels.py; done

# Packages of which vLLM needs other versions than the rest; all others are those of gpu.txt.
VLLM_DIFFERS := onnx|protobuf|numpy|onnxruntime-gpu|nvidia-.*|cuda-.*

# Of the servers' packages: those that need other versions than the rest, those of which the pipeline's version does although
# a server's package asks for an older one, and those that a server takes from the pipeline.
SERVING_DIFFERS := protobuf
SERVING_OVERRIDES := numpy|ml-dtypes|greenlet
SERVING_LACKS := numpy ml-dtypes pandas

# requirements/*.txt from *.in and envs/*.yaml from these, after a change of a version
lock: $(VENV)/$(KIND)
	$(PIP) uv
	cd requirements && for kind in cpu gpu; do \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q $$kind.in -o $$kind.txt; done
	cd requirements && for kind in dev clusters kernels; do \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q $$kind.in -c cpu.txt -o $$kind.txt; done
	cd requirements && sed -nE 's/^([a-z0-9._-]+==[^\\]*) \\$$/\1/p' gpu.txt | grep -vE '^($(VLLM_DIFFERS))==' | \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q vllm.in -c - -o vllm.txt
	cd requirements && pins=$$(sed -nE 's/^([a-z0-9._-]+==[^\\]*) \\$$/\1/p' cpu.txt | grep -vE '^($(SERVING_DIFFERS))==') && \
		echo "$$pins" | grep -E '^($(SERVING_OVERRIDES))==' | cut -d';' -f1 > serving.overrides && \
		echo "$$pins" | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q serving.in -c - \
		--override serving.overrides $(addprefix --no-emit-package ,$(SERVING_LACKS)) -o serving.txt && rm serving.overrides
	python requirements/environments.py

$(VENV)/$(KIND): requirements/$(KIND).txt requirements/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON")'
	@echo "Installing the $(KIND) packages into $(VENV) (once; a minute or two)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/$(KIND).txt
	grep -q '^torch==' requirements/$(KIND).txt || $(PIP) -r requirements/torch.txt
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/$(KIND)
	$(PIP) --require-hashes -r requirements/dev.txt
	touch $@

# For tests/workflow/test_slurm.py alone: each start of Snakemake that finds these plugins takes half a second longer.
$(VENV)/clusters: requirements/clusters.in $(VENV)/$(KIND)
	$(PIP) --target $@ --no-deps --upgrade -r requirements/clusters.in
	touch $@

# Servers and what they need, apart from the pipeline's packages: a server's Python sees both (docs/development.md).
$(VENV)/serving: requirements/serving.txt $(VENV)/$(KIND)
	$(PIP) --target $@ --no-deps --upgrade --require-hashes -r requirements/serving.txt
	touch $@

# Triton, which only a build of PyTorch for CUDA brings: half a gigabyte that nothing else here needs.
$(VENV)/kernels: requirements/kernels.txt $(VENV)/$(KIND)
	$(PIP) --target $@ --no-deps --upgrade --require-hashes -r requirements/kernels.txt
	touch $@

# Options of what follows count on the command line only: some shells export HOST or MACHINE.
FOR :=
MACHINE :=
GLIBC :=
HOST :=
TORCH :=
NSYS :=
EXCLUDE :=
SERVING :=
CHANGES :=
PART_MB :=
TO :=
STUDY :=
EVERYTHING :=
PARTS :=
REPLACE :=

# A path as one word of the shell, whatever it holds
quoted = '$(subst ','\'',$(1))'

kit:
	$(PYTHON) workflow_scripts/pack_kit.py --kind $(KIND) $(if $(FOR),--python $(FOR)) $(if $(MACHINE),--machine $(MACHINE)) \
		$(if $(GLIBC),--glibc $(GLIBC)) $(if $(HOST),--host $(call quoted,$(HOST))) $(if $(TORCH),--torch $(TORCH)) \
		$(if $(EXCLUDE),--exclude $(call quoted,$(EXCLUDE))) $(if $(SERVING),--serving) $(if $(NSYS),--nsys $(call quoted,$(NSYS))) $(if $(CHANGES),--changes $(CHANGES)) \
		$(if $(PART_MB),--part-mb $(PART_MB)) $(if $(TO),--output-dir $(call quoted,$(TO)))

bring:
	$(PYTHON) workflow_scripts/pack_results.py $(if $(STUDY),--study $(call quoted,$(STUDY))) $(if $(EVERYTHING),--everything) \
		$(if $(PART_MB),--part-mb $(PART_MB)) $(if $(TO),--output-dir $(call quoted,$(TO)))

unpack:
	@$(if $(PARTS),,echo "error: name the folder of the parts: make unpack PARTS=FOLDER" >&2; exit 1)
	$(PYTHON) workflow_scripts/unpack_results.py $(call quoted,$(PARTS)) $(if $(TO),--to $(call quoted,$(TO))) $(if $(REPLACE),--replace)

clean:
	rm -rf results/* .snakemake
	git checkout -- results

.PHONY: venv summary test test-slow unit kernels sanitize lock kit bring unpack clean
