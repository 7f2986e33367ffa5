#!/usr/bin/env bash
# Llama-3-8B on MATH: one iteration of self-distillation.
#
#   bash scripts/reproduce/llama3_8b_math.sh            # needs GPUs; resumes
#   bash scripts/reproduce/llama3_8b_math.sh --dry-run  # every command
#   SMOKE=1 bash scripts/reproduce/llama3_8b_math.sh    # a tiny random model on the CPU
#
# None of the paper's cells for this model could be confirmed, so none is given.
#
# More knobs: scripts/reproduce/run.sh. Its one argument is rise.sh's: --dry-run or --check.
set -euo pipefail

MODEL=${MODEL:-hf:meta-llama/Meta-Llama-3-8B-Instruct}  # the base: hf:ORG/NAME or a directory
EXPERT=${EXPERT:-self}                                  # who answers turn 2; self: best of 16
BOOST=${BOOST-}                                         # SFT before iteration 1; empty: none
ITERATIONS=${ITERATIONS:-1}                             # how often to generate and train

export MODEL EXPERT BOOST ITERATIONS NAME=llama3_8b_math ENV_NAME=math TEMPLATE=llama-3
exec bash "$(dirname "$0")/run.sh" "$@"
