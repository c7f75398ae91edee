# Each target does all the set-up it needs on a fresh machine with Python 3.11+ and nothing else.
PYTHON ?= python3
VENV   ?= .venv
FULL   ?= .venv-full
BIN    := $(VENV)/bin
DEMO   := demo-index

.PHONY: demo test test-full newcomer lint types check docs train-mini clean

# --- the main job: index the samples and this repository, then search them -------------------
MEDIA  := $(BIN)/mmembed search -q
demo: $(VENV)/.light
	$(BIN)/mmembed index data/samples --into $(DEMO)/media
	$(BIN)/codeembed index .
	@echo; echo '== text to image: "a crowd of people"'
	@$(MEDIA) "a crowd of people" $(DEMO)/media -k 3 --mode dense --filter 'modality == "image"'
	@echo; echo '== image to image: a photo of a green bell pepper'
	@$(MEDIA) $(DEMO)/media --image data/samples/photos/groceries/00341d45367e.jpg -k 4 --filter 'modality == "image"'
	@echo; echo '== text to page: "iron oxide makes the soil of Mars red"'
	@$(MEDIA) "iron oxide makes the soil of Mars red" $(DEMO)/media -k 3 --filter 'modality == "document"'
	@echo; echo '== text to clip: "a person lifting a barbell"'
	@$(MEDIA) "a person lifting a barbell" $(DEMO)/media -k 3 --mode dense --filter 'modality == "video"'
	@echo; echo '== text to code: "normalise vectors after cutting dimensions"'
	@$(BIN)/codeembed search -q "normalise vectors after cutting dimensions" . -k 3 -n 2 --glob 'mmembed/**'
	@echo; echo "== open the page:  $(BIN)/mmembed serve $(DEMO)/media --code ."

# --- the tests -------------------------------------------------------------------------------
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2  # two workers, one thread each

# What a newcomer does, in a clone and an environment of its own: a quarter of an hour.
newcomer: $(VENV)/.dev
	$(BIN)/python -m pytest -m newcomer tests/newcomer

# torchvision and open_clip pull a CUDA build of torch, so they live in an environment of their own.
test-full: $(FULL)/.full
	$(FULL)/bin/python -m pytest tests/gpte/test_kernels.py  # alone: Triton reads once whether it interprets
	$(FULL)/bin/python -m pytest tests/full tests/presets/test_late_scores.py \
	    tests/evaluation/test_coir.py tests/integrations/test_langchain.py tests/integrations/test_llama_index.py \
	    tests/bulk/test_ray.py tests/bulk/test_object_store.py tests/server/test_schema.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

# --- the default model: about half an hour on two cores, and it goes on after a stop ----------
DATA ?= ../shared/data
train-mini: $(VENV)/.dev
	$(BIN)/python -m mmembed.multimodal.train_mini --data $(DATA) --cache runs/mini-features \
	    --output mmembed/models/mini --decoder mmembed/models/mini
	$(BIN)/python -m mmembed.multimodal.rotation --texts data/text --code data/code --data $(DATA) \
	    --cache runs/mini-features --output mmembed/models/mini
	# Adapters learn over a copy without any: one that is there would be trained further.
	mkdir -p runs && rm -rf runs/mini-base && cp -r mmembed/models/mini runs/mini-base
	rm -rf runs/mini-base/adapters runs/mini-base/embedder.json runs/mini-base/heads.safetensors
	$(BIN)/python -m mmembed.multimodal.translations --texts data/text --emoji $(DATA)/emoji_noto \
	    --output runs/mini/translations.jsonl --count 6000
	$(BIN)/mmembed train configs/mini/text-matching.yaml encoder.backbone=runs/mini-base output=runs/mini-text-matching
	$(BIN)/python -m mmembed.multimodal.packaging runs/mini-text-matching/text-matching/model text-matching \
	    --into mmembed/models/mini

$(VENV)/.light: pyproject.toml constraints/light.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints/light.txt -e '.[server]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints/light.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints/light.txt -e '.[dev,docs]'
	@touch $@ $(VENV)/.light

$(FULL)/.full: pyproject.toml constraints/full.txt
	test -x $(FULL)/bin/python || $(PYTHON) -m venv $(FULL)
	$(FULL)/bin/pip install -q -c constraints/full.txt -e '.[dev,full]'
	# Compared with in tests; their own pins would take torch and transformers back.
	$(FULL)/bin/pip install -q --no-deps colpali-engine==0.3.18 pylate==1.6.0 sqlitedict==2.1.0 voyager==2.2.3 \
	    coir-eval==0.7.0 faiss-cpu==1.15.1
	@touch $@

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache
