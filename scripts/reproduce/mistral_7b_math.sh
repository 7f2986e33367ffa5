#!/usr/bin/env bash
# Mistral-7B on MATH: one iteration with an expert (distillation).
#
#   bash scripts/reproduce/mistral_7b_math.sh            # needs GPUs and a key; resumes
#   bash scripts/reproduce/mistral_7b_math.sh --dry-run  # every command
#   SMOKE=1 bash scripts/reproduce/mistral_7b_math.sh    # a tiny random model on the CPU
#
# The paper reports, in percent (cells that we could confirm; its other cells are left out):
#               m1@t1  m5@t1  m1@t5
#   iteration 1          9.5   18.4
#
# More knobs: scripts/reproduce/run.sh. Its one argument is rise.sh's: --dry-run or --check.
set -euo pipefail

MODEL=${MODEL:-hf:mistralai/Mistral-7B-Instruct-v0.2}  # the base: hf:ORG/NAME or a directory
EXPERT=${EXPERT:-gpt-3.5-turbo}                        # who answers turn 2; self: best of 16
BOOST=${BOOST-}                                        # SFT before iteration 1; empty: none
ITERATIONS=${ITERATIONS:-1}                            # how often to generate and train

export MODEL EXPERT BOOST ITERATIONS NAME=mistral_7b_math ENV_NAME=math TEMPLATE=mistral
exec bash "$(dirname "$0")/run.sh" "$@"
