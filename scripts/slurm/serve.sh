#!/usr/bin/env bash
#SBATCH --job-name=rise-serve
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# A controller on the first node and a worker per task, that is per GPU, on all of them. Submit it
# from the repository; it serves until it is cancelled.
#
#   sbatch --nodes=2 --ntasks-per-node=8 scripts/slurm/serve.sh --model-path meta-llama/Llama-2-7b-chat-hf
#
# On nodes without GPUs: sbatch --gpus-per-task=0. The controller's URL is written to ADDRESS_FILE,
# where array.sh finds it. Arguments are the worker's. Everybody who reaches the nodes can use the
# workers: they ask for no key.
set -euo pipefail

WORKER=${WORKER:-fastchat.serve.model_worker}   # module of the workers
HOST=${HOST:-0.0.0.0}                           # address to listen on; node: the node's own name
PORT=${PORT:-21001}                             # of the controller
WORKER_PORT=${WORKER_PORT:-21002}               # of a node's first worker; the others count on
ADDRESS_FILE=${ADDRESS_FILE:-log/controller}    # gets the controller's URL
VENV=${VENV:-.venv}                             # environment to use if none is active

# Slurm runs a copy of this file.
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/../..}"
if [ ! -f scripts/slurm/serve.sh ]; then
    echo "serve.sh: $PWD is not the repository: submit it from there" >&2
    exit 2
fi
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi
node=${SLURMD_NODENAME:-$(hostname)}
if [ "$HOST" = node ]; then host=$node; else host=$HOST; fi

if [ -n "${CONTROLLER:-}" ]; then  # a task of srun
    port=$((WORKER_PORT + ${SLURM_LOCALID:-0}))
    exec python -m "$WORKER" --host "$host" --port "$port" --worker-address "http://$node:$port" \
        --controller-address "$CONTROLLER" "$@"
fi

export CONTROLLER=http://$node:$PORT
answers() { # whether a controller does
    python - "$CONTROLLER" 2>/dev/null <<'END'
import sys
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(sys.argv[1] + "/test_connection", timeout=5)
END
}
if answers; then
    echo "serve.sh: a controller answers at $CONTROLLER already: give another PORT" >&2
    exit 2
fi
python -m fastchat.serve.controller --host "$host" --port "$PORT" &
controller=$!
trap 'rm -f "$ADDRESS_FILE"; kill "$controller" 2>/dev/null || true' EXIT
until answers; do
    if ! kill -0 "$controller" 2>/dev/null; then
        echo "serve.sh: the controller ended (see above); is port $PORT of $node taken?" >&2
        exit 1
    fi
    sleep 1
done
mkdir -p "$(dirname "$ADDRESS_FILE")"
echo "$CONTROLLER" >"$ADDRESS_FILE"
# srun does not take this over from sbatch: without it a step may get a single core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# A worker that fails must not end the others.
status=0
srun --kill-on-bad-exit=0 bash scripts/slurm/serve.sh "$@" || status=$?
# As in finetune.sh.
if [ "$status" -ne 0 ] && scontrol show job -o "$SLURM_JOB_ID" | grep -q ' PreemptTime=[0-9]'; then
    echo "serve.sh: preempted; waiting to be requeued" >&2
    kill "$controller"
    trap - EXIT # array.sh's tasks find the address, and wait
    sleep 3600
fi
exit "$status"
