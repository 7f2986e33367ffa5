#!/usr/bin/env bash
# The whole of RISE, K times: generate, convert, train, evaluate; at the end the table over base,
# boost and every iteration. The same call goes on with a stopped run.
#
#   bash scripts/rise.sh --dry-run                   # every command, and what it will ask for
#   MODEL=./base EXPERT=self bash scripts/rise.sh    # self-distillation, best of 16
#   bash scripts/rise.sh --config run.json           # the file's values instead of the knobs
#
# Relative paths are relative to the repository. Further arguments go to rise.iterate.
set -euo pipefail

knobs="MODEL ENV_NAME TRAIN_DATA TEST_DATA EXPERT BOOST ITERATIONS POOL TRAIN_FROM LAUNCHER TRAIN_ARGS OUT"
for knob in $knobs; do
    if [ -n "${!knob+set}" ] && [[ " $* " == *" --config"* ]]; then
        echo "rise.sh: $knob would be ignored beside --config: unset it, and give a flag instead" \
            "(python -m rise.iterate --help)" >&2
        exit 2
    fi
done

MODEL=${MODEL:-hf:meta-llama/Llama-2-7b-chat-hf}   # base model: hf:ORG/NAME or a directory
ENV_NAME=${ENV_NAME:-gsm8k}                        # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
TRAIN_DATA=${TRAIN_DATA:-data/gsm8k/train.jsonl}   # problems to generate on
TEST_DATA=${TEST_DATA:-data/gsm8k/test.jsonl}      # problems to evaluate on
EXPERT=${EXPERT:-gpt-3.5-turbo}                    # who answers turn 2; self: best of 16
BOOST=${BOOST:-}                                   # SFT before iteration 1: expert | FILE.json
ITERATIONS=${ITERATIONS:-2}                        # how often to generate and train
POOL=${POOL:-all}                                  # attempts to train on: all | last iteration
TRAIN_FROM=${TRAIN_FROM:-base}                     # base | last: where training starts
LAUNCHER=${LAUNCHER:-deepspeed}                    # of the trainer: python | torchrun ... | deepspeed ...
# Of the trainer; a batch of 64 on 4 GPUs.
TRAIN_ARGS=${TRAIN_ARGS:---deepspeed deepspeed/zero3.json --bf16 True --tf32 True
    --num_train_epochs 1 --per_device_train_batch_size 1 --gradient_accumulation_steps 16
    --learning_rate 1e-5 --weight_decay 0. --warmup_ratio 0.04 --lr_scheduler_type cosine
    --save_steps 100 --save_total_limit 2 --gradient_checkpointing True}
OUT=${OUT:-log/rise}                               # where everything is written
VENV=${VENV:-.venv}                                # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

command=(python -m rise.iterate)
if [[ " $* " != *" --config"* ]]; then
    command+=(
        --model "$MODEL" --env "$ENV_NAME" --train_data "$TRAIN_DATA" --test_data "$TEST_DATA"
        --expert "$EXPERT" --boost "$BOOST" --iterations "$ITERATIONS" --pool "$POOL"
        --train_from "$TRAIN_FROM" --launcher "$LAUNCHER" --train_args="$TRAIN_ARGS" --out "$OUT"
    )
fi
command+=("$@")
echo "+$(printf " %q" "${command[@]}")"
exec "${command[@]}"
