#!/usr/bin/env bash
# Stage 3, fine-tune: reward-weighted regression with DeepSpeed, the published settings. They make a
# batch of 64 on 4 GPUs; on another number change ACCUMULATION so that the product stays.
#
#   bash scripts/finetune_deepspeed.sh
#   NUM_GPUS=1 ACCUMULATION=64 REPORT_TO=none bash scripts/finetune_deepspeed.sh --max_steps 10
#   HOSTFILE=scripts/multinode/hostfile bash scripts/finetune_deepspeed.sh    # starts all nodes
#   NODES=2 NODE_RANK=0 MASTER_ADDR=node1 bash scripts/finetune_deepspeed.sh  # here, and with
#   NODES=2 NODE_RANK=1 MASTER_ADDR=node1 bash scripts/finetune_deepspeed.sh  # rank 1 on node2
#
# Relative paths are relative to the repository. Further arguments are passed on. SIGTERM, SIGUSR1 and
# Ctrl-C save a checkpoint first; launchers kill 30 s after SIGTERM, so where a step and a save take
# longer send SIGUSR1 to the processes: the trainers alone take it.
set -euo pipefail

MODEL=${MODEL:-meta-llama/Llama-2-7b-chat-hf}               # checkpoint to start from
DATA_PATH=${DATA_PATH:-dataset/finetune.json}               # rows of workflow_convert.py
OUTPUT_DIR=${OUTPUT_DIR:-checkpoints/rise}                  # where checkpoints are written
NUM_GPUS=${NUM_GPUS:--1}                                    # processes per node; -1: one per GPU
HOSTFILE=${HOSTFILE:-}                                      # nodes that ssh reaches; empty: none
NODES=${NODES:-1}                                           # nodes on which this script is started
NODE_RANK=${NODE_RANK:-0}                                   # which of them this is, from 0
MASTER_ADDR=${MASTER_ADDR:-}                                # node 0, as the other nodes reach it
MASTER_PORT=${MASTER_PORT:-20001}                           # a free port
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-deepspeed/zero3.json}  # zero2, zero3, zero3_offload
EPOCHS=${EPOCHS:-1}                                         # passes over the rows
BATCH_SIZE=${BATCH_SIZE:-1}                                 # rows per process and forward pass
ACCUMULATION=${ACCUMULATION:-16}                            # forward passes per optimizer step
LEARNING_RATE=${LEARNING_RATE:-1e-5}                        # highest learning rate
MAX_LENGTH=${MAX_LENGTH:-2048}                              # longest row in tokens
SAVE_STEPS=${SAVE_STEPS:-100}                               # optimizer steps between checkpoints
REPORT_TO=${REPORT_TO:-wandb}                               # wandb | tensorboard | none
VENV=${VENV:-.venv}                                         # environment to use if none is active

cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$VENV/bin/python" ]; then
    export PATH="$PWD/$VENV/bin:$PATH"
fi

trap '' USR1 # inherited by the launcher, which would end; the trainers handle it
# Under Slurm torchrun on one node too: there deepspeed ends at SIGTERM before its processes do.
if [ "$NODES" -gt 1 ] || [ -n "${SLURM_JOB_ID:-}" ]; then
    per_node=$NUM_GPUS
    if [ "$per_node" = -1 ]; then # a process on the CPU where there is no GPU
        per_node=$(python -c 'import torch; print(torch.accelerator.device_count() or 1)')
    fi
    launcher=(torchrun --nnodes "$NODES" --node_rank "$NODE_RANK" --nproc_per_node "$per_node"
        --master_addr "${MASTER_ADDR:-127.0.0.1}")
elif [ -n "$HOSTFILE" ]; then
    launcher=(deepspeed --hostfile "$HOSTFILE" --num_gpus="$NUM_GPUS"
        ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"}) # else DeepSpeed asks the first node
else
    launcher=(deepspeed --num_gpus="$NUM_GPUS")
fi

command=(
    "${launcher[@]}" --master_port "$MASTER_PORT"
    FastChat/fastchat/train/train_mem.py
    --deepspeed "$DEEPSPEED_CONFIG"
    --model_name_or_path "$MODEL"
    --data_path "$DATA_PATH"
    --bf16 True
    --output_dir "$OUTPUT_DIR"
    --num_train_epochs "$EPOCHS"
    --per_device_train_batch_size "$BATCH_SIZE"
    --per_device_eval_batch_size "$BATCH_SIZE"
    --gradient_accumulation_steps "$ACCUMULATION"
    --evaluation_strategy steps
    --save_strategy steps
    --save_steps "$SAVE_STEPS"
    --save_total_limit 8
    --learning_rate "$LEARNING_RATE"
    --weight_decay 0.
    --warmup_ratio 0.04
    --lr_scheduler_type cosine
    --logging_steps 1
    --tf32 True
    --model_max_length "$MAX_LENGTH"
    --gradient_checkpointing True
    --lazy_preprocess False
    --report_to "$REPORT_TO"
    "$@"
)
echo "+$(printf " %q" "${command[@]}")"  # at once: several nodes may share the output
exec "${command[@]}"
