#!/usr/bin/env bash
# From nothing to a model that corrects itself, on two CPU cores, in under 15 minutes: no GPU, no
# key, no network beyond the package registry.
#
#   bash scripts/quickstart.sh              # again: goes on where it stopped, or says all is done
#   EXPERT=self bash scripts/quickstart.sh  # the model teaches itself: best of 16 of its own answers
#
# A tiny Llama is trained from scratch on small word problems (data/arithmetic.py). It answers,
# and is told that it is wrong; an expert (or its own best answer) shows what it should have said
# (workflow_gen.py); that becomes weighted data (workflow_convert.py) and a fine-tuned model
# (train_mem.py), which is evaluated over five turns (workflow_eval.py) beside the base and beside
# a control that saw the same right answers the same number of times, but no second turn.
set -euo pipefail

SEED=${SEED:-0}              # seed of the problems, the base, the sampling and the training
EXPERT=${EXPERT:-program}    # who answers at turn 2: program (data/arithmetic.py) | self (best of 16)
PROBLEMS=${PROBLEMS:-800}    # training problems
TEST=${TEST:-300}            # held-out problems; they share no numbers with training
CHATS=${CHATS:-28000}        # dialogues that the base is trained on
EPOCHS=${EPOCHS:-8}          # passes over the data of RISE; the control makes as many steps
OUT=${OUT:-log/quickstart}   # where everything is written
VENV=${VENV:-.venv}          # the environment that scripts/setup.sh makes

cd "$(dirname "$0")/.."
SECONDS=0

case $EXPERT in
    program) TEACHER=data/arithmetic.py:expert SAMPLES=1 ;;
    self) TEACHER=$OUT/base SAMPLES=16 ;;
    *) echo "quickstart.sh: EXPERT must be program or self, not '$EXPERT'" >&2; exit 2 ;;
esac
knobs="SEED=$SEED EXPERT=$EXPERT PROBLEMS=$PROBLEMS TEST=$TEST CHATS=$CHATS EPOCHS=$EPOCHS"
if [ -f "$OUT/knobs" ] && [ "$(cat "$OUT/knobs")" != "$knobs" ]; then
    echo "quickstart.sh: $OUT was made with $(cat "$OUT/knobs"), and now it is $knobs:" \
        "give another OUT" >&2
    exit 2
fi

VENV="$VENV" bash scripts/setup.sh
INSTALLED=$SECONDS
export PATH="$PWD/$VENV/bin:$PATH"
# Two processes share two cores: one thread each. The CPU, also where there is a GPU: the recipe is
# for one process, and the numbers in the README are the CPU's.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 DS_ACCELERATOR=cpu
mkdir -p "$OUT"
echo "$knobs" >"$OUT/knobs"

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

run() {
    echo "+ $*"
    "$@"
}

# Runs in the background, its output in a file; `finish` waits and shows the file if it failed.
background() { # NAME COMMAND...
    local name=$1
    shift
    echo "+ $* > $OUT/$name.log &"
    # A process group of its own, so that all of it can be ended when this script ends.
    set -m
    "$@" >"$OUT/$name.log" 2>&1 </dev/null &
    set +m
}

free_port() {
    python -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])'
}

finish() { # PID NAME
    if ! wait "$1"; then
        tail -n 40 "$OUT/$2.log" >&2
        echo "quickstart.sh: '$2' failed; its whole output is in $OUT/$2.log" >&2
        exit 1
    fi
}

generate() { # DIRECTORY TURNS SAMPLES... -- MODELS...
    local directory=$1 turns=$2
    shift 2
    run python workflow_gen.py --env gsm8k --prompt_style bare --data_path "$OUT/data/train.jsonl" \
        --log_dir "$directory" --max_turns "$turns" --temperature 1.0 --max_new_tokens 64 \
        --worker_args "--device cpu" --seed "$SEED" "$@"
}

convert() { # RUN OUTPUT CRITERIA
    run python workflow_convert.py --filepath "$1" --output "$2" --model_path "$OUT/base" \
        --env gsm8k --criteria "$3" --weighting exp --temperature 0.4 --shuffle --seed "$SEED"
}

train() { # DATA OUTPUT EPOCHS
    run deepspeed --num_accelerators 1 --master_port "$(free_port)" \
        FastChat/fastchat/train/train_mem.py --use_cpu True \
        --deepspeed deepspeed/zero3.json --model_name_or_path "$OUT/base" --data_path "$1" \
        --output_dir "$2" --num_train_epochs "$3" --per_device_train_batch_size 16 \
        --gradient_accumulation_steps 1 --learning_rate 3e-3 --adam_beta2 0.98 --weight_decay 0. \
        --warmup_ratio 0.04 --lr_scheduler_type cosine --max_grad_norm 1.0 \
        --model_max_length 512 --save_strategy steps --save_steps 400 --save_total_limit 1 \
        --logging_steps 20 --report_to none --seed "$SEED"
}

evaluate() { # MODEL DIRECTORY [MORE ARGUMENTS]
    local model=$1 directory=$2
    shift 2
    run python workflow_eval.py --model "$model" --data_path "$OUT/data/test.jsonl" --env gsm8k \
        --prompt_style bare --log_dir "$directory" --context_window 2 --temperature 1.0 \
        --max_new_tokens 64 --worker_args "--device cpu" --seed "$SEED" "$@"
}

# The five turns and, at turn 1, five samples for the majority vote of parallel answers.
evaluate_all() { # MODEL NAME
    evaluate "$1" "$OUT/eval/$2" --max_turns 5 --num_of_samples 5 1 1 1 1
}

control() {
    generate "$OUT/gen_control" 1 --num_of_samples 1 --models data/arithmetic.py:expert
    convert "$OUT/gen_control" "$OUT/control.json" success
    # One row per problem instead of two: twice the epochs are the same number of steps.
    train "$OUT/control.json" "$OUT/control" $((2 * EPOCHS))
    evaluate_all "$OUT/control" control
}

say "1/6 problems, and a base model trained on them from scratch"
run python data/arithmetic.py --output_dir "$OUT/data" --train "$PROBLEMS" --test "$TEST" \
    --warmup "$CHATS" --seed "$SEED"
run python scripts/make_base.py --data_path "$OUT/data/warmup.jsonl" --output_dir "$OUT/base" \
    --seed "$SEED"

say "2/6 the control starts on the second core: right answers only, one turn"
background control control
CONTROL=$!
# shellcheck disable=SC2064
trap "kill -- -$CONTROL 2>/dev/null || true" EXIT

say "3/6 generate: the base answers; told that it is wrong, '$EXPERT' answers turn 2"
generate "$OUT/gen" 2 --num_of_samples 1 "$SAMPLES" --models "$OUT/base" "$TEACHER" \
    --correct_to_correct

say "4/6 convert: weight exp(reward / 0.4) on every answer"
convert "$OUT/gen" "$OUT/finetune.json" all

say "5/6 train: reward-weighted regression, DeepSpeed ZeRO-3"
train "$OUT/finetune.json" "$OUT/rise" "$EPOCHS"

say "6/6 evaluate: base, control, RISE; then RISE with another problem's attempt shown"
evaluate_all "$OUT/base" base
evaluate_all "$OUT/rise" rise
evaluate "$OUT/rise" "$OUT/eval/rise_other" --max_turns 2 --num_of_samples 1 1 --shown_attempt other
finish "$CONTROL" control
trap - EXIT

run python -m rise.report "$OUT/eval/base" "$OUT/eval/control" "$OUT/eval/rise" \
    --names base control RISE -o "$OUT/report.html"
run python -m rise.quickstart "$OUT"
echo "Time: $((SECONDS / 60)) min $((SECONDS % 60)) s, of which installation $INSTALLED s."
