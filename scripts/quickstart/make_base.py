"""Train the embedded base model from scratch: a Llama of 0.25 M parameters, on one CPU core.

    python data/arithmetic.py --output_dir data/arithmetic --warmup 28000
    python scripts/quickstart/make_base.py --data_path warmup.jsonl --output_dir base

The base knows the format of the embedded problems, works a trial through honestly and checks it.
It was never taught to use that check when it is asked again: RISE is to add that.

Reads   --data_path: JSON lines {"messages": [...]}; an assistant message's `given` is the
        beginning of it that is shown but not learned.
Writes  --output_dir: a Hugging Face checkpoint (config, weights, tokenizer with chat template) and
        recipe.json. The folder appears at the end, complete: a killed run leaves nothing, and a
        second run with the same arguments has nothing to do.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastchat.model.files import file_sha256
from fastchat.utils import Parser, write_json
from rise.program.exits import run_program, usage_errors
from rise.program.files import read_object

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END = "<pad>", "<user>", "<assistant>", "<end>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<assistant>' if message['role'] == 'assistant' else '<user>' }}"
    "{{ message['content'] }}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """The shape of a base and the peak learning rate of its training."""

    hidden: int
    layers: int
    heads: int
    initializer_range: float
    learning_rate: float


SIZES = {
    "small": Size(64, 4, 4, 0.08, 4e-3),
    "medium": Size(128, 4, 4, 0.057, 2e-3),
    "large": Size(256, 6, 8, 0.04, 1e-3),
}
"""Wide initial ranges are what lets such small models learn quickly; they and the rate fall with
the width, as 1 / sqrt(hidden) and 1 / hidden."""
BATCH_SIZE = 16
"""Chats per step."""
VOCABULARY = 512
TOKENIZER_CHATS = 2000
"""The vocabulary is learned from this many chats, in which every word occurs often."""
WARMUP_SHARE, FINAL_SHARE = 0.05, 0.05
"""Share of the steps with rising learning rate; share of the peak that is left at the end."""
LENGTH_GROUP = 16
"""Batches of similar length are cut from the chats of this many batches."""


@dataclass(frozen=True)
class Example:
    """A chat as token ids, with what is learned."""

    ids: list[int]
    learned: list[bool]
    """One per id: whether its prediction carries loss."""


def render(messages: list[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a chat as CHAT_TEMPLATE writes it, and the spans of characters to learn."""
    text, spans = "", []
    for message in messages:
        answer = message["role"] == "assistant"
        text += (ASSISTANT if answer else USER) + message["content"]
        begin = len(text) - len(message["content"]) + len(message.get("given", ""))
        text += END
        if answer:
            spans.append((begin, len(text)))
    return text, spans


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE; every digit is a token, and other tokens may reach over several words.

    The texts are so alike that this makes them a third shorter, and every stage that much quicker.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    across_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), across_words])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(chats: list[list[dict]], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Token ids and what is learned, from one rendering and one tokenization of each chat."""
    rendered = [render(messages) for messages in chats]
    encoded = tokenizer(
        [text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True
    )
    return [
        Example(ids, [any(a <= begin and end <= b for a, b in spans) for begin, end in offsets])
        for ids, offsets, (_, spans) in zip(
            encoded["input_ids"], encoded["offset_mapping"], rendered, strict=True
        )
    ]


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int, size: Size = SIZES["small"]
) -> LlamaForCausalLM:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        initializer_range=size.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True
    return model


def length_batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Batches of similar length, so that little of a batch is padding, in random order."""
    order = rng.sample(examples, len(examples))
    for begin in range(0, len(order), BATCH_SIZE * LENGTH_GROUP):
        group = sorted(order[begin : begin + BATCH_SIZE * LENGTH_GROUP], key=lambda e: len(e.ids))
        cuts = [group[k : k + BATCH_SIZE] for k in range(0, len(group), BATCH_SIZE)]
        yield from rng.sample(cuts, len(cuts))


def batch_loss(model: LlamaForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Mean -log p over the learned tokens of a batch; logits are computed for those only."""
    import torch

    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T), 0 is <pad>
    learned = torch.zeros(len(batch), longest, dtype=torch.bool)
    for k, example in enumerate(batch):
        ids[k, : len(example.ids)] = torch.tensor(example.ids)
        learned[k, : len(example.ids)] = torch.tensor(example.learned)
    ids, learned = ids.to(model.device), learned.to(model.device)
    # Padding is on the right, so the causal mask alone hides it.
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[learned[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][learned[:, 1:]])


def rate_share(step: int, steps: int) -> float:
    """The learning rate at `step` as a share of its peak: linear rise, then half a cosine."""
    rise = max(1, int(WARMUP_SHARE * steps))
    if step < rise:
        return (step + 1) / rise
    fall = 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
    return FINAL_SHARE + (1 - FINAL_SHARE) * fall


def train(model: LlamaForCausalLM, examples: list[Example], rate: float, seed: int) -> float:
    """One epoch of AdamW; returns the moving average of the loss at the end, in nats."""
    import torch
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    steps = math.ceil(len(examples) / BATCH_SIZE)
    average = 0.0
    model.train()
    batches = length_batches(examples, random.Random(seed))
    with tqdm(total=steps, desc="base", unit="step", mininterval=1.0) as progress:
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_share(step, steps)
            loss = batch_loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average = loss.item() if step == 0 else 0.97 * average + 0.03 * loss.item()
            progress.update()
            progress.set_postfix(loss=f"{average:.3f}", refresh=False)
    return average


def is_complete(output_dir: Path, recipe: dict[str, Any]) -> bool:
    """Whether the checkpoint is there; `ValueError` names what else is, or differs."""
    if not output_dir.exists() or not any(output_dir.iterdir()):
        return False
    record = output_dir / "recipe.json"
    if not record.is_file():
        raise ValueError(f"{output_dir} is not empty and holds no base; choose another folder")
    found = read_object(record)
    if differing := sorted(key for key in recipe if found.get(key) != recipe[key]):
        raise ValueError(
            f"{output_dir} holds a base with another {', '.join(differing)}; "
            "remove the folder or choose another one"
        )
    return True


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, record: dict[str, Any], to: Path
) -> None:
    partial = to.with_name(f"{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_json(partial / "recipe.json", record)
    partial.replace(to)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="warmup.jsonl of data/arithmetic.py")
    add("--output_dir", type=Path, required=True, help="the checkpoint's folder")
    add("--seed", type=int, default=0, help="seed of the weights and the order (default 0)")
    add("--size", choices=SIZES, default="small", help="hidden size and layers (default small)")
    add("--device", default="cpu", help="where it is trained: cpu (default), cuda, cuda:1, ...")
    args = parser.parse_args(argv)
    if not args.data_path.is_file():
        parser.error(f"{args.data_path} is not a file; data/arithmetic.py --warmup N writes it")
    return args


def make(args: argparse.Namespace) -> None:
    rate, to = SIZES[args.size].learning_rate, args.output_dir
    recipe = {"data_sha256": file_sha256(args.data_path), "size": args.size, "seed": args.seed}
    recipe |= {"batch_size": BATCH_SIZE, "learning_rate": rate}
    if is_complete(to, recipe):
        print(f"{to} is complete: nothing to do")
        return
    lines = args.data_path.read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]

    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"--device {args.device}: torch sees no GPU; give cpu (the quickstart: DEVICE=cpu)"
        )
    torch.set_num_threads(1)
    tokenizer = build_tokenizer([render(messages)[0] for messages in chats[:TOKENIZER_CHATS]])
    model = build_model(tokenizer, args.seed, SIZES[args.size]).to(args.device)
    loss = train(model, encode(chats, tokenizer), rate, args.seed)
    result = {"parameters": model.num_parameters(), "loss": round(loss, 4)}
    save(model, tokenizer, recipe | result, to)
    print(f"{to}: {model.num_parameters():,} parameters, loss {loss:.4f}")


def main() -> int:
    args = parse_args()
    with usage_errors("make_base.py"):
        make(args)
    return 0


if __name__ == "__main__":
    run_program(main)
