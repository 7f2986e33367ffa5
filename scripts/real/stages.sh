# shellcheck shell=bash disable=SC2034
# What real.sh and study.sh, which source this file after scripts/stages.sh, ask of a stage. It needs
# OUT, SEED, EXPERT, MODEL, WARM, DEVICE, DTYPE, SMOKE, ROLLOUTS and TEST.

case $EXPERT in
    reference) SAMPLES=1 ;;
    self) SAMPLES=8 ;;
    *) refuse "EXPERT must be reference or self, not '$EXPERT'" ;;
esac
case ${ANSWER:=expression} in
    expression) ENV_NAME=scripts/real/calculator.py:Calculator TEACHER=data/splits.py:expert ;;
    equation) ENV_NAME=scripts/real/calculator.py:Equation TEACHER=scripts/real/calculator.py:expert ;;
    *) refuse "ANSWER must be expression or equation, not '$ANSWER'" ;;
esac
# Two workers may share a GPU, for which vLLM would not do.
worker="--device $DEVICE"
case $DEVICE in
    cpu) trainer=(--use_cpu True); export DS_ACCELERATOR=cpu ;;
    cuda) trainer=() worker+=" --engine embedded" DTYPE=${DTYPE:-bfloat16} ;;
    *) refuse "DEVICE must be cpu or cuda, not '$DEVICE'" ;;
esac
if [ -z "$DTYPE" ]; then
    DTYPE=float32
    if grep -q -m 1 -E 'avx512_bf16|amx_bf16' /proc/cpuinfo; then DTYPE=bfloat16; fi
fi
batch=30
if [ -n "$SMOKE" ]; then batch=4 TEST=8 ROLLOUTS=1; fi
export TOKENIZERS_PARALLELISM=false

BASE=${MODEL:-$OUT/base} STUDENT=${WARM:-$OUT/warm}
START=$STUDENT GENERATE=generate DATASET=rise
asked=(--env "$ENV_NAME" --max_new_tokens 32 --concurrency 96 --seed "$SEED")
asked+=(--worker_args "$worker --dtype $DTYPE --kv-memory 1GiB")
trainer+=(--bf16 "$([ "$DTYPE" = bfloat16 ] && echo True || echo False)")
trainer+=(--optim adamw_torch_fused --model_max_length 1024 --group_trajectories True)
trainer+=(--save_steps 60 --logging_steps 5)
step=(--per_device_train_batch_size "$batch" --learning_rate 1e-4)
