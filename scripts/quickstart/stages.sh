# shellcheck shell=bash disable=SC2034
# What quickstart.sh and study.sh, which source this file after scripts/stages.sh, ask of a stage. It
# needs OUT, SEED, SIZE, DEVICE and EXPERT.

# How hard the problems are (wins and losses in each), how many there are, and how fast the model of
# that size (scripts/quickstart/make_base.py) is fine-tuned.
case $SIZE in
    small) CHANGES=4 problems=3200 chats=28000 rate=3e-3 ;;
    medium) CHANGES=5 problems=6400 chats=56000 rate=1.5e-3 ;;
    large) CHANGES=6 problems=12800 chats=112000 rate=7.5e-4 ;;
    *) refuse "SIZE must be small, medium or large, not '$SIZE'" ;;
esac
PROBLEMS=${PROBLEMS:-$problems} CHATS=${CHATS:-$chats}

# One process, also where there are several GPUs: it needs no launcher. Two workers may share one, for
# which vLLM would not do.
worker="--device $DEVICE"
case $DEVICE in
    cpu) trainer=(--use_cpu True); export DS_ACCELERATOR=cpu ;;
    cuda) trainer=() worker+=" --engine embedded" ;;
    *) refuse "DEVICE must be cpu or cuda, not '$DEVICE'" ;;
esac
case $EXPERT in
    program) SAMPLES=1 ;;
    self) SAMPLES=16 ;;
    *) refuse "EXPERT must be program or self, not '$EXPERT'" ;;
esac
# Two processes share two cores: one thread each.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

ENV_NAME=gsm8k BASE=$OUT/base TEACHER=data/arithmetic.py:expert
START=$BASE GENERATE=train DATASET=finetune step=()
asked=(--env gsm8k --prompt_style bare --temperature 1.0 --max_new_tokens 96)
asked+=(--worker_args "$worker" --seed "$SEED")
trainer+=(--deepspeed deepspeed/zero3.json --per_device_train_batch_size 16 --learning_rate "$rate")
trainer+=(--adam_beta2 0.98 --max_grad_norm 1.0 --model_max_length 512 --save_steps 400)
trainer+=(--logging_steps 20)
