# shellcheck shell=bash disable=SC2034,SC2153,SC2154  # scripts that source it share variables
# What scripts that source this file say of their arguments; how rise.sh, quickstart.sh, study.sh and
# real.sh run a stage: its output goes to OUT/logs/STAGE.log, and the screen gets one line. They need
# OUT. Then, for the last three, the stages themselves.

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
refuse() { echo "${0##*/}: $*" >&2; exit 2; }

# Prints the head of a script, its knobs included, and ends.
usage() { sed -n '2,/^cd /{/^set /d;/^cd /d;s/^# \{0,1\}//;p}' "scripts/${0##*/}"; exit; }

no_arguments() { # ARGUMENTS of the script
    case ${1-} in
        "") ;;
        -h | --help) usage ;;
        *) refuse "takes no arguments, not '$1': its knobs are variables, see --help" ;;
    esac
}

# Ends a process group as soon as its input closes, so when the script is gone, by kill -9 too: a
# launcher like deepspeed, and the trainers that it started, would go on. A training has a minute to
# finish its step and save a checkpoint.
guard() { # GROUP
    trap '' INT TERM HUP
    cat >/dev/null
    kill -TERM -- "-$1" 2>/dev/null || exit 0
    for _ in {1..600}; do
        sleep 0.1
        kill -0 -- "-$1" 2>/dev/null || exit 0
    done
    kill -KILL -- "-$1" 2>/dev/null || true
}

# A terminal shows the last thing that the stage has said until it ends, unless QUIET is set.
stage() { # NAME COMMAND...
    local name=$1 log=$OUT/logs/${1//\//-}.log begun=$SECONDS code=0 clear='' group guard pipe said
    shift
    mkdir -p "$OUT/logs"
    # What a killed call has left of this stage is ended by its guard, at the latest after a minute.
    for _ in {1..650}; do
        kill -0 -- "-$(cat "$log.group" 2>/dev/null || echo none)" 2>/dev/null || break
        sleep 0.1
    done
    printf '+%s\n' "$(printf ' %q' "$@")" >>"$log"
    set -m # process groups of their own
    coproc GUARD { read -r group && guard "$group"; }
    guard=$GUARD_PID pipe=${GUARD[1]}
    "$@" >>"$log" 2>&1 </dev/null &
    group=$!
    echo "$group" >&"$pipe"
    echo "$group" >"$log.group"
    set +m
    if [ -t 1 ]; then clear=$'\r\033[K'; fi
    if [ -t 1 ] && [ -z "${QUIET-}" ]; then
        while kill -0 "$group" 2>/dev/null; do
            said=$(tail -c 300 "$log" | tr '\r' '\n' | tail -n 1)
            printf '%s   %-20s %s' "$clear" "$name" "${said:0:55}"
            sleep 1
        done
    fi
    wait "$group" || code=$?
    exec {pipe}>&-
    wait "$guard" || true
    rm -f "$log.group"
    printf '%s   %-20s %d min %02d s\n' "$clear" "$name" $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
    if [ "$code" != 0 ]; then
        tail -n 25 "$log" >&2
        echo "${0##*/}: $name ended with code $code; all that it said is in $log." \
            "Run the script again to go on there." >&2
    fi
    return "$code"
}

# Runs in the background, as process BESIDE; its stages have their lines on the screen as they end.
# All of it ends with this script, after kill -9 too, which closes the pipe to its guard.
background() { # COMMAND...
    local pipe
    exec {pipe}> >(exec setsid bash -c "$(declare -f guard); read -r group; guard \"\$group\"")
    set -m
    QUIET=1 "$@" </dev/null {pipe}>&- &
    set +m
    BESIDE=$!
    echo "$BESIDE" >&"$pipe"
}

# Two stages at a time share the cores; one alone may have them all, ALONE.
share_cores() {
    ALONE=${OMP_NUM_THREADS:-$(python -c 'from fastchat.utils import own_cores; print(own_cores())')}
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((ALONE + 1) / 2))}
}

# Refuses a knob that is no whole number; all but SEED must be above 0. Bash takes 08 for octal.
counts() { # NAME...
    local knob
    for knob; do
        [[ ${!knob} =~ ^(0|[1-9][0-9]*)$ ]] || refuse "$knob must be a whole number, not '${!knob}'$([[ ! ${!knob} =~ ^0[0-9]+$ ]] || echo ': leave out the leading 0')"
        [ "$knob" = SEED ] || ((${!knob} > 0)) || refuse "$knob must be above 0"
    done
}

# Writes the knobs to OUT/knobs; refuses an OUT that was made with others.
remember() { # NAME...
    local knob knobs=''
    for knob; do knobs="$knobs${knobs:+ }$knob=${!knob}"; done
    if [ -f "$OUT/knobs" ] && [ "$(cat "$OUT/knobs")" != "$knobs" ]; then
        refuse "$OUT was made with $(cat "$OUT/knobs"), and now it is $knobs: give another OUT"
    fi
    mkdir -p "$OUT"
    echo "$knobs" >"$OUT/knobs"
    say "$OUT: what the stages print is in $OUT/logs"
}

# The stages of quickstart.sh, study.sh and real.sh, which say what all of a kind have in common:
# `asked`, of generation and evaluation; `trainer`, of training; ENV_NAME; BASE, whose tokenizer
# counts; TEACHER, who answers turn 2 unless EXPERT is self; and SAMPLES, of which the best counts.

generate() { # NAME DATA TURNS ARGUMENTS...
    stage "$1" python workflow_gen.py "${asked[@]}" --data_path "$OUT/data/$2.jsonl" \
        --log_dir "$OUT/$1" --max_turns "$3" "${@:4}"
}

roll_out() { # NAME DATA STUDENT NUMBER, of the episode of each problem
    local teacher=$TEACHER
    if [ "$EXPERT" = self ]; then teacher=$3; fi
    generate "$1" "$2" 2 --num_of_samples 1 "$SAMPLES" --models "$3" "$teacher" \
        --correct_to_correct --seed $((SEED + 1000 * $4))
}

convert() { # NAME ARGUMENTS...
    stage "convert-$1" python workflow_convert.py "${@:2}" --output "$OUT/$1.json" \
        --model_path "$BASE" --env "$ENV_NAME" --shuffle "$SEED"
}

train() { # NAME DATA FROM EPOCHS [ARGUMENTS]
    stage "train-$1" python FastChat/fastchat/train/train_mem.py "${trainer[@]}" \
        --model_name_or_path "$3" --data_path "$OUT/$2.json" --output_dir "$OUT/$1" \
        --num_train_epochs "$4" --gradient_accumulation_steps 1 --weight_decay 0. \
        --warmup_ratio 0.04 --lr_scheduler_type cosine --save_strategy steps \
        --save_total_limit 1 --report_to none --seed "$SEED" "${@:5}"
}

evaluate() { # MODEL NAME [ARGUMENTS]
    stage "eval-$2" python workflow_eval.py "${asked[@]}" --model "$1" --context_window 2 \
        --data_path "$OUT/data/test.jsonl" --log_dir "$OUT/eval/$2" ${TEST:+--limit "$TEST"} "${@:3}"
}

# Five turns and, at turn 1, five samples for the majority vote of parallel answers.
turns() { # MODEL NAME [ARGUMENTS]
    evaluate "$1" "$2" --max_turns 5 --num_of_samples 5 1 1 1 1 "${@:3}"
}
