#!/usr/bin/env bash
# Stage 3 on several nodes of a Slurm cluster: scripts/finetune_deepspeed.sh, once per node.
#
#   sbatch scripts/slurm/finetune.sh
#   MODEL=checkpoints/sft ACCUMULATION=4 sbatch --nodes=4 scripts/slurm/finetune.sh --max_steps 100
#
# Repository, environment, data and OUTPUT_DIR must lie on a file system that all nodes share. A job
# that was requeued or submitted again resumes from its last checkpoint. 2 nodes x 8 GPUs with
# ACCUMULATION=4 make the published batch of 64.
#SBATCH --job-name=rise-finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=finetune-%j.log
set -euo pipefail

export ACCUMULATION=${ACCUMULATION:-4}                  # forward passes per optimizer step
export MASTER_PORT=${MASTER_PORT:-20001}                # a port that is free on the first node
ROOT=${ROOT:-${SLURM_SUBMIT_DIR:?start with sbatch}}    # the repository

NODES=${SLURM_JOB_NUM_NODES:?start with sbatch}
MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?start with sbatch}" | head -n 1)
export NODES MASTER_ADDR ROOT
# srun does not take this over from sbatch: without it a step may get a single core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

cd "$ROOT"
# shellcheck disable=SC2016  # expanded on each node
srun --kill-on-bad-exit=1 bash -c \
    'NODE_RANK=$SLURM_NODEID bash scripts/finetune_deepspeed.sh "$@"' finetune "$@"
