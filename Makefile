# One command from a fresh clone is enough: every target creates .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GRPO := $(BIN)/grpo
STAMP := $(VENV)/.installed

PYTEST = OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
# One test process per core, so one BLAS thread each.

DEMO := outputs/demo
SMOLLM2 := .models/smollm2
GSM8K ?= ../shared/data/gsm8k

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo smollm2 tiny-model test check test-all bench build docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything that development needs

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than 3.10"; echo "hint: make PYTHON=/path/to/a/newer/python3"; exit 1; } >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## preprocess, score, train, score again: accuracy rises in a few minutes
	@mkdir -p $(DEMO)
	@test -f $(DEMO)/config.yaml || $(GRPO) init-config --output $(DEMO)/config.yaml --set trainer.output_dir=$(DEMO)/run
	$(GRPO) preprocess --config $(DEMO)/config.yaml
	$(GRPO) eval --config $(DEMO)/config.yaml --checkpoint base
	$(GRPO) train --config $(DEMO)/config.yaml
	$(GRPO) eval --config $(DEMO)/config.yaml --baseline
	@echo "configuration  $(DEMO)/config.yaml"
	@echo "run            $(DEMO)/run  (metrics.jsonl, samples.jsonl, train.log, checkpoints)"

smollm2: $(STAMP) ## a real model: SmolLM2-135M, three LoRA and three full updates on GSM8K=folder
	test -f $(SMOLLM2)/config.json || $(BIN)/python -m pipelines.models.smollm2 $(SMOLLM2)
	@test -f $(GSM8K)/train.jsonl || { echo "error: there is no $(GSM8K)/train.jsonl"; \
		echo "hint: make smollm2 GSM8K=/folder/of/gsm8k (docs/results/real-model.md says where it comes from)"; exit 1; } >&2
	@set -e; for kind in lora full; do \
		for stage in preprocess train; do \
			echo "grpo $$stage --config docs/results/gsm8k-$$kind.yaml --set data.train_path=$(GSM8K)/train.jsonl"; \
			$(GRPO) $$stage --config docs/results/gsm8k-$$kind.yaml --set data.train_path=$(GSM8K)/train.jsonl; \
		done; \
	done
	$(BIN)/mlx_lm.generate --model $(SMOLLM2) --adapter-path outputs/gsm8k-lora/checkpoints/step_000003 \
		--prompt "What is 3 plus 4?" --temp 0 --max-tokens 24
	$(BIN)/mlx_lm.generate --model outputs/gsm8k-full/checkpoints/step_000003 \
		--prompt "What is 3 plus 4?" --temp 0 --max-tokens 24

tiny-model: $(STAMP) ## train the built-in model again, from a blank one, with this project's own SFT
	$(BIN)/python -m pipelines.models.tiny .models/blank
	$(GRPO) train --quiet --fresh --config data/tiny-model.yaml
	$(GRPO) eval --config data/tiny-model.yaml
	@mkdir -p data/tiny-model
	cd outputs/tiny-model/checkpoints/step_000230 && cp config.json model.safetensors tokenizer.json \
		tokenizer_config.json chat_template.jinja $(CURDIR)/data/tiny-model

test: $(STAMP) ## the quick tests
	$(PYTEST) -q -m "not slow"

test-all: $(STAMP) ## all tests
	$(PYTEST)

check: $(STAMP) ## what CI runs: format, lint, types, all tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(PYTEST)

bench: $(STAMP) ## measure: start-up, rollouts, updates
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

build: $(STAMP) ## wheel and source archive in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

docs: $(STAMP) ## write the pages that come from the code: configuration keys, metrics
	$(BIN)/python -m pipelines.config.reference > docs/configuration.md
	$(BIN)/python -m pipelines.monitoring.names

clean: ## remove what was built or cached here; .venv, .models and outputs stay
	rm -rf dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
