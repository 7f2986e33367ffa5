#!/usr/bin/env bash
# What a GPU machine gives: its software, and how fast it generates (the worker's engine) and trains.
#
#   bash scripts/gpu_check.sh          # needs a GPU with 80 GB for the 7B model
#   SMOKE=1 bash scripts/gpu_check.sh  # the same commands with toy sizes, on any machine
#
# Everything that is printed also goes to OUT, one file per check. A check that fails does not keep
# the others from running. In an environment of your own it needs what FastChat and this folder
# install (`pip install -e ./FastChat -e .`) and, for comparison, TRL.
set -euo pipefail

SMOKE=${SMOKE:-0}              # 1: toy sizes on the CPU, to see that the commands run
SIZES=${SIZES:-1b 7b}          # models of scripts/benchmarks/engine.py
ROWS=${ROWS:-1 16 64 256}      # answers at the same time
NEW=${NEW:-256}                # tokens per answer
STEP=${STEP:-64}               # rows of a training step
RUNS=${RUNS:-3}                # timed runs of each
OUT=${OUT:-log/gpu_check}      # where the reports are written
PYTHON=${PYTHON:-.venv/bin/python}

cd "$(dirname "$0")/.."
if [ ! -x "$PYTHON" ] && ! command -v "$PYTHON" >/dev/null; then
    echo "gpu_check.sh: no $PYTHON: run scripts/setup.sh, or say which one with PYTHON=" >&2
    exit 2
fi
DEVICE=cuda
if [ "$SMOKE" = 1 ]; then
    echo "SMOKE=1: toy sizes on the CPU; none of the numbers says anything about a GPU"
    DEVICE=cpu SIZES=tiny ROWS="1 4" NEW=8 STEP=4 RUNS=1
elif ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check.sh: torch sees no GPU; SMOKE=1 runs the same commands on the CPU" >&2
    exit 2
fi
mkdir -p "$OUT"

failed=()

# Runs one check, shows its output and keeps it in a file.
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n+ %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$OUT/$name.txt" || failed+=("$name")
}

check environment "$PYTHON" -m torch.utils.collect_env
read -ra rows <<<"$ROWS"
for size in $SIZES; do
    check "engine-$size" "$PYTHON" scripts/benchmarks/engine.py \
        --size "$size" --rows "${rows[@]}" --new "$NEW" --runs "$RUNS" --device "$DEVICE"
    check "training-$size" "$PYTHON" scripts/benchmarks/training_gpu.py \
        --size "$size" --rows "$STEP" --runs "$RUNS" --device "$DEVICE"
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_check.sh: failed: ${failed[*]}; reports in $OUT" >&2
    exit 1
fi
printf '\nAll checks ran; reports in %s\n' "$OUT"
