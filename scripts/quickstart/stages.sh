# shellcheck shell=bash
# The stages of the embedded problems, for quickstart.sh and study.sh, which source this file. They
# need OUT, SEED, SIZE, DEVICE, EXPERT and the environment that quickstart.sh sets up.

# How hard the problems are (wins and losses in each), how many there are, and how fast the model of
# that size (scripts/quickstart/make_base.py) is fine-tuned.
# shellcheck disable=SC2034  # quickstart.sh reads CHANGES
case $SIZE in
    small) CHANGES=4 problems=3200 chats=28000 RATE=3e-3 ;;
    medium) CHANGES=5 problems=6400 chats=56000 RATE=1.5e-3 ;;
    large) CHANGES=6 problems=12800 chats=112000 RATE=7.5e-4 ;;
    *) echo "$(basename "$0"): SIZE must be small, medium or large, not '$SIZE'" >&2; exit 2 ;;
esac
PROBLEMS=${PROBLEMS:-$problems} CHATS=${CHATS:-$chats}

# One process, also where there are several GPUs: it needs no launcher.
case $DEVICE in
    cpu) trainer=(--use_cpu True); export DS_ACCELERATOR=cpu ;;
    cuda) trainer=() ;;
    *) echo "$(basename "$0"): DEVICE must be cpu or cuda, not '$DEVICE'" >&2; exit 2 ;;
esac
# Answers at turn 2, of which the best counts.
case $EXPERT in
    program) SAMPLES=1 ;;
    self) SAMPLES=16 ;;
    *) echo "$(basename "$0"): EXPERT must be program or self, not '$EXPERT'" >&2; exit 2 ;;
esac
# Two processes share two cores: one thread each.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

. scripts/stages.sh

generate() { # DIRECTORY TURNS SAMPLES... -- MODELS...
    local directory=$1 turns=$2
    shift 2
    stage "$(basename "$directory")" python workflow_gen.py --env gsm8k --prompt_style bare --data_path "$OUT/data/train.jsonl" \
        --log_dir "$directory" --max_turns "$turns" --temperature 1.0 --max_new_tokens 96 \
        --worker_args "--device $DEVICE" --seed "$SEED" "$@"
}

# Episode NUMBER of each problem: the student answers, and who EXPERT says answers turn 2.
roll_out() { # DIRECTORY STUDENT NUMBER
    local teacher=data/arithmetic.py:expert
    if [ "$EXPERT" = self ]; then teacher=$2; fi
    generate "$1" 2 --num_of_samples 1 "$SAMPLES" --models "$2" "$teacher" --correct_to_correct \
        --seed $((SEED + 1000 * $3))
}

convert() { # OUTPUT CRITERIA WEIGHTING RUN...
    local output=$1 criteria=$2 weighting=$3
    shift 3
    stage "convert-$(basename "$output" .json)" python workflow_convert.py --filepath "$@" --output "$output" --model_path "$OUT/base" \
        --env gsm8k --criteria "$criteria" --weighting "$weighting" --temperature 0.4 \
        --shuffle "$SEED"
}

train() { # DATA OUTPUT EPOCHS [MORE ARGUMENTS]
    local data=$1 output=$2 epochs=$3
    shift 3
    stage "train-$(basename "$output")" python FastChat/fastchat/train/train_mem.py "${trainer[@]}" \
        --deepspeed deepspeed/zero3.json --model_name_or_path "$OUT/base" --data_path "$data" \
        --output_dir "$output" --num_train_epochs "$epochs" --per_device_train_batch_size 16 \
        --gradient_accumulation_steps 1 --learning_rate "$RATE" --adam_beta2 0.98 --weight_decay 0. \
        --warmup_ratio 0.04 --lr_scheduler_type cosine --max_grad_norm 1.0 \
        --model_max_length 512 --save_strategy steps --save_steps 400 --save_total_limit 1 \
        --logging_steps 20 --report_to none --seed "$SEED" "$@"
}

evaluate() { # MODEL DIRECTORY [MORE ARGUMENTS]
    local model=$1 directory=$2
    shift 2
    stage "eval-$(basename "$directory")" python workflow_eval.py --model "$model" --data_path "$OUT/data/test.jsonl" --env gsm8k \
        --prompt_style bare --log_dir "$directory" --context_window 2 --temperature 1.0 \
        --max_new_tokens 96 --worker_args "--device $DEVICE" --seed "$SEED" "$@"
}

# The five turns and, at turn 1, five samples for the majority vote of parallel answers.
evaluate_all() { # MODEL NAME
    evaluate "$1" "$OUT/eval/$2" --max_turns 5 --num_of_samples 5 1 1 1 1
}
