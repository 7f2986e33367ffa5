#!/usr/bin/env bash
# Stage 2, convert: the episodes of stage 1 become weighted rows for fine-tuning.
#
#   bash scripts/convert.sh
#   FILEPATH="log/one log/two" CRITERIA=best bash scripts/convert.sh --dry-run
#   TO=dpo OUTPUT=dataset/pairs.jsonl bash scripts/convert.sh   # preference pairs
#
# Relative paths are relative to the repository. Further arguments are passed on.
set -euo pipefail

FILEPATH=${FILEPATH:-log/gsm8k/2_turns.json}   # logs to pool, separated by spaces
OUTPUT=${OUTPUT:-dataset/finetune.json}        # file to write
TO=${TO:-sft}                                  # sft | dpo | pair_sft: rows, or pairs, which have no
                                               # CRITERIA, WEIGHTING and TEMPERATURE
MODEL=${MODEL:-meta-llama/Llama-2-7b-chat-hf}  # whose tokens the report counts
ENV_NAME=${ENV_NAME:-gsm8k}                    # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
CRITERIA=${CRITERIA:-all}                      # all | better | best | success
WEIGHTING=${WEIGHTING:-exp}                    # exp | advantage | centered | none
TEMPERATURE=${TEMPERATURE:-0.4}                # tau in the weight
SEED=${SEED:-0}                                # of the order of the rows
VENV=${VENV:-.venv}                            # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

read -ra logs <<<"$FILEPATH"
command=(
    python workflow_convert.py --filepath "${logs[@]}" --output "$OUTPUT" --env "$ENV_NAME"
    --to "$TO" --shuffle "$SEED"
)
if [ "$TO" != dpo ]; then
    command+=(--model_path "$MODEL")
fi
if [ "$TO" = sft ]; then
    command+=(
        --criteria "$CRITERIA" --weighting "$WEIGHTING" --temperature "$TEMPERATURE"
        --remove_duplication
    )
fi
command+=("$@")
echo "+$(printf " %q" "${command[@]}")"
exec "${command[@]}"
