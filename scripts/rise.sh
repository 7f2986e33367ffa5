#!/usr/bin/env bash
# The whole of RISE, K times: generate, convert, train, evaluate; at the end a table over the base,
# the boost and every iteration, and a page with their episodes. Run it again to go on, after
# kill -9 too: every stage knows what it has done.
#
#   bash scripts/rise.sh --dry-run                   # prints every command, starts nothing
#   bash scripts/rise.sh --check                     # asks every script whether its arguments hold
#   MODEL=./base EXPERT=self bash scripts/rise.sh    # self-distillation, best of 16
#   MODEL=./tiny EXPERT=experts.py:f LAUNCHER=python TRAIN_ARGS="" bash scripts/rise.sh  # a laptop
#
# Relative paths are relative to the repository. In the ..._ARGS quotes keep words together; a flag
# that this script gives itself, such as --log_dir and --seed, is refused there.
set -euo pipefail

MODEL=${MODEL:-hf:meta-llama/Llama-2-7b-chat-hf}  # base model: hf:ORG/NAME or a directory
ENV_NAME=${ENV_NAME:-gsm8k}                       # gsm8k | math | svamp | asdiv | numeric | FILE.py:Class
TRAIN_DATA=${TRAIN_DATA:-data/gsm8k/train.jsonl}  # problems to generate on
TEST_DATA=${TEST_DATA:-data/gsm8k/test.jsonl}     # problems to evaluate on
EXPERT=${EXPERT:-gpt-3.5-turbo}                   # who answers turn 2; self: the student, best of many
EXPERT_SAMPLES=${EXPERT_SAMPLES:-}                # answers at turn 2; empty: 1, for self 16
BOOST=${BOOST:-}                                  # SFT first: expert (its right answers) | FILE.json
ITERATIONS=${ITERATIONS:-2}                       # how often to generate and train
POOL=${POOL:-all}                                 # trained on the attempts of: all | last iteration
TRAIN_FROM=${TRAIN_FROM:-base}                    # training starts from: base (or boost) | last model
SEED=${SEED:-0}                                   # of every stage; iteration i generates with SEED+i-1
LAUNCHER=${LAUNCHER:-deepspeed}                   # of the trainer: python | torchrun ... | deepspeed ...
GEN_ARGS=${GEN_ARGS:-}                            # further arguments of workflow_gen.py
BOOST_ARGS=${BOOST_ARGS-$GEN_ARGS}                # those of the generation for BOOST=expert
CONVERT_ARGS=${CONVERT_ARGS:---criteria all --remove_duplication --shuffle $SEED}
EVAL_ARGS=${EVAL_ARGS:-}                          # of workflow_eval.py
# Of train_mem.py; a batch of 64 on 4 GPUs.
TRAIN_ARGS=${TRAIN_ARGS---deepspeed deepspeed/zero3.json --bf16 True --tf32 True
    --num_train_epochs 1 --per_device_train_batch_size 1 --gradient_accumulation_steps 16
    --learning_rate 1e-5 --weight_decay 0. --warmup_ratio 0.04 --lr_scheduler_type cosine
    --save_steps 100 --save_total_limit 2 --gradient_checkpointing True}
WANDB_PROJECT=${WANDB_PROJECT:-}                  # empty: Weights & Biases is not used
OUT=${OUT:-log/rise}                              # where everything is written
VENV=${VENV:-.venv}                               # environment to use if none is active

cd "$(dirname "$0")/.."
. scripts/stages.sh
[ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$VENV/bin/python" ] || export PATH="$PWD/$VENV/bin:$PATH"
case ${1-} in
    "" | --check | --dry-run | --dry_run) mode=${1-} ;;
    -h | --help) usage ;;
    *) refuse "'$1' is unknown: the knobs are variables, the flags --check and --dry-run" ;;
esac
counts SEED ITERATIONS
[[ $POOL =~ ^(all|last)$ ]] || refuse "POOL is '$POOL': give all or last"
[[ $TRAIN_FROM =~ ^(base|last)$ ]] || refuse "TRAIN_FROM is '$TRAIN_FROM': give base or last"
if [[ $TRAIN_ARGS =~ --(use_|q_)?lora([ =]+[Tt]rue|[[:space:]]+--|[[:space:]]*$) ]]; then
    # An adapter is no model to train further.
    [ -z "$BOOST" ] || refuse "with an adapter leave out BOOST, or give the boosted model as MODEL"
    [[ $TRAIN_FROM$ITERATIONS =~ ^base|^last1$ ]] || refuse "with an adapter give TRAIN_FROM=base"
fi

split() { # KNOB: its words, into $words; quotes keep some together
    local lines
    lines=$(xargs printf '%s\n' <<<"${1:+${!1}}") || refuse "$1 cannot be read: ${!1}"
    words=() && [ -z "$lines" ] || mapfile -t words <<<"$lines"
}
split LAUNCHER
launcher=("${words[@]}") tracked=()
if [ -n "$WANDB_PROJECT" ]; then
    export WANDB_PROJECT WANDB_RUN_GROUP="${WANDB_RUN_GROUP:-${OUT##*/}}" && tracked=(--report_to wandb)
fi

run() { # NAME KNOB ARGUMENTS...: those of $program that this script gives itself
    local flag said
    split "$2"
    for flag in "${words[@]%%=*}"; do
        [[ $flag != --* || " ${*:3} " != *" --$(tr - _ <<<"${flag:2}") "* ]] ||
            refuse "$2 gives $flag, which this script gives $1 itself: leave it out"
    done
    set -- "$1" "${program[@]}" "${words[@]}" "${@:3}"
    case $mode in
        --check) # the arguments of later iterations are the same
            if [[ $1 =~ ^iteration([2-9]|1[0-9]) ]]; then return; fi
            said=$("${@:2}" --check 2>&1 >/dev/null) || wrong+=$'\n'"$1: $said" ;;
        --dry*) printf '# %s\n%s\n\n' "$1" "$(printf '%q ' "${@:2}")" ;;
        *) WANDB_NAME=$1 stage "$@" ;;
    esac
}
generate() { # NAME KNOB SEED ARGUMENTS...
    program=(python workflow_gen.py)
    run "$1/gen" "$2" "${@:4}" --data_path "$TRAIN_DATA" --env "$ENV_NAME" \
        --log_dir "$OUT/$1/gen" --seed "$3" "${tracked[@]}"
    logs+=("$OUT/$1/gen")
}
convert() { # NAME KNOB ARGUMENTS...
    program=(python workflow_convert.py)
    run "$1/convert" "$2" "${@:3}" --filepath "${logs[@]}" --env "$ENV_NAME" \
        --output "$OUT/$1/data.json" --model_path "$MODEL" "${tracked[@]}"
}
train() { # NAME MODEL DATA
    program=("${launcher[@]}" FastChat/fastchat/train/train_mem.py)
    if [ "$mode" = --check ]; then program=(python "${program[-1]}"); fi
    run "$1/train" TRAIN_ARGS --model_name_or_path "$2" --data_path "$3" \
        --output_dir "$OUT/$1/model" --seed "$SEED" "${tracked[@]}"
}
evaluate() { # NAME MODEL
    evaluations+=("$OUT/eval/$1")
    program=(python workflow_eval.py --max_turns 5 --num_of_samples 5 1 1 1 1 --context_window 2 \
        --env "$ENV_NAME") # EVAL_ARGS may change these
    run "$1/eval" EVAL_ARGS --model "$2" --data_path "$TEST_DATA" --log_dir "$OUT/eval/$1" \
        --seed "$SEED" "${tracked[@]}"
}

stages() { # all of them in their order
    local i name start=$MODEL student logs=() data=$BOOST teacher=$EXPERT samples=${EXPERT_SAMPLES:-1}
    if [ "$EXPERT" = self ]; then teacher=$MODEL samples=${EXPERT_SAMPLES:-16}; fi
    evaluations=() wrong=''
    evaluate base "$MODEL"
    if [ "$BOOST" = expert ]; then
        generate boost BOOST_ARGS "$SEED" --models "$teacher" --max_turns 1 --num_of_samples "$samples"
        convert boost "" --criteria success --weighting none --shuffle "$SEED"
        data=$OUT/boost/data.json logs=()
    fi
    if [ -n "$BOOST" ]; then
        train boost "$MODEL" "$data"
        start=$OUT/boost/model && evaluate boost "$start"
    fi
    student=$start
    for ((i = 1; i <= ITERATIONS; i++)); do
        name=iteration$i
        if [ "$EXPERT" = self ]; then teacher=$student; fi
        if [ "$POOL" = last ]; then logs=(); fi
        generate "$name" GEN_ARGS $((SEED + i - 1)) --models "$student" "$teacher" \
            --max_turns 2 --num_of_samples 1 "$samples"
        convert "$name" CONVERT_ARGS
        if [ "$TRAIN_FROM" = last ]; then start=$student; fi
        train "$name" "$start" "$OUT/$name/data.json"
        student=$OUT/$name/model && evaluate "$name" "$student"
    done
}
case $mode in --dry*) stages; exit ;; esac
goal=$mode mode=--check
[ -d "$MODEL" ] || [[ $MODEL = hf:* ]] || refuse "MODEL=$MODEL is no directory: give one, or hf:ORG/NAME"
command -v "${launcher[0]}" >/dev/null || refuse "LAUNCHER=$LAUNCHER: there is no such program"
stages
[ -z "$wrong" ] || refuse "nothing was begun:$wrong"
mode=$goal
if [ "$mode" = --check ]; then echo "The stages' arguments go together; nothing was started." && exit; fi
trap 'echo "Stopped: run the script again to go on."; exit 130' INT
say "$OUT: what the stages print is in $OUT/logs"
stages
stage report python -m rise.report "${evaluations[@]}" -o "$OUT/report.html"
python -m rise.compare "${evaluations[@]}" --format markdown | tee "$OUT/comparison.md"
echo "Table: $OUT/comparison.md. Page: $OUT/report.html. Made of what: python -m rise.lineage ${evaluations[-1]}"
