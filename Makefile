# make run    train and evaluate on the demo corpus (or: make run ARGS="--data LA --recipe resmax_la")
# make test   the tests, without the slow ones
PYTHON ?= python3
ARGS ?=

.PHONY: run test test-slow lint clean

run: .venv/run.stamp
	.venv/bin/python main.py $(ARGS)

test: .venv/dev.stamp
	.venv/bin/python -m pytest

test-slow: .venv/dev.stamp
	.venv/bin/python -m pytest -m slow

lint: .venv/dev.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt
	touch $@

.venv/dev.stamp: requirements.txt requirements-dev.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements-dev.txt
	touch $@ .venv/run.stamp

clean:
	rm -rf .venv
