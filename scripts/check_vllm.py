"""What `check_vllm.sh` compares: run directories of workflow_eval.py, and the tokens in them.

    python scripts/check_vllm.py same log/check_vllm/{direct,worker}

Prints one line; exit code 1 where something is not as it should be.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fastchat.conversation import ChatTemplate
from rise.dataset.rules import Rules, rows_from_episode
from rise.episodes.episode import Episode
from rise.episodes.journal import load_episodes


def options(command: str) -> bool:
    """The options that this build needs, one per line."""
    from fastchat.serve.upstream import command as vllm

    print("\n".join(vllm.cpu_options() if vllm.is_for_cpus(command) else []))
    return True


def versions(command: str) -> bool:
    names = ("torch", "transformers", "peft")
    ours = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    python = str(Path(command).resolve().with_name("python"))
    code = "import torch, transformers, vllm as v; print(v.__version__, torch.__version__, "
    code += "transformers.__version__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    theirs = "vLLM {}, torch {}, transformers {}".format(*done.stdout.split()[-3:])
    print(f"{theirs}; here Python {platform.python_version()}, {ours}")
    return True


def same(*runs: str) -> bool:
    """Whether all runs have the same answers: texts, ends, prompts and tokens of every sample.

    Samples that are all the same, as greedy ones should be, count as one.
    """
    found = [{e.task_id: _said(e) for e in load_episodes(run)} for run in runs]
    total = len(found[0])
    differing = [i for i in found[0] if any(other.get(i) != found[0][i] for other in found[1:])]
    answers = sum(len(samples) for episode in found[0].values() for _, samples in episode)
    print(f"{total - len(differing)} of {total} episodes equal ({answers} answers)", end="")
    print(f"; differing: {differing}" if differing else "")
    return bool(total) and not differing and {len(other) for other in found} == {total}


def _said(episode: Episode) -> list[tuple[int, list[tuple[str, str, str]]]]:
    turns = []
    for turn in episode.turns:
        samples = [*zip(turn.actions, turn.finish_reasons, turn.token_ids, strict=True)]
        samples = samples[:1] if len(set(samples)) == 1 else samples
        turns.append((turn.usage["prompt_tokens"], samples))
    return turns


def trained(model: str, *runs: str) -> bool:
    """Whether the trainer's tokens are those that were sampled, behind the prompt that was seen."""
    from fastchat.model.model_adapter import load_stop_ids, load_tokenizer

    template = ChatTemplate(load_tokenizer(model), None, load_stop_ids(model))
    sources: Counter[str] = Counter()
    for run in runs:
        for episode in load_episodes(run):
            rows, _ = rows_from_episode(episode, Rules())
            for row in rows:
                encoded = template.encode(row.messages, row.answer)
                turn = episode.turns[row.turn - 1]
                is_same = encoded.action == list(row.answer.ids or ())
                is_same &= len(encoded.prompt) == turn.usage["prompt_tokens"]
                sources[encoded.source if is_same else f"{encoded.source}, but others"] += 1
    print(", ".join(f"{count} {name}" for name, count in sources.items()))
    return set(sources) == {"recorded"}


def long(problems: str, run: str, length: str) -> bool:
    """Two problems: one that leaves an answer some 50 tokens, one that is longer than the context.

    `run` says how long the prompt of the first problem is without what is added here.
    """
    with open(problems, encoding="utf-8") as file:
        row = json.loads(next(file))
    used = next(e for e in load_episodes(run) if e.task_id == 0).turns[0].usage["prompt_tokens"]
    for words in (int(length) - used - 50, int(length)):
        print(json.dumps(row | {"question": row["question"] + words * " word"}))
    return True


def fitted(run: str, length: str) -> bool:
    """Whether the first answer was shortened to the context, and the second prompt refused."""
    with open(Path(run, "rows.jsonl"), encoding="utf-8") as file:
        episodes = map(Episode.from_dict, map(json.loads, file))
        answered, refused = sorted(episodes, key=lambda episode: episode.task_id)
    usage = answered.turns[0].usage if answered.turns else {}
    tokens = sum(usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens"))
    kind = (refused.error or {}).get("kind")
    print(f"{answered.error or 'answered'} with {tokens} of {length} tokens; {kind}")
    return not answered.error and 0 < tokens <= int(length) and kind == "context_overflow"


def adapter(model: str, output: str) -> bool:
    """Write a random LoRA adapter that changes the answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    from fastchat.model.model_adapter import load_model

    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    whole = get_peft_model(load_model(model, device="cpu"), config)
    for name, weights in whole.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.02)
    whole.save_pretrained(output)
    path = Path(output, "adapter_config.json")
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["base_model_name_or_path"] = str(Path(model).resolve())
    path.write_text(json.dumps(saved), encoding="utf-8")
    return True


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    sys.exit(0 if globals()[name](*words) else 1)
