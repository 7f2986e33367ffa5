#!/usr/bin/env bash
# quickstart.sh or real.sh over several seeds, with a second iteration and ablations of criteria and
# weighting; ends with a table over the seeds. Hours on two cores with all seeds and variants; goes on
# where it was stopped.
#
#   bash scripts/study.sh
#   SEEDS="0 1" VARIANTS="iteration2 success-none" bash scripts/study.sh
#   LOOP=real SEEDS="0 1 2" VARIANTS="" OUT=log/real-study bash scripts/study.sh
#
# Every model starts from the base of its seed (the one warm start, with LOOP=real) and makes as many
# optimizer steps as that script's.
set -euo pipefail

LOOP=${LOOP:-quickstart}     # quickstart | real: the script that is run for each seed
SEEDS=${SEEDS:-0 1 2 3 4}
# What is trained beside that script's models: iteration2 (its model generates, both iterations are
# pooled), grouped (its data with --group_trajectories, which real.sh gives anyway), or
# CRITERIA-WEIGHTING of workflow_convert.py (the script itself is all-exp; best-exp would be the same
# rows, since the expert is always right).
VARIANTS=${VARIANTS-iteration2 grouped better-exp success-exp all-none all-advantage all-centered}
EXPERT=${EXPERT:-}           # as that script, as are its other knobs; iteration2 is its own teacher
STUDY=${OUT:-log/study}      # where everything is written, seed by seed
VENV=${VENV:-.venv}          # the environment that scripts/setup.sh makes

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
case $LOOP in
    quickstart) models=(base control rise) SIZE=${SIZE:-small} ;;
    real) models=(control rise) MODEL=${MODEL:-} WARM=${WARM:-} DTYPE=${DTYPE:-} SMOKE=${SMOKE:-} ;;
    *) refuse "LOOP must be quickstart or real, not '$LOOP'" ;;
esac
DEVICE=${DEVICE:-cpu}
read -ra seeds <<<"$SEEDS"
read -ra variants <<<"$VARIANTS"
for SEED in "${seeds[@]}"; do counts SEED; done
export VENV DEVICE

# The knobs of one seed: those of its script, by its defaults.
knobs() {
    OUT=$STUDY/seed$SEED
    if [ "$LOOP" = quickstart ]; then
        EXPERT=${EXPERT:-program} ROLLOUTS=${ROLLOUTS:-1} EPOCHS=${EPOCHS:-4}
        export EXPERT SIZE EPOCHS ROLLOUTS
        return
    fi
    EXPERT=${EXPERT:-reference} ROLLOUTS=${ROLLOUTS:-2} EPOCHS=1 TEST=${TEST:-300}
    # The first seed makes the warm start.
    if [ "$SEED" != "${seeds[0]}" ]; then
        MODEL=${MODEL:-$STUDY/seed${seeds[0]}/base} WARM=${WARM:-$STUDY/seed${seeds[0]}/warm}
    fi
    export EXPERT ROLLOUTS TEST MODEL WARM DTYPE SMOKE
}

for SEED in "${seeds[@]}"; do
    (knobs && SEED="$SEED" OUT="$OUT" bash "scripts/$LOOP.sh")
done
export PATH="$PWD/$VENV/bin:$PATH"

variant() { # NAME
    local data=$1 steps j more=()
    steps=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["steps"])' \
        "$OUT/rise/training.json")
    case $1 in
        iteration2)
            for ((j = 1; j <= ROLLOUTS; j++)); do
                roll_out "iteration2_gen$j" "$GENERATE" "$OUT/rise" "$j"
            done
            convert "$1" --criteria all --filepath "$OUT"/gen[0-9]* "$OUT"/iteration2_gen[0-9]*
            ;;
        grouped) data=$DATASET more=(--group_trajectories True) ;;
        *) convert "$1" --criteria "${1%-*}" --weighting "${1#*-}" --filepath "$OUT"/gen[0-9]* ;;
    esac
    train "$1" "$data" "$START" "$EPOCHS" --max_steps "$steps" "${step[@]}" "${more[@]}"
    turns "$OUT/$1" "$1"
}

for SEED in "${seeds[@]}"; do
    if [ ${#variants[@]} = 0 ]; then break; fi
    knobs
    # shellcheck source=scripts/real/stages.sh
    . "scripts/$LOOP/stages.sh"
    share_cores
    say "seed $SEED: $VARIANTS"
    # Two at a time, one per core.
    for ((i = 0; i < ${#variants[@]}; i += 2)); do
        background variant "${variants[i]}"
        if ((i + 1 < ${#variants[@]})); then
            variant "${variants[i + 1]}"
        fi
        wait "$BESIDE"
    done
    stage report python -m rise.report "${models[@]/#/$OUT/eval/}" "${variants[@]/#/$OUT/eval/}" \
        -o "$OUT/report.html"
done
python scripts/quickstart/study.py "$STUDY" --seeds "${seeds[@]}" --models "${models[@]}" "${variants[@]}"
