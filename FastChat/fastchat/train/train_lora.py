r"""FastChat's entry point for LoRA and QLoRA: `train_mem.py` with `--use_lora True`.

    python FastChat/fastchat/train/train_lora.py --model_name_or_path M --data_path D \
        --output_dir O --lora_r 8 --lora_alpha 16 --lora_dropout 0.05 [--q_lora True]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from fastchat.train.launch import run

    run(["--use_lora", "True", *sys.argv[1:]])
