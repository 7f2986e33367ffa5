#!/usr/bin/env bash
# Makes the virtual environment .venv with everything that RISE needs, in the versions that CI tested.
#
#   bash scripts/setup.sh            # again: does nothing when nothing changed
#
# It asks for nothing. Where there is no NVIDIA GPU it installs the CPU build of PyTorch.
set -euo pipefail

PYTHON=${PYTHON:-}               # the interpreter to build on (default: the first Python 3.10-3.12 found)
VENV=${VENV:-.venv}              # where the environment lives, relative to the repository
TORCH_VERSION=${TORCH_VERSION:-2.13.0}  # the tested version; 2.6 or newer works
EXTRAS=${EXTRAS:-dev}            # extras of the rise-llm distribution: dev (the others but flash), flash, gguf, parquet, qlora, tensorboard, webui

cd "$(dirname "$0")/.."

is_supported() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in $PYTHON python3.11 python3.12 python3.10 python3 python; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup.sh: no usable Python 3.10, 3.11 or 3.12 found (with the venv module);" \
        "install one or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh" >&2
    return 1
}

# pip may be configured with several indexes: ask it what it would take before taking it.
would_install_cuda() {
    "$VENV/bin/python" -m pip install -qq --dry-run --report - "torch==$TORCH_VERSION" 2>/dev/null |
        grep -q '"name": "nvidia-'
}

install_torch() {
    if "$VENV/bin/python" -c 'import torch' >/dev/null 2>&1; then
        return
    fi
    if ! command -v nvidia-smi >/dev/null 2>&1 && would_install_cuda; then
        # uv knows where PyTorch publishes its CPU builds.
        "$VENV/bin/python" -m pip install -qq uv
        "$VENV/bin/uv" pip install --python "$VENV/bin/python" --torch-backend=cpu \
            "torch==$TORCH_VERSION" && return
        echo "setup.sh: no CPU build of torch could be fetched; taking the default build" >&2
    fi
    "$VENV/bin/python" -m pip install -qq "torch==$TORCH_VERSION"
}

# The stamp holds what was asked for; the same request again has nothing to do.
request=$(cat setup.py FastChat/pyproject.toml constraints.txt scripts/setup.sh | cksum)
request="$request $TORCH_VERSION $EXTRAS $PWD"
if [ -f "$VENV/.rise-setup" ] && [ "$(cat "$VENV/.rise-setup")" = "$request" ]; then
    echo "setup.sh: $VENV is up to date"
    exit 0
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ ! -x "$VENV/bin/python" ]; then
    python=$(find_python)
    echo "setup.sh: making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
fi
# Before 23.3 pip does not find the extra "model_worker" of FastChat.
"$VENV/bin/python" -m pip install -qq --upgrade "pip>=23.3"
echo "setup.sh: installing PyTorch"
install_torch
# The tested versions are those of Python 3.11; 3.10 has no release of some of them.
if "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    export PIP_CONSTRAINT=$PWD/constraints.txt
fi
echo "setup.sh: installing RISE and FastChat"
# DeepSpeed looks at torch while it is built, so it is built in this environment.
"$VENV/bin/python" -m pip install -qq \
    setuptools wheel packaging ninja py-cpuinfo
"$VENV/bin/python" -m pip install -qq --no-build-isolation deepspeed
"$VENV/bin/python" -m pip install -qq --no-build-isolation \
    -e "./FastChat[model_worker,train]" -e ".[$EXTRAS]"
echo "$request" >"$VENV/.rise-setup"
echo "setup.sh: done; activate it with: source $VENV/bin/activate"
