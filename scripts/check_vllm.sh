#!/usr/bin/env bash
# Whether a real vLLM answers as our engine does, and whether a run outlives its death. Not in CI.
#
#   bash scripts/setup.sh --vllm && python data/smollm2.py data/smollm2 && bash scripts/check_vllm.sh
#   MODEL=./checkpoint VLLM_BIN=~/vllm/bin/vllm bash scripts/check_vllm.sh
#
# One line per check, and exit code 1 where one fails; what everybody printed is in OUT. On two idle
# cores it takes about ten minutes.
set -euo pipefail

MODEL=${MODEL:-data/smollm2}    # a checkpoint with a chat template
VLLM_BIN=${VLLM_BIN:-}          # default: beside this Python, or on PATH
DTYPE=${DTYPE:-float32}         # float32 gives the same greedy answers with every engine
PROBLEMS=${PROBLEMS:-48}        # greedy answers that are compared
NEW=${NEW:-32}                  # new tokens of an answer
LENGTH=${LENGTH:-1024}          # the server's context in tokens
PORT=${PORT:-8123}              # where vLLM listens
OUT=${OUT:-log/check_vllm}      # emptied first
PYTHON=${PYTHON:-.venv/bin/python}

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
export PYTHONPATH=$PWD:$PWD/FastChat${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1
VLLM_BIN=$("$PYTHON" -c 'from fastchat.serve.upstream import command; print(command.find() or "")')
[ -n "$VLLM_BIN" ] || refuse "no vLLM: run scripts/setup.sh --vllm"
[ -d "$MODEL" ] || refuse "MODEL=$MODEL is no directory"
export VLLM_BIN VLLM_NO_USAGE_STATS=1 VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
rm -rf "$OUT"
mkdir -p "$OUT"
mapfile -t options < <("$PYTHON" scripts/check_vllm.py options "$VLLM_BIN")
options+=(--enforce-eager --dtype "$DTYPE" --max-model-len "$LENGTH")
direct=$MODEL@http://127.0.0.1:$PORT/v1 failed=0 pids=()

# Ends what was started here, whatever happens.
finish() {
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}
trap finish EXIT

start() { # LOG COMMAND...
    setsid "${@:2}" >>"$OUT/$1.log" 2>&1 </dev/null &
    pids+=($!)
}
wait_for() { # LOG COMMAND...
    until "${@:2}" >/dev/null 2>&1; do
        kill -0 "${pids[-1]}" 2>/dev/null || { tail "$OUT/$1.log" >&2; exit 1; }
        sleep 1
    done
}
start_vllm() {
    start vllm "$VLLM_BIN" serve "$MODEL" --host 127.0.0.1 --port "$PORT" "${options[@]}"
    vllm=${pids[-1]}
    wait_for vllm curl -sf "http://127.0.0.1:$PORT/health"
}
evaluate() { # NAME MODEL ARGUMENTS...
    "$PYTHON" workflow_eval.py --log_dir "$OUT/$1" --model "$2" --data_path "$OUT/data/test.jsonl" \
        --env gsm8k --max_turns 1 --max_new_tokens "$NEW" --concurrency 16 \
        --controller_address "$((PORT + 1))" "${@:3}" >>"$OUT/$1.txt" 2>&1
}
check() { # NAME COMMAND...
    local said code=0
    said=$("${@:2}" 2>>"$OUT/check.txt") || code=1 failed=1
    printf '%-8s %s: %s\n' "$([ $code = 0 ] && echo ok || echo FAILED)" "$1" "$said" | tee -a "$OUT/report.txt"
}
# shellcheck disable=SC2329 # given to check
same() { "$PYTHON" scripts/check_vllm.py same "${@/#/$OUT/}"; }
rows() { cat "$OUT/$1/rows.jsonl" 2>/dev/null | wc -l; }

"$PYTHON" data/arithmetic.py --output_dir "$OUT/data" --train 1 --test "$PROBLEMS" >/dev/null
"$PYTHON" scripts/check_vllm.py versions "$VLLM_BIN" | tee "$OUT/report.txt"
start_vllm
start controller "$PYTHON" -m fastchat.serve.controller --port $((PORT + 1))
start worker "$PYTHON" -m fastchat.serve.vllm_worker --model-path "$MODEL" --model-names through \
    --port $((PORT + 2)) --controller-address $((PORT + 1)) --base-url "http://127.0.0.1:$PORT/v1"
wait_for worker grep -q registered "$OUT/worker.log"

four=(--num_of_samples 4)
greedy=("${four[@]}" --temperature 0)
evaluate embedded "$MODEL" --temperature 0 --worker_args "--engine embedded --dtype $DTYPE --context-length $LENGTH"
evaluate direct "$direct" "${greedy[@]}"
evaluate worker through "${greedy[@]}"
check "greedy: embedded, NAME@URL and vllm_worker (4 samples)" same embedded direct worker

evaluate seeds1 "$direct" --limit 8 "${four[@]}"
evaluate seeds2 "$direct" --limit 8 "${four[@]}" --concurrency 3
evaluate seeds3 through --limit 8 "${four[@]}"
check "seeds, 4 samples: twice NAME@URL, once vllm_worker" same seeds1 seeds2 seeds3

check "tokens recorded are tokens trained" "$PYTHON" scripts/check_vllm.py trained "$MODEL" \
    "$OUT"/{embedded,direct,worker,seeds1,seeds3}

"$PYTHON" scripts/check_vllm.py long "$OUT/data/test.jsonl" "$OUT/direct" "$LENGTH" >"$OUT/data/long.jsonl"
for who in direct worker; do
    model=$direct
    [ $who = direct ] || model=through
    evaluate "long-$who" "$model" --data_path "$OUT/data/long.jsonl" --max_new_tokens $((2 * LENGTH)) || true
    check "a prompt above the context, an answer above what it leaves ($who)" \
        "$PYTHON" scripts/check_vllm.py fitted "$OUT/long-$who" "$LENGTH"
done

two=(--max_turns 2 --limit 24 --wait_for_server 60)
evaluate undisturbed "$direct" "${two[@]}"
set -m # a process group of its own
evaluate killed "$direct" "${two[@]}" --concurrency 4 &
driver=$!
set +m
until [ "$(rows killed)" -ge 4 ]; do sleep 0.2; done
kill -KILL -- "-$vllm"
sleep 5
before=$(rows killed)
start_vllm
until [ "$(rows killed)" -ge 12 ]; do sleep 0.2; done
kill -KILL -- "-$driver"
wait "$driver" 2>/dev/null || true
between=$(rows killed)
evaluate killed "$direct" "${two[@]}"
check "vLLM killed after $before episodes, the driver after $between" same undisturbed killed
finish

"$PYTHON" scripts/check_vllm.py adapter "$MODEL" "$OUT/adapter" >>"$OUT/check.txt" 2>&1
for engine in embedded vllm; do
    args="--engine $engine --dtype $DTYPE --context-length $LENGTH"
    [ $engine = embedded ] || args+=" --vllm-args=--enforce-eager"
    evaluate "adapter-$engine" "$OUT/adapter" --limit 8 --temperature 0 --worker_args "$args"
done
check "greedy, a LoRA adapter: --engine embedded and --engine vllm" same adapter-embedded adapter-vllm
check "config.json has the engine" grep -o '"vllm [0-9.]*"' "$OUT/adapter-vllm/config.json"
exit $failed
