# make run    train and evaluate on the demo corpus (or: make run ARGS="--data LA --recipe resmax_la")
# make app    the web page, on http://localhost:8501 (or: make app ARGS="--server.port 8080")
# make test   the tests, without the slow and the long ones
PYTHON ?= python3
ARGS ?=

.PHONY: run app test test-slow test-long lint clean

run: .venv/run.stamp
	.venv/bin/python main.py $(ARGS)

app: .venv/app.stamp
	.venv/bin/python -m streamlit run app.py $(ARGS)

test: .venv/dev.stamp
	.venv/bin/python -m pytest -n 2 --dist loadfile

test-slow: .venv/dev.stamp
	.venv/bin/python -m pytest -n 2 --dist loadfile -m slow

test-long: .venv/dev.stamp
	.venv/bin/python -m pytest -n 2 --dist loadfile -m long

lint: .venv/dev.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt
	touch $@

.venv/app.stamp: requirements.txt requirements-app.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements-app.txt
	touch $@ .venv/run.stamp

.venv/dev.stamp: requirements.txt requirements-app.txt requirements-dev.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements-dev.txt
	touch $@ .venv/app.stamp .venv/run.stamp

clean:
	rm -rf .venv
