#!/usr/bin/env bash
# The OpenAI server, asked by clients that people use: litellm, inspect_ai and
# lm-evaluation-harness, newest versions from the registry, in an environment of their own.
#
#   bash scripts/check_clients.sh
#
# A tiny model learns eight problems by heart, some of them wrongly; workflow_eval.py and every
# client ask it greedily, and all have to count the same right answers. One line per client.
set -euo pipefail

OUT=${OUT:-log/clients}        # where everything is written, the clients' environment too
VENV=${VENV:-.venv}            # the environment that scripts/setup.sh makes
CLIENTS=${CLIENTS:-litellm inspect_ai lm_eval}

cd "$(dirname "$0")/.."
. scripts/stages.sh
no_arguments "$@"
VENV=$(realpath "$VENV")
[ -x "$VENV/bin/python" ] || refuse "no $VENV/bin/python: run scripts/setup.sh, or say which with VENV="
mkdir -p "$OUT"
if [ ! -e "$OUT/env/done" ]; then
    echo "+ pip install $CLIENTS, into $OUT/env"
    "$VENV/bin/python" -m venv "$OUT/env"
    # torch, transformers and datasets are those of the other environment.
    "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$("$OUT/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rise.pth"
    # shellcheck disable=SC2086
    if ! { "$OUT/env/bin/pip" install -q --ignore-installed --no-deps $CLIENTS &&
        "$OUT/env/bin/pip" install -q $CLIENTS; } >"$OUT/log" 2>&1; then
        echo "check_clients.sh: pip failed; $OUT/log says why" >&2
        exit 1
    fi
    touch "$OUT/env/done"
fi
export PYTHONPATH=$PWD:$PWD/FastChat HF_HUB_OFFLINE=1 WANDB_MODE=offline TOKENIZERS_PARALLELISM=false
# shellcheck disable=SC2086
if ! "$VENV/bin/python" scripts/clients/serve.py --output_dir "$OUT" -- \
    "$OUT/env/bin/python" scripts/clients/ask.py --directory "$OUT" --clients $CLIENTS \
    2>"$OUT/log"; then
    echo "check_clients.sh: not all agree; $OUT/log has the rest" >&2
    exit 1
fi
