#!/usr/bin/env bash
# Stage 4, evaluate in parallel: a vote of five independent answers (m5@t1), as many samples as
# eval_sequential.sh takes. With the same LOG_DIR the sequential table shows both.
#
#   MODEL=checkpoints/rise bash scripts/eval_parallel.sh
#   MODEL=checkpoints/rise bash scripts/eval_parallel.sh --limit 64
#
# Relative paths are relative to the repository. Further arguments are passed on.
set -euo pipefail

MODEL=${MODEL:-checkpoints/rise}               # who answers: a checkpoint or a name
DATA_PATH=${DATA_PATH:-data/gsm8k/test.jsonl}  # problems, one JSON object per line
ENV_NAME=${ENV_NAME:-gsm8k}                    # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
LOG_DIR=${LOG_DIR:-log/}                       # run directory; both evaluations may share it
SAMPLES=${SAMPLES:-5}                          # answers that vote
SEED=${SEED:-0}                                # of the sampling
VENV=${VENV:-.venv}                            # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

command=(
    python workflow_eval.py --model "$MODEL" --data_path "$DATA_PATH" --env "$ENV_NAME"
    --log_dir "$LOG_DIR" --max_turns 1 --num_of_samples "$SAMPLES" --seed "$SEED" "$@"
)
echo "+$(printf " %q" "${command[@]}")"
exec "${command[@]}"
