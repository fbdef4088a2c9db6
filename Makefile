# `make demo` and `make test` are all that a fresh Debian or Ubuntu machine needs (python3 >= 3.10).
PYTHON ?= python3
VENV := .venv
COMMA := ,
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A sourced ROS install brings its own rclpy; without one the PyPI wheels do.
EXTRAS := $(if $(ROS_DISTRO),dev,ros$(COMMA)dev)
JAZZY := .venv-jazzy
JAZZY_STAMP := $(JAZZY)/.installed
ROS_PACKAGES := rclpy rmw-fastrtps-cpp builtin-interfaces diagnostic-msgs geometry-msgs lifecycle-msgs rcl-interfaces \
  rosgraph-msgs sensor-msgs std-msgs std-srvs visualization-msgs
DEMO_ARGS ?=
STORM_ARGS ?=
SOAK_ARGS ?=
SHM_ARGS ?=
PYTEST_ARGS ?=

.PHONY: demo test lint format types tests storm soak small-shm fuzz scan-accuracy privacy test-jazzy install clean

demo: $(STAMP)
	$(BIN)/rfdetr-foundationpose demo $(DEMO_ARGS)

# pytest comes last, so that its summary is the last line of the output.
test: lint types tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

tests: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python -m pytest $(PYTEST_ARGS)

# Signals at random times, idle and on a loaded machine: about an hour.
storm: $(STAMP)
	$(BIN)/python test/support/storm.py $(STORM_ARGS)
	$(BIN)/python test/support/storm.py --loaded $(STORM_ARGS)

# Node and camera for half an hour with what a day brings: memory, threads, open files and shared memory stay flat.
soak: $(STAMP)
	$(BIN)/python test/support/soak.py $(SOAK_ARGS)

# Damaged recordings, meshes, checkpoints and YAML files: many of them, which takes about half an hour.
fuzz: $(STAMP)
	FUZZ_CASES=$${FUZZ_CASES:-100} $(BIN)/python -m pytest -s -q --timeout 7200 $(wildcard test/test_fuzz_*.py) $(PYTEST_ARGS)

# Camera, node and a watcher with a container's /dev/shm of 64 MB; needs root.
small-shm: $(STAMP)
	$(BIN)/python test/support/small_shm.py $(SHM_ARGS)

# Scans of generated recordings: how far from the object, and how its poses compare with those by the true mesh. Ten minutes.
scan-accuracy: $(STAMP)
	$(BIN)/python test/support/scan_accuracy.py $(SCAN_ARGS)

# A whole demo where every name that is looked up is seen: there must be none. About five minutes on two cores.
privacy: $(STAMP)
	PRIVACY_DEMO=1 $(BIN)/python -m pytest -s test/test_privacy.py $(PYTEST_ARGS)

# The node's tests on ROS 2 Jazzy's wheels, with everything else from $(VENV).
test-jazzy: $(JAZZY_STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(JAZZY)/bin/python -m pytest -p no:cacheprovider $(or $(PYTEST_ARGS),$(wildcard test/test_ros_*.py))

install: $(STAMP)

$(JAZZY_STAMP): $(STAMP)
	$(BIN)/python -m venv $(JAZZY)
	$(JAZZY)/bin/python -m pip install --quiet $(addprefix ros-jazzy-,$(ROS_PACKAGES))
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(JAZZY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth
	@touch $@

$(STAMP): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$(PYTHON) is missing or older than 3.10: install python3 or name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python cannot create virtual environments here: sudo apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf build out *.egg-info .pytest_cache .mypy_cache .ruff_cache
