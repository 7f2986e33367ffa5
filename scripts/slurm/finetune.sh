#!/usr/bin/env bash
# Stage 3 on several nodes of a Slurm cluster: scripts/finetune_deepspeed.sh, once per node.
#
#   sbatch scripts/slurm/finetune.sh
#   MODEL=checkpoints/sft ACCUMULATION=4 sbatch --nodes=4 scripts/slurm/finetune.sh --max_steps 100
#
# Repository, environment, data and OUTPUT_DIR must lie on a file system that all nodes share. A job
# that was requeued or submitted again resumes from its last checkpoint; it saves one before it is
# preempted, and five minutes before its time ends. 2 nodes x 8 GPUs with ACCUMULATION=4 make the
# published batch of 64. On nodes without GPUs: sbatch --gpus-per-node=0.
#SBATCH --job-name=rise-finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@300
#SBATCH --open-mode=append
#SBATCH --output=finetune-%j.log
set -euo pipefail

export ACCUMULATION=${ACCUMULATION:-4}                  # forward passes per optimizer step
export MASTER_PORT=${MASTER_PORT:-20001}                # a port that is free on the first node
ROOT=${ROOT:-${SLURM_SUBMIT_DIR:?start with sbatch}}    # the repository

cd "$ROOT"
if [ ! -f scripts/finetune_deepspeed.sh ]; then
    echo "finetune.sh: $ROOT is not the repository: submit it from there, or set ROOT" >&2
    exit 2
fi
NODES=${SLURM_JOB_NUM_NODES:?start with sbatch}
MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?start with sbatch}" | head -n 1)
export NODES MASTER_ADDR ROOT
# srun does not take this over from sbatch: without it a step may get a single core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

status=0
# In the place of the shell, which would end at a signal before the trainers do.
# shellcheck disable=SC2016  # expanded on each node
srun --kill-on-bad-exit=1 bash -c \
    'trap "" USR1; export NODE_RANK=$SLURM_NODEID; exec bash scripts/finetune_deepspeed.sh "$@"' \
    finetune "$@" || status=$?
# Preemption signals the steps first, and requeues the job if its script still runs at the end of
# the grace time.
if [ "$status" -ne 0 ] && scontrol show job -o "$SLURM_JOB_ID" | grep -q ' PreemptTime=[0-9]'; then
    echo "finetune.sh: preempted; waiting to be requeued" >&2
    sleep 3600
fi
exit "$status"
