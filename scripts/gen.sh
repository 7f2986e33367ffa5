#!/usr/bin/env bash
# Stage 1, generate: a model answers; where it is wrong, an expert answers the second turn (or the
# model itself, best of N). Writes LOG_DIR/2_turns.json. The same call resumes an unfinished run.
#
#   bash scripts/gen.sh --limit 100                             # distillation, as published
#   MODELS="M M" NUM_OF_SAMPLES="1 16" bash scripts/gen.sh      # self-distillation
#
# Relative paths are relative to the repository. Further arguments are passed on.
set -euo pipefail

DATA_PATH=${DATA_PATH:-data/gsm8k/train.jsonl}      # problems, one JSON object per line
ENV_NAME=${ENV_NAME:-gsm8k}                         # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
LOG_DIR=${LOG_DIR:-log/gsm8k/}                      # run directory
MAX_TURNS=${MAX_TURNS:-2}                           # turns of an episode at most
NUM_OF_SAMPLES=${NUM_OF_SAMPLES:-1 1}               # answers per turn; the best goes on
MODELS=${MODELS:-Llama-2-7b-chat-hf gpt-3.5-turbo}  # who answers each turn
SEED=${SEED:-0}                                     # of the sampling
VENV=${VENV:-.venv}                                 # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

read -ra models <<<"$MODELS"
read -ra samples <<<"$NUM_OF_SAMPLES"
command=(
    python workflow_gen.py --data_path "$DATA_PATH" --env "$ENV_NAME" --log_dir "$LOG_DIR"
    --max_turns "$MAX_TURNS" --num_of_samples "${samples[@]}" --models "${models[@]}"
    --seed "$SEED" "$@"
)
echo "+$(printf " %q" "${command[@]}")"
exec "${command[@]}"
