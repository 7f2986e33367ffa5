#!/usr/bin/env bash
# Lint and all tests, from nothing: makes the virtual environment when it is missing.
#
#   bash scripts/test.sh                          # everything, some 9 minutes on 2 cores
#   bash scripts/test.sh fast                     # what needs no other process: tests/unit
#   bash scripts/test.sh tests/unit/envs -k box   # arguments go to pytest
set -euo pipefail
if [ "${1-}" = fast ]; then set -- tests/unit "${@:2}"; fi

VENV=${VENV:-.venv}  # the environment that scripts/setup.sh makes
JOBS=${JOBS:-3}      # test files that run side by side: some of them wait

cd "$(dirname "$0")/.."
VENV="$VENV" bash scripts/setup.sh

# A browser for the report and the web pages, Slurm and ssh for several nodes; without them those
# tests say that they skip.
packages=()
for pair in chromium:chromium slurmctld:slurm-wlm munged:munge sshd:openssh-server pdsh:pdsh; do
    PATH="$PATH:/usr/sbin" command -v "${pair%:*}" >/dev/null || packages+=("${pair#*:}")
done
if [ "${#packages[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "test.sh: installing ${packages[*]}"
    # In "runlevel 1" nothing that is installed is started.
    { apt-get -qq update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${packages[@]}"; } \
        >/dev/null 2>&1 || echo "test.sh: ${packages[*]} could not be installed" >&2
fi

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # two cores, several processes: threads would fight
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 WANDB_MODE=offline

"$VENV/bin/mypy" & # a minute, beside the first tests
types=$! code=0
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
PYTHONPATH=.:FastChat "$VENV/bin/lint-imports" --no-cache --no-logo
git ls-files '*.sh' .ci/run | xargs "$VENV/bin/shellcheck"
"$VENV/bin/python" -m pytest -n "$JOBS" --dist loadfile --no-loadscope-reorder "$@" || code=$?
wait "$types" || { code=$? && echo "test.sh: mypy refuses something, see its lines above" >&2; }
exit "$code"
