# Recommendation lab: `make` lists the targets.
# Variables: DATASET=<known name or path>, PARAMS=<file>, ENGINE=<pandas or spark>, PY=<python> (use an environment of
# your own, conda say).

DATASET ?= ml-100k
ENGINE ?= pandas
# Names are data: neither Make nor a shell may evaluate what stands in them. Recipes read them from the environment. What
# begins like an option is a file.
override DATASET := $(if $(filter -%,$(firstword $(value DATASET))),./)$(value DATASET)
override PARAMS := $(if $(filter -%,$(firstword $(value PARAMS))),./)$(value PARAMS)
override ENGINE := $(value ENGINE)
export DATASET PARAMS ENGINE MAKE
quoted = '$(subst ','\'',$(1))'

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    := .venv
ifeq ($(origin PY),undefined)
PY      := $(VENV)/bin/python
READY   := $(VENV)/.ready
endif
# PyTorch's own index has a build for Linux without CUDA, which spares 3 GB and is not on PyPI. Who sets PIP_FIND_LINKS
# says where that wheel is to be had instead.
TORCH   ?= https://download.pytorch.org/whl/cpu
export PIP_FIND_LINKS ?= $(TORCH)/torch/
# One thread a process: two fight over two cores, and results stay the same bit by bit.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
# Where pyspark is installed, pandera imports it, and it warns of pandas 3, with which all that is used here was tested.
export PYTHONWARNINGS ?= ignore:PySpark does not yet fully support pandas:FutureWarning

# ENGINE is handed on here by name, because older Makes export nothing to $(shell).
ASK      := ENGINE=$(call quoted,$(ENGINE))
ifneq ($(words $(ENGINE))$(filter-out pandas spark,$(ENGINE)),1)
$(error ENGINE is '$(ENGINE)'; it must be pandas or spark)
endif
# The name of the run's folders, then each step with those it needs (07_evaluation:03_popularity:04_als ...).
SEQUENCE := $(shell mkdir -p outputs; PYTHONDONTWRITEBYTECODE=1 $(ASK) $(PYTHON) -m recsys_lib.run.steps words $(call quoted,$(DATASET)))
NAME     := $(firstword $(SEQUENCE))
NEEDS    := $(wordlist 2,99,$(SEQUENCE))
ifeq ($(NEEDS),)
$(error recsys_lib.run.steps failed: is $(PYTHON) a Python of 3.11 or newer?)
endif
ASKED    := $(firstword $(MAKECMDGOALS))
# Where there is no data set of this name, Make says so at once, before anything else is started.
ifneq ($(filter run dag readme demo site api mlflow rollback tune studies scale-study bench-api 0%,$(ASKED)),)
REFUSED  := $(shell PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m recsys_lib.run.steps refusal $(call quoted,$(DATASET)))
ifneq ($(REFUSED),)
$(error $(REFUSED))
endif
endif
STEPS    := $(foreach need,$(NEEDS),$(firstword $(subst :, ,$(need))))
DONE     := outputs/$(NAME)/notebooks
PACKAGE  := $(wildcard notebooks/*.py) $(shell find recsys_lib -name '*.py' -not -path '*/tests/*' -not -path '*/benchmarks/*')
STAMPS   := $(STEPS:%=outputs/$(NAME)/params/%.json)
EXECUTED := $(STEPS:%=$(DONE)/%.ipynb)
REPORT   := reports/$(NAME)/index.html

.DEFAULT_GOAL := help
.PHONY: help setup s3-setup scale-setup lock run dag lab demo site api mlflow rollback tune canonical studies scale-study published neural-study chaos bench bench-scale bench-demo bench-api readme test audit lint format clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sort | sed -E 's/^([a-z0-9-]+):[^#]*## */  make \1\t/' | expand -t 20
	@echo "  make 00 ... 09    one notebook and what it needs"
	@printf 'Variables: DATASET=%s PARAMS=%s ENGINE=%s\n' "$$DATASET" "$$PARAMS" "$$ENGINE"

# Every file is checked by its hash; the lock is complete, so pip is to add nothing. A build would fetch what has no hash.
# The lock's own pip comes first, because older ones say nothing while they unpack, which takes longest.
PIP     := -m pip install --disable-pip-version-check --no-deps --only-binary :all: --require-hashes
INSTALL  = @echo "installing requirements.lock, which takes some minutes"; \
  sed -n '/^pip==/,/[^\\]$$/p' requirements.lock > outputs/.pip.txt && $(1) $(PIP) -r outputs/.pip.txt \
  && $(1) $(PIP) -r requirements.lock && PYTHONWARNINGS=ignore $(1) -m pip install --quiet --no-deps --no-build-isolation -e . \
  || { echo "setup failed, see above; README.md says which machines the lock is for and where PyTorch comes from" >&2; exit 1; }

setup: $(READY)  ## .venv from requirements.lock (done by the other targets when needed), or the same into PY
	$(if $(READY),,$(call INSTALL,$(PY)))

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(call INSTALL,$(VENV)/bin/python)
	touch $@

EXTRAS  ?= s3
s3-setup: $(READY)  ## what s3:// addresses need, in the versions of pyproject.toml
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[$(EXTRAS)]'

scale-setup: $(READY)  ## pyspark for ENGINE=spark; says how to get Java where there is none
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[scale]'
	@$(PY) -m recsys_lib.scale.spark

UV      := uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: $(READY)  ## requirements.lock from environment.yml, for Python 3.11 to 3.13; NEWEST=--upgrade: not as it was
	$(PY) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	cp requirements.lock outputs/.lock
	sed -n 's/^      - //p' environment.yml | $(PY) -m $(UV) $(NEWEST) --no-emit-index-url --no-emit-package torch \
	  --find-links $(TORCH)/torch/ --output-file outputs/.lock > /dev/null
	grep -o 'torch==[^ ]*' environment.yml | $(PY) -m $(UV) --no-emit-index-url --no-deps --index-url $(TORCH) >> outputs/.lock
	mv outputs/.lock requirements.lock

# A step's parameters in a file of its own, touched only when they change: Make then re-runs that step and what
# comes after it. Once the environment is there, they and the data set's name are checked whenever Make starts on the
# sequence.
ifneq ($(filter run dag readme 0%,$(MAKECMDGOALS)),)
ifneq ($(or $(if $(READY),$(wildcard $(READY)),yes)),)
STAMPED := $(shell $(ASK) $(PY) -m recsys_lib.run.parameters $(call quoted,$(DATASET)) $(call quoted,$(PARAMS)) 2>&1)
ifneq ($(STAMPED),)
$(error $(STAMPED))
endif
ifeq ($(ENGINE),spark)
LACKING := $(shell $(PY) -m recsys_lib.scale.spark)
ifneq ($(LACKING),)
$(error $(LACKING))
endif
endif
endif
endif
# What others have pushed to RECSYS_REMOTE is here before Make looks; the steps pull by themselves.
ifneq ($(and $(value RECSYS_REMOTE),$(filter demo site tune studies rollback,$(ASKED))),)
PULLED := $(shell $(PY) -m recsys_lib.run.remote pull $(call quoted,$(DATASET)) 2>&1 >/dev/null)
ifneq ($(PULLED),)
$(error $(PULLED))
endif
endif
# What works on a run says at once where there is none.
ifneq ($(filter demo site tune studies scale-study rollback,$(ASKED)),)
ifeq ($(wildcard data/processed/$(NAME)/manifest.json),)
$(error nothing is there of $(DATASET) yet: `make run` with this DATASET makes it)
endif
endif
$(STAMPS): | $(READY)
	@[ "$$ENGINE" != spark ] || $(PY) -m recsys_lib.scale.spark
	@$(PY) -m recsys_lib.run.parameters "$$DATASET" "$$PARAMS"

# An executed notebook is the target of its source, its parameters, the package, the modules beside it and the notebooks
# before it. It is written whole or not at all, and may be what another Make has just written: none is ever deleted.
.PRECIOUS: $(EXECUTED)
$(EXECUTED): $(DONE)/%.ipynb: notebooks/%.ipynb outputs/$(NAME)/params/%.json $(PACKAGE) | $(READY)
	@$(PY) -m recsys_lib.run.runner $< --dataset "$$DATASET" --params "$$PARAMS"

define step
$(DONE)/$(firstword $(1)).ipynb: $(patsubst %,$(DONE)/%.ipynb,$(wordlist 2,99,$(1)))
.PHONY: $(firstword $(subst _, ,$(firstword $(1))))
$(firstword $(subst _, ,$(firstword $(1)))): $(DONE)/$(firstword $(1)).ipynb
endef
$(foreach need,$(NEEDS),$(eval $(call step,$(subst :, ,$(need)))))

$(REPORT): $(EXECUTED) $(wildcard recsys_lib/run/templates/*)
	@$(PY) -m recsys_lib.run.report write "$$DATASET"

# Notebooks of a whole run write down what they did; it is sent to MLflow in one go (a notebook made alone sends its own).
run: export RECSYS_TRACKING := later
run: $(REPORT)  ## get the data, execute the whole sequence, write the reports
	@$(PY) -m recsys_lib.run.tracking send "$$DATASET" || true
	@$(PY) -m recsys_lib.run.report show "$$DATASET"

dag: $(READY)  ## the steps, what each reads and writes, which are up to date
	@$(PYTHON) -m recsys_lib.run.steps overview "$$DATASET"

demo: $(READY)  ## the Voilà application, on what `make run` made
	@$(PY) -m recsys_lib.app "$$DATASET"

lab: $(READY)  ## JupyterLab
	$(PY) -m jupyterlab --ServerApp.default_url=/lab/tree/notebooks

api: $(READY)  ## the REST service on this machine's port 8000, on what `make run` made
	$(PY) -m recsys_lib.api "$$DATASET"

site: $(READY)  ## the report and lists for a sample of users as static pages, opened from the disk
	$(PY) -m recsys_lib.app.site "$$DATASET"

mlflow: $(READY)  ## MLflow's pages with all runs and the registry, for this machine alone
	$(PY) -m recsys_lib.run.tracking ui "$$DATASET"

rollback: $(READY)  ## give the title of champion back to the version that had it before
	@$(PY) -m recsys_lib.run.champion "$$DATASET" rollback
	@$(PY) -m recsys_lib.run.tracking send "$$DATASET" || true

tune: $(READY)  ## search the models' parameters again, on validation only; writes notebooks/params/<dataset>.yaml
	$(PY) -m recsys_lib.run.tuning "$$DATASET"

canonical: $(READY)  ## ratings on the five published folds of ml-100k, times given and times never seen
	$(PY) -W ignore notebooks/studies/canonical.py

# Two of them rebuild a public project, on the data set that it used.
studies: $(READY) $(if $(filter ml-100k,$(NAME)),canonical)  ## all studies, on what `make run` made; numbers into reports/<dataset>/studies
	@for study in cold_start other_splits return_visits later_visits sampled_metrics splits seeds; do \
	  $(PY) -m recsys_lib.run.runner notebooks/studies/$$study.ipynb --dataset "$$DATASET" --params "$$PARAMS" || exit 1; done
	@for study in eighteen_people leakage_audit; do \
	  $(PY) -m recsys_lib.run.runner notebooks/studies/$$study.ipynb --dataset ml-latest-small || exit 1; done
	@$(PY) -m recsys_lib.run.report write "$$DATASET"

scale-study: $(READY)  ## what Spark costs and where it begins to pay, on what `make run` made; needs `make scale-setup`
	@$(PY) -m recsys_lib.run.runner notebooks/studies/spark.ipynb --dataset "$$DATASET" --params "$$PARAMS"

published: $(READY)  ## the lab in published tables: ml-100k and five sequence sets
	@for set in ml-100k LastFM Beauty Toys_and_Games Sports_and_Outdoors Yelp; do \
	  $(PY) -m recsys_lib.run.runner notebooks/studies/published_tables.ipynb --dataset $$set || exit 1; done

chaos: $(READY)  ## kills at random moments of a small run, and whether its results stay the same
	$(PY) -m recsys_lib.benchmarks.chaos

neural-study: $(READY)  ## what each part of the neural models is worth, on validation
	$(PY) notebooks/studies/neural_study.py

bench: $(READY)  ## speed: reading, metrics
	$(PY) -m recsys_lib.benchmarks.reading
	$(PY) -m recsys_lib.benchmarks.metrics

bench-scale: $(READY)  ## how time and memory of each stage grow with the data (SIZES="1e6 1e7", say)
	$(PY) -m recsys_lib.benchmarks.scale $(SIZES)

bench-demo: $(READY)  ## speed and memory of the application
	$(PY) -m recsys_lib.benchmarks.demo

bench-api: $(READY)  ## the REST service under load, beside a bare endpoint; a new champion in the middle
	$(PY) -m recsys_lib.benchmarks.api "$$DATASET"

readme: run  ## put the leaderboard of the report into the README
	@$(PY) -m recsys_lib.run.report readme "$$DATASET"

# Unit tests and doctests; then every notebook in its order, on made data with the small parameters of
# notebooks/params/test.yaml; then the application in a browser.
test: $(READY)  ## all tests
	$(PY) -m pytest -q -n 2 --dist loadgroup recsys_lib
	$(PY) -m recsys_lib.tests.notebooks
	$(PY) -m pytest -q recsys_lib/tests/browser -o addopts=-ra

# --strict: what the advisory service does not know fails, too, so that silence is not taken for safety.
audit: $(READY)  ## known vulnerabilities of the packages in the lock; asks PyPI's advisories
	sed 's/+cpu//' requirements.lock > outputs/.audit.txt
	$(PY) -m pip_audit --strict --require-hashes --disable-pip --requirement outputs/.audit.txt

lint: $(READY)  ## style of the package and the notebooks, and that these are stripped of outputs
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" --verify notebooks/*.ipynb notebooks/studies/*.ipynb

format: $(READY)  ## bring the package and the notebooks into that style
	$(PY) -m nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" notebooks/*.ipynb notebooks/studies/*.ipynb
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove what runs made; data/raw and .venv stay
	rm -rf outputs/* data/processed
