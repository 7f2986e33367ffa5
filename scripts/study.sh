#!/usr/bin/env bash
# The quickstart over several seeds, with a second iteration and ablations of criteria and weighting;
# ends with a table over the seeds. Hours on two cores with all seeds and variants; goes on where it was
# stopped.
#
#   bash scripts/study.sh
#   SEEDS="0 1" VARIANTS="iteration2 success-none" bash scripts/study.sh
#
# Every model starts from the base of its seed and makes as many optimizer steps as the quickstart's.
set -euo pipefail

SEEDS=${SEEDS:-0 1 2 3 4}    # one quickstart each
# What is trained beside the quickstart's models: iteration2 (its model generates, both iterations
# are pooled), grouped (the quickstart's data with --group_trajectories), or CRITERIA-WEIGHTING of
# workflow_convert.py (the quickstart itself is all-exp; best-exp would be the same rows, since the
# program is always right).
VARIANTS=${VARIANTS:-iteration2 grouped better-exp success-exp all-none all-advantage all-centered}
EXPERT=${EXPERT:-program}    # program | self, as the quickstart; iteration2 is its own teacher then
SIZE=${SIZE:-small}          # small | medium | large, as the quickstart
EPOCHS=${EPOCHS:-4}          # as the quickstart; its other knobs are passed on too
ROLLOUTS=${ROLLOUTS:-1}      # as the quickstart
DEVICE=${DEVICE:-cpu}        # cpu | cuda, as the quickstart
STUDY=${OUT:-log/study}      # where everything is written, seed by seed
VENV=${VENV:-.venv}          # the environment that scripts/setup.sh makes

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
export EXPERT SIZE EPOCHS ROLLOUTS DEVICE VENV
read -ra seeds <<<"$SEEDS"
read -ra variants <<<"$VARIANTS"
for seed in "${seeds[@]}"; do
    OUT="$STUDY/seed$seed" SEED="$seed" bash scripts/quickstart.sh
done
export PATH="$PWD/$VENV/bin:$PATH"

variant() { # NAME
    local data=$1 steps j more=()
    steps=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["steps"])' \
        "$OUT/rise/training.json")
    case $1 in
        iteration2)
            for ((j = 1; j <= ROLLOUTS; j++)); do
                roll_out "iteration2_gen$j" train "$OUT/rise" "$j"
            done
            convert "$1" --criteria all --filepath "$OUT"/gen[0-9]* "$OUT"/iteration2_gen[0-9]*
            ;;
        grouped) data=finetune more=(--group_trajectories True) ;;
        *) convert "$1" --criteria "${1%-*}" --weighting "${1#*-}" --filepath "$OUT"/gen[0-9]* ;;
    esac
    train "$1" "$data" "$BASE" "$EPOCHS" --max_steps "$steps" "${more[@]}"
    turns "$OUT/$1" "$1"
}

for SEED in "${seeds[@]}"; do
    OUT=$STUDY/seed$SEED
    . scripts/quickstart/stages.sh
    say "seed $SEED: $VARIANTS"
    # Two at a time, one per core.
    for ((i = 0; i < ${#variants[@]}; i += 2)); do
        background variant "${variants[i]}"
        if ((i + 1 < ${#variants[@]})); then
            variant "${variants[i + 1]}"
        fi
        wait "$BESIDE"
    done
    stage report python -m rise.report "$OUT"/eval/{base,control,rise} "${variants[@]/#/$OUT/eval/}" \
        -o "$OUT/report.html"
done
python scripts/quickstart/study.py "$STUDY" --seeds "${seeds[@]}" --variants "${variants[@]}"
