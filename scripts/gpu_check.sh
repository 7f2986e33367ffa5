#!/usr/bin/env bash
# What a GPU machine gives: its software, whether worker and trainer agree, and how fast it generates
# (the worker's engine, and vLLM where there is one) and trains.
#
#   bash scripts/gpu_check.sh          # needs a GPU with 80 GB for the 7B model
#   SMOKE=1 bash scripts/gpu_check.sh  # the same commands with toy sizes, on any machine
#
# Everything that is printed also goes to OUT, one file per check, and all tables as one to
# OUT/report.md. A check that fails, or takes too long, does not keep the others from running, and the
# table says what it lacked. In an environment of your own torch, transformers and accelerate are
# enough; TRL, flash-attn and vLLM (scripts/setup.sh --vllm, or VLLM_BIN) are compared where they are.
set -euo pipefail

SMOKE=${SMOKE:-0}              # 1: toy sizes on the CPU, to see that the commands run
SIZES=${SIZES:-1b 7b}          # models of scripts/benchmarks/engine.py
ROWS=${ROWS:-1 64 256}         # answers at the same time
NEW=${NEW:-128}                # tokens per answer
STEP=${STEP:-32}               # rows of a training step
RUNS=${RUNS:-2}                # timed runs of each
LIMIT=${LIMIT:-460}            # seconds for all checks together
OUT=${OUT:-log/gpu_check}      # where the reports are written
PYTHON=${PYTHON:-}             # default: .venv/bin/python, or python3 where that is missing

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
if [ -z "$PYTHON" ]; then PYTHON=.venv/bin/python; [ -x "$PYTHON" ] || PYTHON=python3; fi
command -v "$PYTHON" >/dev/null || refuse "no $PYTHON: run scripts/setup.sh, or say which one with PYTHON="
counts NEW STEP RUNS LIMIT
DEVICE=cuda eager=()
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}
CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES%%,*} # one of several
if [ "$SMOKE" = 1 ]; then
    echo "SMOKE=1: toy sizes on the CPU; none of the numbers says anything about a GPU"
    DEVICE=cpu eager=(--eager) SIZES=tiny ROWS="1 4" NEW=8 STEP=4 RUNS=1
elif ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    refuse "$PYTHON has no torch that sees a GPU; SMOKE=1 runs the same commands on the CPU"
fi
{ mkdir -p "$OUT" && : >"$OUT/report.md"; } 2>/dev/null ||
    refuse "nothing can be written to $OUT: name another folder with OUT="
VLLM_BIN=${VLLM_BIN:-$(dirname "$(command -v "$PYTHON")")/vllm}
[ -x "$VLLM_BIN" ] || VLLM_BIN=$(command -v vllm || true)
vllm_python=
if [ -n "$VLLM_BIN" ]; then
    for vllm_python in "$(dirname "$(realpath "$VLLM_BIN")")"/python{,3}; do
        [ ! -x "$vllm_python" ] || break
    done
fi

software='
import importlib.metadata, platform, shutil

def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "no"

names = "torch transformers accelerate triton trl flash-attn deepspeed".split()
print("| | " + " | ".join(names) + " |\n|" + "---|" * 8)
print("| Python", platform.python_version(), "|", *(version(name) + " |" for name in names))
import torch
import transformers
if torch.cuda.is_available():
    found = torch.cuda.get_device_properties(0)
    gib, compiler = found.total_memory / 2**30, shutil.which("cc")
    print(f"| {found.name}, {gib:.0f} GiB, CUDA {torch.version.cuda}, C compiler {compiler} |")
'
failed=() later=0

# One line in the table of all checks for each row of a check's own tables.
rows_of() { # NAME, of the check as the table has it
    awk -F ' *[|] *' -v check="$1" '
        !/^[|]/ { names = 0; next }
        /^[|] *-/ { names = split(last, name, FS); next }
        names {
            found = $2 ~ /^[0-9]+$/ ? $2 " " name[2] : $2
            text = ""
            for (i = 3; i < NF; i++)
                if ($i != "") text = text (text ? "; " : "") $i ($i ~ /^(failed|left out|does not fit)/ ? "" : " " name[i])
            printf "| %s | %s | %s |\n", check, found, text
        }
        { last = $0 }'
}

# What a check that failed has said of the cause, and the way out.
cause_of() { # CODE FILE
    local said missing
    case $1 in
        124) echo "it took too long: all checks together have LIMIT=$LIMIT s" && return ;;
        137) echo "it was killed: by the kernel for memory, or since it took too long" && return ;;
    esac
    said=$(grep -aoE '([A-Za-z_.]*(Error|Exception)(: .*|$)|[a-z_]+\.py: error: .*)' "$2" |
        grep -v 'Engine core' | tail -n 1 | tr '|' / | cut -c1-200) || true
    missing=$(sed -n "s/.*No module named '\([^'.]*\).*/\1/p" <<<"$said" | tr _ -)
    echo "${said:-code $1, see $2}${missing:+: pip install $missing}"
}

# Runs one check, shows its output, keeps it in a file, and writes its lines of the table. It leaves
# 40 s to each later one.
check() { # NAME COMMAND...
    local name=$1 begun=$SECONDS code=0 limit=$((LIMIT - SECONDS - 40 * --later))
    shift
    printf '\n== %s\n+ %s\n' "$name" "$*"
    if ((limit < 10)); then
        echo "| $name | skipped | LIMIT=$LIMIT s are over |" >>"$OUT/report.md"
        failed+=("$name")
        return
    fi
    timeout -k 10 "$limit" "$@" 2>&1 </dev/null | tee "$OUT/$name.txt" || code=${PIPESTATUS[0]}
    rows_of "$name ($((SECONDS - begun)) s)" <"$OUT/$name.txt" >>"$OUT/report.md"
    [ "$code" != 0 ] || return 0
    failed+=("$name")
    grep -aqE '^[|].*[|] failed: ' "$OUT/$name.txt" ||
        echo "| $name ($((SECONDS - begun)) s) | failed | $(cause_of "$code" "$OUT/$name.txt") |" >>"$OUT/report.md"
}

read -ra rows <<<"$ROWS"
read -ra sizes <<<"$SIZES"
later=$((1 + 3 * ${#sizes[@]}))
[ -z "$vllm_python" ] || later=$((later + ${#sizes[@]}))
printf '| check | | |\n|---|---|---|\n' >"$OUT/report.md"
check environment "$PYTHON" -c "$software"
for size in "${sizes[@]}"; do
    check "parity-$size" "$PYTHON" scripts/benchmarks/parity_gpu.py --size "$size" --device "$DEVICE"
    check "engine-$size" "$PYTHON" scripts/benchmarks/engine.py \
        --size "$size" --rows "${rows[@]}" --new "$NEW" --runs "$RUNS" --device "$DEVICE"
    check "training-$size" "$PYTHON" scripts/benchmarks/training_gpu.py \
        --size "$size" --rows "$STEP" --runs "$RUNS" --device "$DEVICE"
done
for size in "${sizes[@]}"; do
    if [ -n "$vllm_python" ]; then
        check "vllm-$size" env VLLM_NO_USAGE_STATS=1 "$vllm_python" scripts/benchmarks/vllm_engine.py \
            --size "$size" --rows "${rows[@]}" --new "$NEW" --runs "$RUNS" --device "$DEVICE" "${eager[@]}"
    else
        echo "| vllm-$size | skipped | no vLLM is found: scripts/setup.sh --vllm, or VLLM_BIN= |" >>"$OUT/report.md"
    fi
done

printf '\n== %s, after %s s\n' "$OUT/report.md" "$SECONDS"
cat "$OUT/report.md"
if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_check.sh: failed: ${failed[*]}; what they said is in $OUT" >&2
    exit 1
fi
printf '\nAll checks ran; what they said is in %s\n' "$OUT"
