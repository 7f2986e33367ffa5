"""The published training command's entry point; `fastchat.train.train` does the work.

    deepspeed FastChat/fastchat/train/train_mem.py --deepspeed deepspeed/zero3.json ...
    torchrun --nproc_per_node 2 FastChat/fastchat/train/train_mem.py ...
    python FastChat/fastchat/train/train_mem.py ...

Its name once stood for the memory-saving FlashAttention. Here the attention implementation is
chosen when the model is loaded (`--attn_implementation`), so nothing is patched before the imports.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # Launchers start this file by its path: the tree that it lies in is the one to import.
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from fastchat.train.launch import run

    run(sys.argv[1:])
