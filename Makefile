# Set-up and the main jobs, from a bare machine with Python 3.11, 3.12 or 3.13 and make.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
  $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Empty: PyTorch as the package index has it, on Linux with CUDA. `make TORCH=cpu ...`: without. uv knows where that is.
TORCH ?=
INSTALL := $(BIN)/python -m pip install --quiet $(if $(TORCH),uv && $(BIN)/uv pip install --quiet \
  --python $(BIN)/python --torch-backend $(TORCH))
ifneq ($(and $(TORCH),$(wildcard $(VENV)/.installed)),) # which holds the TORCH that it was made with
ifneq ($(TORCH),$(shell cat $(VENV)/.installed))
$(error $(VENV) has another PyTorch than TORCH=$(TORCH). First: make clean)
endif
endif
# eva imports onnxruntime; newer Linux wheels of it phone home unless this is set before the import.
export ORT_DISABLE_TELEMETRY = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: quickstart leaderboard pictures docs paper-dry-run test test-thorough test-lowest test-newest lint mutants install clean

quickstart: install ## Train and report a probe on the two scans that ship with the project
	env -u DATA_ROOT $(BIN)/eva fit --config eva_configs/quickstart.yaml

# Real CT, our small encoder, random weights and baselines: it shows how the page looks, not how good a model is.
DEMONSTRATION := chance,intensity,random-pyramid,tap-t-3d,tap-t-3d@random
RADIOMICS = $(shell $(BIN)/python -c "import mirp" 2>/dev/null && echo ,radiomics)

leaderboard: install ## A small real sweep on the quickstart's scans, and the finished page
	env -u DATA_ROOT $(BIN)/tapct run -e $(DEMONSTRATION),tap-s-2d@random -t quickstart --results results/demonstration
	env -u DATA_ROOT $(BIN)/tapct run -e $(DEMONSTRATION)$(RADIOMICS) -t quickstart_organs --results results/demonstration
	$(BIN)/tapct leaderboard results/demonstration -o results/demonstration/site
	-@$(BIN)/python -m webbrowser "file://$(CURDIR)/results/demonstration/site/index.html" >/dev/null 2>&1
	@echo "results/demonstration/site/index.html"

pictures: install ## README's pictures, made anew: the demonstration (minutes), an overlay of it, its page in Chromium
	rm -rf results/demonstration
	$(MAKE) leaderboard
	$(BIN)/python -m tools.pictures results/demonstration

docs: $(VENV)/.docs ## The documentation as a site, with every link checked
	$(BIN)/python -m tools.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/docs/index.html; with its search: $(BIN)/python -m http.server -d build/docs"

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

paper-dry-run: install ## The paper's tables as cells: what is done, and what there is to do. No data, no weights
	$(BIN)/tapct run --suite paper --dry-run

test: install ## The default test suite: CPU, no network, minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-thorough: install ## What CI runs on top: more variants, full sizes, several processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'thorough and not slow and not gpu and not network'

test-lowest test-newest: test-%: ## The same with the lowest, or newest, versions that are supported (tapct/tested)
	"$(PYTHON)" -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --constraint tapct/tested/$*.txt --editable '.[test]'
	$(VENV)-$*/bin/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow and not gpu and not network'

lint: install ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed ## The virtual environment, with the pinned versions

$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(SUPPORTED)' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed. Try: make PYTHON=/path/to/python3.12"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	@echo "$(TORCH)" >$@

mutants: install ## Small mistakes in a module that its tests miss: MODULE=tapct/metrics/dice.py, SAMPLE=60 or all
	$(BIN)/python -m tools.mutants $(MODULE) $(if $(SAMPLE),--sample $(SAMPLE))

clean: ## Remove the virtual environment and the logs
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest logs
