# make train: the main job on the built-in data.  make test: all tests.
# Both set up everything that they need in .venv; only Python >= 3.11 must be there.

PYTHON ?= python3
BIN = .venv/bin
PEER = .venv-peer/bin

.PHONY: train test lint peer bench clean

# the rates fall in a line: the paper's stairs, which the cfg has, are for 70 epochs of ImageNet
train: .venv/ready
	$(BIN)/python tools/train.py --layer-def=layer_configs/spp_zf5.cfg \
		'--set=DEFAULT.epsW=linear[base=0.01;tgtFactor=50]' \
		'--set=DEFAULT.epsB=linear[base=0.02;tgtFactor=50]'
	$(BIN)/python tools/test.py --multiview

test: .venv/ready-test lint
	$(BIN)/python -m pytest

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# comparisons with PyTorch, in an environment of its own
peer: .venv-peer/ready
	$(PEER)/python -m pytest tests/peers

# all figures of docs/performance.md; PARTS=train32,infer1 for some of them
bench: .venv-peer/ready
	$(PEER)/python benchmarks/all.py $(if $(PARTS),--only=$(PARTS))

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "convnet needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python setup.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/ready-test: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

.venv-peer/ready: setup.cfg
	$(PYTHON) -m venv .venv-peer
	$(PEER)/python -m pip install --quiet --disable-pip-version-check --editable '.[peer]'
	touch $@

clean:
	rm -rf .venv .venv-peer build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
