#!/usr/bin/env bash
# One row group of the paper's tables, or its smoke test; called by the scripts beside it, which
# set NAME, ENV_NAME, TEMPLATE, MODEL, EXPERT, BOOST and ITERATIONS.
#
# How long it takes on your machine has to be measured: --dry-run prints the answers and tokens of
# each stage, scripts/gpu_check.sh the tokens per second of your GPU. We have no GPU figures yet.
set -euo pipefail

NUM_GPUS=${NUM_GPUS:-4}                                 # for training; generation takes all it sees
BATCH=${BATCH:-64}                                      # examples per optimizer step
LEARNING_RATE=${LEARNING_RATE:-1e-5}                    # highest learning rate
EPOCHS=${EPOCHS:-2}                                     # passes over the rows
CONCURRENCY=${CONCURRENCY:-256}                         # episodes in flight
SEED=${SEED:-0}                                         # of every stage
TRAIN_DATA=${TRAIN_DATA:-data/$ENV_NAME/train.jsonl}    # problems to generate on
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

dry=false scratch=
for word in "$@"; do
    case $word in --dry-run | --dry_run) dry=true ;; esac
done

# Whose answers at turn 2: of the student itself as it samples, of an expert as published.
gen="--concurrency $CONCURRENCY --temperature 1.0"
boost=""
if [ "$EXPERT" != self ]; then
    gen="$gen 0.7 --max_new_tokens 1000 512"
    boost="--concurrency $CONCURRENCY --temperature 0.7 --max_new_tokens 512"
fi
evaluate="--concurrency $CONCURRENCY"
launcher="deepspeed --num_gpus $NUM_GPUS --master_port $MASTER_PORT"
train="--deepspeed deepspeed/zero3.json --bf16 True --tf32 True --num_train_epochs $EPOCHS
    --per_device_train_batch_size 1 --gradient_accumulation_steps $((BATCH / NUM_GPUS))
    --learning_rate $LEARNING_RATE --weight_decay 0. --warmup_ratio 0.04
    --lr_scheduler_type cosine --logging_steps 1 --save_strategy steps --save_steps 100
    --save_total_limit 2 --model_max_length 2048 --gradient_checkpointing True"

if [ "$SMOKE" = 1 ]; then
    echo "SMOKE=1: a tiny random model on the CPU; none of the numbers means anything"
    OUT=$OUT-smoke MODEL=$OUT/tiny
    TRAIN_DATA=data/demo_$ENV_NAME.jsonl TEST_DATA=$TRAIN_DATA
    if $dry && [ ! -d "$MODEL" ]; then
        # The commands are checked against a model, and a dry run writes none in its place.
        scratch=$(mktemp -d)
        trap 'rm -r "$scratch"' EXIT
        echo "--dry-run: the model is in $scratch meanwhile; it would be $MODEL"
        MODEL=$scratch/tiny
    else
        mkdir -p "$OUT"
    fi
    python scripts/reproduce/smoke.py --template "$TEMPLATE" --output_dir "$MODEL"
    tiny="--limit 4 --max_new_tokens 16 --worker_args '--device cpu --num-threads 1'"
    gen=$tiny boost=$tiny evaluate=$tiny launcher=python
    if [ "$EXPERT" != self ]; then EXPERT=scripts/reproduce/smoke.py:reference; fi
    train="--use_cpu True --num_train_epochs 1 --per_device_train_batch_size 4
        --learning_rate $LEARNING_RATE --logging_steps 1 --save_strategy no"
elif [ $((BATCH % NUM_GPUS)) != 0 ]; then
    echo "run.sh: NUM_GPUS=$NUM_GPUS does not divide BATCH=$BATCH: change one of them" >&2
    exit 2
elif [ ! -f "$TRAIN_DATA" ] && ! $dry; then
    python data/fetch.py "$ENV_NAME"
fi

command=(
    python -m rise.iterate --model "$MODEL" --env "$ENV_NAME" --expert "$EXPERT"
    --iterations "$ITERATIONS" --train_data "$TRAIN_DATA" --test_data "$TEST_DATA" --out "$OUT"
    --seed "$SEED" --launcher "$launcher" --gen_args="$gen" --eval_args="$evaluate"
    --train_args="$train"
)
if [ -n "$BOOST" ]; then command+=(--boost "$BOOST"); fi
if [ "$BOOST" = expert ] && [ -n "$boost" ]; then command+=(--boost_args="$boost"); fi
if [ -n "$WANDB_PROJECT" ]; then command+=(--wandb_project "$WANDB_PROJECT"); fi
if [ -n "$scratch" ]; then
    "${command[@]}" "$@"
else
    exec "${command[@]}" "$@"  # a batch system's SIGTERM reaches it
fi
