#!/usr/bin/env bash
# Stage 4, evaluate in sequence: five turns, "incorrect" after each, a vote of the five answers.
# Writes m1@t1, acc@t, m1@t5 and p1@t5 to summary.json. Its partner is eval_parallel.sh.
#
#   MODEL=checkpoints/rise bash scripts/eval_sequential.sh
#   MODEL=checkpoints/rise bash scripts/eval_sequential.sh --limit 64
#
# Relative paths are relative to the repository. Further arguments are passed on.
set -euo pipefail

MODEL=${MODEL:-checkpoints/rise}               # who answers: a checkpoint or a name
DATA_PATH=${DATA_PATH:-data/gsm8k/test.jsonl}  # problems, one JSON object per line
ENV_NAME=${ENV_NAME:-gsm8k}                    # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
LOG_DIR=${LOG_DIR:-log/}                       # run directory; both evaluations may share it
MAX_TURNS=${MAX_TURNS:-5}                      # turns of every episode
CONTEXT_WINDOW=${CONTEXT_WINDOW:-2}            # the question and this many attempts less one
SEED=${SEED:-0}                                # of the sampling
VENV=${VENV:-.venv}                            # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

command=(
    python workflow_eval.py --model "$MODEL" --data_path "$DATA_PATH" --env "$ENV_NAME"
    --log_dir "$LOG_DIR" --max_turns "$MAX_TURNS" --num_of_samples 1
    --context_window "$CONTEXT_WINDOW" --seed "$SEED" "$@"
)
echo "+$(printf " %q" "${command[@]}")"
exec "${command[@]}"
