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

SECONDS ?= 60
TARGET ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo sums smollm2 tiny-model test check test-all fuzz bench build docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything that development needs

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than 3.10"; echo "hint: make PYTHON=/path/to/a/newer/python3"; exit 1; } >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## preprocess, score, train, score again, report: accuracy rises in a minute or two
	@mkdir -p $(DEMO)
	@test -f $(DEMO)/config.yaml || $(GRPO) init-config --output $(DEMO)/config.yaml --set trainer.output_dir=$(DEMO)/run
	$(GRPO) preprocess --config $(DEMO)/config.yaml
	$(GRPO) eval --config $(DEMO)/config.yaml --checkpoint base
	$(GRPO) train --config $(DEMO)/config.yaml
	$(GRPO) eval --config $(DEMO)/config.yaml --baseline
	@$(GRPO) report --config $(DEMO)/config.yaml --quiet >/dev/null
	@echo "configuration  $(DEMO)/config.yaml"
	@echo "run            $(DEMO)/run  (metrics.jsonl, samples.jsonl, train.log, checkpoints)"
	@echo "report         $(DEMO)/run/report.html  (a page for a browser)"

sums: $(STAMP) ## a real model gets better: SmolLM2-135M at sums, under an hour on two cores
	test -f $(SMOLLM2)/config.json || $(BIN)/python -m pipelines.models.smollm2 $(SMOLLM2)
	$(GRPO) train --config docs/results/sums-sft.yaml
	$(GRPO) eval --config docs/results/sums-sft.yaml --baseline
	test -d outputs/sums-sft/model || $(GRPO) export --config docs/results/sums-sft.yaml --output outputs/sums-sft/model
	$(GRPO) train --config docs/results/sums-grpo.yaml
	$(GRPO) eval --config docs/results/sums-grpo.yaml --baseline
	$(GRPO) report --config docs/results/sums-grpo.yaml

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

tiny-model: $(STAMP) ## train a model like the built-in one, from a blank one, with this project's own SFT
	$(BIN)/python -m pipelines.models.tiny .models/blank
	$(GRPO) train --quiet --fresh --config data/tiny-model.yaml
	$(GRPO) eval --config data/tiny-model.yaml
	@echo "model  outputs/tiny-model/checkpoints/step_000230  (data/tiny-model is left as it is)"

test: $(STAMP) ## the quick tests
	$(PYTEST) -q -m "not slow"

test-all: $(STAMP) ## all tests
	$(PYTEST)

check: $(STAMP) ## what CI runs: format, lint, types, all tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(PYTEST)

fuzz: $(STAMP) ## look for inputs that crash the parsers: SECONDS=60 for each, or for TARGET=yaml alone
	$(BIN)/python tests/fuzz/drive.py --seconds $(SECONDS) $(TARGET)

bench: $(STAMP) ## measure: start-up, preprocess, rewards, rollouts, updates, steps, and how they grow
	@for name in startup preprocess rewards rollout update dual_gradients step scaling; do \
		echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done

build: $(STAMP) ## wheel and source archive in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

docs: $(STAMP) ## write the pages that come from the code: configuration keys, rewards, metrics
	$(BIN)/python -m pipelines.config.reference > docs/configuration.md
	$(BIN)/python -m pipelines.rewards.reference > docs/rewards.md
	$(BIN)/python -m pipelines.monitoring.names

clean: ## remove what was built or cached here; .venv, .models and outputs stay
	rm -rf dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
