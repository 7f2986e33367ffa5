#!/usr/bin/env bash
# From nothing to a model that corrects itself, on two CPU cores: no GPU, no
# key, no network beyond the package registry.
#
#   bash scripts/quickstart.sh              # again: goes on where it stopped, or says all is done
#   EXPERT=self OUT=log/self bash scripts/quickstart.sh    # the model teaches itself: best of 16
#   SIZE=medium OUT=log/medium bash scripts/quickstart.sh  # harder problems, a larger model
#
# A tiny Llama is trained from scratch on small word problems (data/arithmetic.py). It answers,
# and is told that it is wrong; an expert (or its own best answer) shows what it should have said
# (workflow_gen.py); that becomes weighted data (workflow_convert.py) and a fine-tuned model
# (train_mem.py), which is evaluated over five turns (workflow_eval.py) beside the base and beside
# a control: as many optimizer steps on the program's right answers alone, given at turn 1.
set -euo pipefail

SEED=${SEED:-0}              # seed of the problems, the base, the sampling and the training
EXPERT=${EXPERT:-program}    # who answers at turn 2: program (data/arithmetic.py) | self (best of 16)
SIZE=${SIZE:-small}          # small | medium | large: see scripts/quickstart/stages.sh
PROBLEMS=${PROBLEMS:-}       # training problems; empty: as SIZE says
ROLLOUTS=${ROLLOUTS:-1}      # episodes of each
TEST=${TEST:-300}            # held-out problems; they share no numbers with training
CHATS=${CHATS:-}             # dialogues that the base is trained on; empty: as SIZE says
EPOCHS=${EPOCHS:-4}          # passes over the data of RISE; the control makes as many steps
DEVICE=${DEVICE:-cpu}        # cpu | cuda; the numbers in docs/ are the CPU's
OUT=${OUT:-log/quickstart}   # where everything is written
VENV=${VENV:-.venv}          # the environment that scripts/setup.sh makes

cd "$(dirname "$0")/.."
SECONDS=0
. scripts/stages.sh
no_arguments "$@"
. scripts/quickstart/stages.sh
counts SEED PROBLEMS ROLLOUTS TEST CHATS EPOCHS
remember SEED EXPERT SIZE PROBLEMS ROLLOUTS TEST CHATS EPOCHS DEVICE
stage install env VENV="$VENV" bash scripts/setup.sh
INSTALLED=$SECONDS
export PATH="$PWD/$VENV/bin:$PATH"

control() {
    generate gen_control train 1 --num_of_samples 1 --models "$TEACHER"
    convert control --filepath "$OUT/gen_control" --criteria success
    # One row per problem instead of two per episode: more epochs are the same number of steps.
    train control control "$BASE" $((2 * ROLLOUTS * EPOCHS))
    turns "$OUT/control" control
}

say "1/6 problems, and a base model trained on them from scratch"
stage problems python data/arithmetic.py --output_dir "$OUT/data" --train "$PROBLEMS" --test "$TEST" \
    --warmup "$CHATS" --changes "$CHANGES" --seed "$SEED"
stage base python scripts/quickstart/make_base.py --data_path "$OUT/data/warmup.jsonl" --output_dir "$BASE" \
    --size "$SIZE" --device "$DEVICE" --seed "$SEED"

say "2/6 the control starts on the second core: right answers only, one turn"
background control

say "3/6 generate: the base answers; told that it is wrong, '$EXPERT' answers turn 2"
for ((i = 1; i <= ROLLOUTS; i++)); do
    roll_out "gen$i" train "$BASE" "$i"
done

say "4/6 convert: weight exp(reward / 0.4) on every answer"
convert finetune --filepath "$OUT"/gen[0-9]* --criteria all --weighting exp

say "5/6 train: reward-weighted regression, DeepSpeed ZeRO-3"
train rise finetune "$BASE" "$EPOCHS"

say "6/6 evaluate: base, control, RISE; then RISE with another problem's attempt shown"
turns "$BASE" base
turns "$OUT/rise" rise
evaluate "$OUT/rise" rise_other --max_turns 2 --num_of_samples 1 1 --shown_attempts "$OUT/eval/rise"
wait "$BESIDE"

stage report python -m rise.report "$OUT/eval/base" "$OUT/eval/control" "$OUT/eval/rise" \
    --names base control RISE -o "$OUT/report.html"
python scripts/quickstart/results.py "$OUT"
echo "Next: EXPERT=self OUT=log/self bash scripts/quickstart.sh (the model teaches itself)"
echo "Time: $((SECONDS / 60)) min $((SECONDS % 60)) s, of which installation $INSTALLED s."
