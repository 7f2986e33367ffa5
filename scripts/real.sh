#!/usr/bin/env bash
# RISE on a real pretrained model and real problems, on two CPU cores: no GPU, no key.
#
#   bash scripts/real.sh              # again: goes on where it stopped, or says all is done
#   EXPERT=self OUT=log/real-self bash scripts/real.sh    # turn 2: the student's best of 8
#
# SmolLM2-135M-Instruct (data/smollm2.py) learns to answer word problems with an expression,
# \boxed{57 + 26} (warm start: 600 reference solutions). It answers other problems, hears what its
# expression comes to and that it is wrong, and an expert answers turn 2; that becomes weighted data
# and a fine-tuned model, measured over five turns beside the base, the warm start and a control:
# as many trained tokens of right answers alone, given at turn 1. Data: ASDiv and SVAMP, or GSM8K
# (data/splits.py); where they cannot be had, data/word_problems.py.
set -euo pipefail

DATA=${DATA:-asdiv}          # asdiv (and SVAMP) | gsm8k | words (made by data/word_problems.py)
ANSWER=${ANSWER:-expression} # in the box: expression | equation, whose slips the feedback names
EXPERT=${EXPERT:-reference}  # who answers at turn 2: reference | self (the student's best of 8)
ITERATIONS=${ITERATIONS:-1}  # how often to generate and train; the data are pooled
ROLLOUTS=${ROLLOUTS:-2}      # episodes of each problem
TEST=${TEST:-300}            # test problems
COOLER=${COOLER-0.5}         # second temperature of control and RISE; the first is 1; empty: none
SEED=${SEED:-0}              # seed of sampling and training; the split has none
MODEL=${MODEL:-}             # a checkpoint to start from; empty: SmolLM2-135M-Instruct
WARM=${WARM:-}               # its warm start from an earlier run, which measured it; empty: makes it
DEVICE=${DEVICE:-cpu}        # cpu | cuda; the numbers in docs/ are the CPU's
DTYPE=${DTYPE:-}             # bfloat16 | float32; empty: what it computes in
SMOKE=${SMOKE:-}             # 1: a handful of problems, to see every stage run
OUT=${OUT:-log/real}         # where everything is written
VENV=${VENV:-.venv}          # the environment that scripts/setup.sh makes

cd "$(dirname "$0")/.."
SECONDS=0
. scripts/stages.sh
no_arguments "$@"
[[ $DATA =~ ^(asdiv|gsm8k|words)$ ]] || refuse "DATA must be asdiv, gsm8k or words, not '$DATA'"
. scripts/real/stages.sh
sizes=() words=4000
if [ -n "$SMOKE" ]; then
    sizes=(--test 8 --validation 2 --warm 16 --generate 8) words=60
fi
counts SEED ITERATIONS ROLLOUTS TEST
others=()
[ "$ANSWER" = expression ] || others=(ANSWER)
[ "$DEVICE" = cpu ] || others+=(DEVICE)
remember DATA EXPERT ITERATIONS ROLLOUTS TEST COOLER SEED MODEL WARM DTYPE SMOKE "${others[@]}"

stage install env VENV="$VENV" bash scripts/setup.sh
export PATH="$PWD/$VENV/bin:$PATH"
share_cores

# Threads that share their cores with other programs cost several times the work: here none runs beside.
train_alone() { OMP_NUM_THREADS=$ALONE train "$@"; }

both() { # MODEL NAME
    turns "$1" "$2"
    if [ -n "$COOLER" ]; then turns "$1" "$2-cooler" --temperature "$COOLER"; fi
}

# Fetched, imported with --from, or made; OUT/data/source says which it was.
problems() {
    local split=(python data/splits.py --output_dir "$OUT/data" "${sizes[@]}") source=$DATA
    case $DATA in
        asdiv) files=(data/asdiv/test.jsonl data/svamp/test.jsonl) names=(asdiv svamp) ;;
        gsm8k) files=(data/gsm8k/{train,test}.jsonl) names=(gsm8k) ;;
        words) files=() ;;
    esac
    for file in "${files[@]}"; do
        [ -f "$file" ] || python data/fetch.py "${names[@]}" || { source=words && break; }
    done
    case $source in
        asdiv) "${split[@]}" "${files[@]}" ;;
        gsm8k) "${split[@]}" "${files[0]}" --test_from "${files[1]}" --generate 800 ;;
        words)
            python data/word_problems.py --output_dir "$OUT/words" --train "$words" --test 1000
            "${split[@]}" "$OUT/words/train.jsonl" --test_from "$OUT/words/test.jsonl" --generate 800 ;;
    esac
    echo "$source" >"$OUT/data/source"
}

# The minutes are estimates for two idle cores that compute in bfloat16.
if [ "$DTYPE" = float32 ]; then
    echo "   in float32: three to five times the minutes named here; COOLER= TEST=100 is shorter"
fi
say "1/6 problems, checkpoint (a minute), and a warm start on reference solutions (6 min)"
[ -f "$OUT/data/source" ] || stage problems problems
if [ "$(cat "$OUT/data/source")" != "$DATA" ]; then
    echo "   $DATA cannot be fetched here ($OUT/logs/problems.log): these are DATA=words"
fi
[ -n "$MODEL" ] || stage checkpoint python data/smollm2.py "$BASE"
if [ -z "$WARM" ]; then
    generate warm-solutions warm 1 --models "$TEACHER"
    convert warm --filepath "$OUT/warm-solutions" --criteria success --weighting none
    train_alone warm warm "$BASE" 2 --per_device_train_batch_size 8 --learning_rate 2e-4
fi

say "2/6 on the second core: evaluation of base and warm start (5 min)"
second() {
    [ -z "$WARM" ] || return 0
    turns "$BASE" base --limit $(((TEST + 3) / 4))
    turns "$STUDENT" warm
}
background second

say "3/6 generate: the student answers and hears that it is wrong, '$EXPERT' answers turn 2 (3 min)"
logs=() start=$STUDENT
for ((i = 1; i <= ITERATIONS; i++)); do
    NAME=rise
    if ((i < ITERATIONS)); then NAME=rise$i; fi
    for ((j = 1; j <= ROLLOUTS; j++)); do
        roll_out "gen$i-$j" "$GENERATE" "$STUDENT" $((ROLLOUTS * (i - 1) + j))
        logs+=("$OUT/gen$i-$j")
    done
    wait "$BESIDE"
    say "4/6 train: reward-weighted regression, weight exp(reward / 0.4) (8 min)"
    convert "$NAME" --filepath "${logs[@]}" --criteria all --weighting exp --temperature 0.4
    train_alone "$NAME" "$NAME" "$start" 1 "${step[@]}"
    STUDENT=$OUT/$NAME
done

say "5/6 the control: right answers alone, as many trained tokens (5 min)"
convert control --filepath "${logs[@]}" --criteria success --weighting none --context_window 1 \
    --match_tokens "$OUT/rise.json"
train_alone control control "$start" 1 "${step[@]}"

say "6/6 evaluate: the control on the second core; RISE, also with another problem's attempt shown (7 min)"
background both "$OUT/control" control
both "$OUT/rise" rise
evaluate "$OUT/rise" rise_other --max_turns 2 --num_of_samples 1 1 --shown_attempts "$OUT/eval/rise"
wait "$BESIDE"

runs=("$OUT"/eval/{control,rise}) names=(control RISE)
if [ -z "$WARM" ]; then
    runs=("$OUT"/eval/{base,warm} "${runs[@]}") names=(base "warm start" "${names[@]}")
fi
stage report python -m rise.report "${runs[@]}" --names "${names[@]}" -o "$OUT/report.html"
python -m rise.compare "$OUT"/eval/{control,rise} --names control RISE --format markdown >"$OUT/comparison.md"
if [ -n "$COOLER" ]; then
    python -m rise.compare "$OUT"/eval/{control,rise}-cooler --names control RISE --format markdown >>"$OUT/comparison.md"
fi
python scripts/quickstart/results.py "$OUT"
echo "Time: $((SECONDS / 60)) min $((SECONDS % 60)) s. Tests of control and RISE: $OUT/comparison.md"
