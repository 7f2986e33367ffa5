# shellcheck shell=bash
# How rise.sh, quickstart.sh, study.sh and real.sh, which source this file, run a stage: its output
# goes to OUT/logs/STAGE.log, and the screen gets one line. They need OUT.

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# Ends a process group as soon as its input closes, so when the script is gone, by kill -9 too: a
# launcher like deepspeed, and the trainers that it started, would go on.
guard() { # GROUP
    trap '' INT TERM HUP
    cat >/dev/null
    kill -TERM -- "-$1" 2>/dev/null || exit 0
    for _ in {1..80}; do
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
    # What a killed call has left of this stage is ended by its guard within seconds.
    for _ in {1..100}; do
        kill -0 -- "-$(cat "$log.group" 2>/dev/null || echo none)" 2>/dev/null || break
        sleep 0.1
    done
    printf '+%s\n' "$(printf ' %q' "$@")" >>"$log"
    set -m # process groups of their own
    "$@" >>"$log" 2>&1 </dev/null &
    group=$!
    echo "$group" >"$log.group"
    coproc GUARD { guard "$group"; }
    set +m
    # shellcheck disable=SC2153
    guard=$GUARD_PID pipe=${GUARD[1]}
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
        echo "$(basename "$0"): $name ended with code $code; all that it said is in $log." \
            "Run the script again to go on there." >&2
    fi
    return "$code"
}

# Runs in the background; its stages have their lines on the screen as they end.
background() { # COMMAND...
    # A process group of its own, so that all of it can be ended when this script ends; a kill -9 of
    # the script closes the pipe to its guard.
    local pipe
    exec {pipe}> >(exec setsid bash -c "$(declare -f guard); read -r group; guard \"\$group\"")
    set -m
    QUIET=1 "$@" </dev/null {pipe}>&- &
    set +m
    echo "$!" >&"$pipe"
}

# Refuses a knob that is no whole number; all but SEED must be above 0.
counts() { # NAME...
    local knob
    for knob; do
        if ! [[ ${!knob} =~ ^(0|[1-9][0-9]*)$ ]]; then
            echo "$(basename "$0"): $knob must be a whole number, not '${!knob}'" >&2
            exit 2
        fi
        if [ "$knob" != SEED ] && ((${!knob} == 0)); then
            echo "$(basename "$0"): $knob must be above 0" >&2
            exit 2
        fi
    done
}

# Writes the knobs to OUT/knobs; refuses an OUT that was made with others.
remember() { # NAME...
    local knob knobs=''
    for knob; do knobs="$knobs${knobs:+ }$knob=${!knob}"; done
    if [ -f "$OUT/knobs" ] && [ "$(cat "$OUT/knobs")" != "$knobs" ]; then
        echo "$(basename "$0"): $OUT was made with $(cat "$OUT/knobs"), and now it is $knobs:" \
            "give another OUT" >&2
        exit 2
    fi
    mkdir -p "$OUT"
    echo "$knobs" >"$OUT/knobs"
    say "$OUT: what the stages print is in $OUT/logs"
}
