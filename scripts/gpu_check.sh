#!/usr/bin/env bash
# What a GPU machine gives: its software, whether worker and trainer agree, and how fast it generates
# (the worker's engine, and vLLM where there is one) and trains.
#
#   bash scripts/gpu_check.sh          # needs a GPU with 80 GB for the 7B model
#   SMOKE=1 bash scripts/gpu_check.sh  # the same commands with toy sizes, on any machine
#
# Everything that is printed also goes to OUT, one file per check, and all tables to OUT/report.md. A
# check that fails, or takes longer than LIMIT, does not keep the others from running. In an
# environment of your own it needs what FastChat and this folder install (`pip install -e ./FastChat
# -e .`); TRL, flash-attn and vLLM (scripts/setup.sh --vllm, or VLLM_BIN) are compared where they are.
set -euo pipefail

SMOKE=${SMOKE:-0}              # 1: toy sizes on the CPU, to see that the commands run
SIZES=${SIZES:-1b 7b}          # models of scripts/benchmarks/engine.py
ROWS=${ROWS:-1 16 64 256}      # answers at the same time
NEW=${NEW:-256}                # tokens per answer
STEP=${STEP:-64}               # rows of a training step
RUNS=${RUNS:-3}                # timed runs of each
LIMIT=${LIMIT:-240}            # seconds for one check
OUT=${OUT:-log/gpu_check}      # where the reports are written
PYTHON=${PYTHON:-.venv/bin/python}

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
command -v "$PYTHON" >/dev/null || refuse "no $PYTHON: run scripts/setup.sh, or say which one with PYTHON="
DEVICE=cuda eager=()
if [ "$SMOKE" = 1 ]; then
    echo "SMOKE=1: toy sizes on the CPU; none of the numbers says anything about a GPU"
    DEVICE=cpu eager=(--eager) SIZES=tiny ROWS="1 4" NEW=8 STEP=4 RUNS=1
elif ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    refuse "torch sees no GPU; SMOKE=1 runs the same commands on the CPU"
fi
mkdir -p "$OUT"
: >"$OUT/report.md"
VLLM_BIN=${VLLM_BIN:-$(dirname "$(command -v "$PYTHON")")/vllm}
[ -x "$VLLM_BIN" ] || VLLM_BIN=$(command -v vllm || true)
vllm_python=
if [ -n "$VLLM_BIN" ]; then vllm_python=$(dirname "$(realpath "$VLLM_BIN")")/python; fi

failed=()

# Runs one check, shows its output and keeps it in a file.
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n+ %s\n' "$name" "$*"
    local began=$SECONDS state=ok
    timeout "$LIMIT" "$@" 2>&1 | tee "$OUT/$name.txt" || failed+=("$name") state=FAILED
    printf '\n%s: %s, %s s\n\n' "$name" "$state" $((SECONDS - began)) >>"$OUT/report.md"
    grep -a '^|' "$OUT/$name.txt" >>"$OUT/report.md" || true
}

check environment "$PYTHON" -m torch.utils.collect_env
read -ra rows <<<"$ROWS"
for size in $SIZES; do
    check "parity-$size" "$PYTHON" scripts/benchmarks/parity_gpu.py --size "$size" --device "$DEVICE"
    check "engine-$size" "$PYTHON" scripts/benchmarks/engine.py \
        --size "$size" --rows "${rows[@]}" --new "$NEW" --runs "$RUNS" --device "$DEVICE"
    if [ -n "$vllm_python" ]; then
        check "vllm-$size" env VLLM_NO_USAGE_STATS=1 "$vllm_python" scripts/benchmarks/vllm_engine.py \
            --size "$size" --rows "${rows[@]}" --new "$NEW" --runs "$RUNS" --device "$DEVICE" "${eager[@]}"
    else
        printf '\nvllm-%s: skipped, no vLLM is found (scripts/setup.sh --vllm, or VLLM_BIN)\n' "$size" |
            tee -a "$OUT/report.md"
    fi
    check "training-$size" "$PYTHON" scripts/benchmarks/training_gpu.py \
        --size "$size" --rows "$STEP" --runs "$RUNS" --device "$DEVICE"
done

printf '\n== all tables (%s)\n' "$OUT/report.md"
cat "$OUT/report.md"
if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_check.sh: failed: ${failed[*]}; reports in $OUT" >&2
    exit 1
fi
printf '\nAll checks ran; reports in %s\n' "$OUT"
