#!/usr/bin/env bash
#SBATCH --job-name=rise-array
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
# One stage over a job array: task I of N plays shard I/N in LOG_DIR/shard-I. Submit it from the
# repository; a task that was killed goes on when it is submitted again.
#
#   LOG_DIR=log/gsm8k sbatch --array=1-8 scripts/slurm/array.sh                # asks ADDRESS_FILE's
#   MODELS="./M ./M" sbatch --array=1-8 --gpus=1 scripts/slurm/array.sh        # serves ./M itself
#   SHARDS=8 sbatch --array=3,7 scripts/slurm/array.sh                         # two of them again
#   sbatch --dependency=afterok:JOB --wrap ".venv/bin/python -m rise.merge log/gsm8k/shard-* -o log/gsm8k/all"
#
# The knobs of the stage's script hold here too, and further arguments are passed on.
set -euo pipefail

STAGE=${STAGE:-gen}                             # gen | eval_sequential | eval_parallel
SHARDS=${SHARDS:-${SLURM_ARRAY_TASK_MAX:-1}}    # N; tell it where not all tasks are submitted
LOG_DIR=${LOG_DIR:-log/gsm8k}                   # the shards' run directories are made in it
ADDRESS_FILE=${ADDRESS_FILE:-log/controller}    # the controller's URL, as serve.sh wrote it

# Slurm runs a copy of this file.
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/../..}"
shard=${SLURM_ARRAY_TASK_ID:-1}
if [ -s "$ADDRESS_FILE" ]; then
    set -- --controller_address "$ADDRESS_FILE" "$@"
fi
export LOG_DIR=$LOG_DIR/shard-$shard
# In the place of this shell: Slurm's SIGTERM reaches Python, which says how to go on.
exec bash "scripts/$STAGE.sh" --shard "$shard/$SHARDS" "$@"
