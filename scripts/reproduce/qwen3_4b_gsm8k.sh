#!/usr/bin/env bash
# Qwen3-4B on GSM8K: one iteration of self-distillation. Not a model of the paper.
#
#   bash scripts/reproduce/qwen3_4b_gsm8k.sh            # needs GPUs; resumes
#   bash scripts/reproduce/qwen3_4b_gsm8k.sh --dry-run  # every command
#   SMOKE=1 bash scripts/reproduce/qwen3_4b_gsm8k.sh    # a tiny random model on the CPU
#
# More knobs: scripts/reproduce/run.sh. Its one argument is rise.sh's: --dry-run or --check.
set -euo pipefail

MODEL=${MODEL:-hf:Qwen/Qwen3-4B-Instruct-2507}  # the base: hf:ORG/NAME or a directory
EXPERT=${EXPERT:-self}                          # who answers turn 2; self: best of 16
BOOST=${BOOST-}                                 # SFT before iteration 1; empty: none
ITERATIONS=${ITERATIONS:-1}                     # how often to generate and train

export MODEL EXPERT BOOST ITERATIONS NAME=qwen3_4b_gsm8k ENV_NAME=gsm8k TEMPLATE=chatml
exec bash "$(dirname "$0")/run.sh" "$@"
