#!/usr/bin/env bash
# One row group of the paper's tables, or its smoke test; called by the scripts beside it, which
# set NAME, ENV_NAME, TEMPLATE, MODEL, EXPERT, BOOST and ITERATIONS.
#
# How long it takes on your machine has to be measured: --dry-run of workflow_gen.py counts answers
# and tokens, scripts/gpu_check.sh the tokens per second of your GPU. We have no GPU figures yet.
set -euo pipefail

NUM_GPUS=${NUM_GPUS:-4}                                 # for training; generation takes all it sees
BATCH=${BATCH:-64}                                      # examples per optimizer step
LEARNING_RATE=${LEARNING_RATE:-1e-5}                    # highest learning rate
EPOCHS=${EPOCHS:-2}                                     # passes over the rows
CONCURRENCY=${CONCURRENCY:-256}                         # episodes in flight
SEED=${SEED:-0}                                         # of every stage
TRAIN_DATA=${TRAIN_DATA:-data/${ENV_NAME:?is set by the scripts beside this one}/train.jsonl}    # problems to generate on
TEST_DATA=${TEST_DATA:-data/$ENV_NAME/test.jsonl}       # problems to evaluate on
OUT=${OUT:-log/reproduce/$NAME}                         # where everything is written
MASTER_PORT=${MASTER_PORT:-20001}                       # a free port for DeepSpeed
WANDB_PROJECT=${WANDB_PROJECT:-}                        # empty: not used
SMOKE=${SMOKE:-0}                                       # 1: tiny random model, four problems, CPU
VENV=${VENV:-.venv}                                     # environment to use if none is active

cd "$(dirname "$0")/../.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

. scripts/stages.sh
case ${1-} in -h | --help) exec bash scripts/rise.sh --help ;; esac
counts NUM_GPUS BATCH
dry=false
if [[ ${1-} == --dry* ]]; then dry=true; fi

# Whose answers at turn 2: of the student itself as it samples, of an expert as published.
gen="--temperature 1.0" boost="--temperature 1.0"
if [ "$EXPERT" != self ]; then
    gen="--temperature 1.0 0.7 --max_new_tokens 1000 512"
    boost="--temperature 0.7 --max_new_tokens 512"
fi
GEN_ARGS="--concurrency $CONCURRENCY $gen ${GEN_ARGS-}"
BOOST_ARGS="--concurrency $CONCURRENCY $boost ${BOOST_ARGS-}"
EVAL_ARGS="--concurrency $CONCURRENCY ${EVAL_ARGS-}"
LAUNCHER="deepspeed --num_gpus $NUM_GPUS --master_port $MASTER_PORT"
TRAIN_ARGS="--deepspeed deepspeed/zero3.json --bf16 True --tf32 True --num_train_epochs $EPOCHS
    --per_device_train_batch_size 1 --gradient_accumulation_steps $((BATCH / NUM_GPUS))
    --learning_rate $LEARNING_RATE --weight_decay 0. --warmup_ratio 0.04
    --lr_scheduler_type cosine --logging_steps 1 --save_strategy steps --save_steps 100
    --save_total_limit 2 --model_max_length 2048 --gradient_checkpointing True ${TRAIN_ARGS-}"

if [ "$SMOKE" = 1 ]; then
    echo "SMOKE=1: a tiny random model on the CPU; none of the numbers means anything"
    OUT=$OUT-smoke MODEL=$OUT/tiny
    TRAIN_DATA=data/demo_$ENV_NAME.jsonl TEST_DATA=$TRAIN_DATA
    # shellcheck disable=SC2089  # rise.sh reads the quotes
    GEN_ARGS="--limit 4 --max_new_tokens 16 --worker_args '--device cpu --num-threads 1'"
    BOOST_ARGS=$GEN_ARGS EVAL_ARGS=$GEN_ARGS LAUNCHER=python
    if [ "$EXPERT" != self ]; then EXPERT=scripts/reproduce/smoke.py:reference; fi
    if ! $dry; then
        mkdir -p "$OUT"
        python scripts/reproduce/smoke.py --template "$TEMPLATE" --output_dir "$MODEL"
    fi
    TRAIN_ARGS="--use_cpu True --num_train_epochs 1 --per_device_train_batch_size 4
        --learning_rate $LEARNING_RATE --logging_steps 1 --save_strategy no"
elif [ $((BATCH % NUM_GPUS)) != 0 ]; then
    refuse "NUM_GPUS=$NUM_GPUS does not divide BATCH=$BATCH: change one of them"
elif [ ! -f "$TRAIN_DATA" ] && ! $dry; then
    python data/fetch.py "$ENV_NAME"
fi

export MODEL ENV_NAME EXPERT BOOST ITERATIONS TRAIN_DATA TEST_DATA OUT SEED VENV WANDB_PROJECT
# shellcheck disable=SC2090
export LAUNCHER GEN_ARGS BOOST_ARGS EVAL_ARGS TRAIN_ARGS
exec bash scripts/rise.sh "$@"
