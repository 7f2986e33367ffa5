#!/usr/bin/env bash
# Llama-2-7B on MATH: a boost, then two iterations with an expert (distillation).
#
#   bash scripts/reproduce/llama2_7b_math.sh            # needs GPUs and a key; resumes
#   bash scripts/reproduce/llama2_7b_math.sh --dry-run  # every command
#   SMOKE=1 bash scripts/reproduce/llama2_7b_math.sh    # a tiny random model on the CPU
#
# The paper reports, in percent (cells that we could confirm; its other cells are left out):
#               m1@t1  m5@t1  m1@t5
#   iteration 1          8.8    9.7
#   iteration 2   5.8   10.4   10.4
#
# The boost is fine-tuned on the expert's right answers at turn 1; BOOST=FILE.json takes rows of
# your own. We could not confirm what the paper's was fine-tuned on.
#
# More knobs: scripts/reproduce/run.sh. Its one argument is rise.sh's: --dry-run or --check.
set -euo pipefail

MODEL=${MODEL:-hf:meta-llama/Llama-2-7b-chat-hf}  # the base: hf:ORG/NAME or a directory
EXPERT=${EXPERT:-gpt-3.5-turbo}                   # who answers turn 2; self: best of 16
BOOST=${BOOST-expert}                             # SFT before iteration 1; empty: none
ITERATIONS=${ITERATIONS:-2}                       # how often to generate and train

export MODEL EXPERT BOOST ITERATIONS NAME=llama2_7b_math ENV_NAME=math TEMPLATE=llama-2
exec bash "$(dirname "$0")/run.sh" "$@"
