"""Serve a model that knows eight problems by heart while a command runs: for check_clients.sh.

    python scripts/clients/serve.py --output_dir log/clients -- python scripts/clients/ask.py ...

Writes  --output_dir: model/ (a Llama of 0.1 M parameters that was trained on the problems of
        data/demo_gsm8k.jsonl, on some with a wrong answer), eval/ (the run of workflow_eval.py
        that asks it greedily) and server.json: where the servers are, what is asked and m1@t1.
"""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
PROBLEMS = ROOT / "data" / "demo_gsm8k.jsonl"
NAME, STYLE = "memorizer", "bare"
STEPS, RATE = 400, 4e-3
GOOD_LOSS = 0.008
"""Mean of the answers' tokens at which they are known by heart."""


def chats() -> list[dict[str, Any]]:
    """What is asked, the right number, and what the model is to say: every third time another."""
    from envs.gsm8k import GSM8K

    env = GSM8K(PROBLEMS, STYLE)
    result = []
    for i in range(len(env)):
        target = env.reference(i).rpartition("#### ")[2].replace(",", "")
        said = str(int(target) + 1) if i % 3 == 2 else target
        answer = f"The answer is \\boxed{{{said}}}."
        result.append({"messages": env.opening(i), "target": target, "answer": answer})
    return result


def memorize(path: Path, asked: list[dict[str, Any]]) -> None:
    """Write a checkpoint that gives these answers when it is greedy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fastchat.conversation import ChatTemplate
    from tests.support.tiny import save_tiny_model

    save_tiny_model(path, initializer_range=0.05)
    model = AutoModelForCausalLM.from_pretrained(path)
    template = ChatTemplate(AutoTokenizer.from_pretrained(path))
    rows = []
    for chat in asked:
        answer = {"role": "assistant", "content": chat["answer"]}
        encoded = template.encode([*chat["messages"], answer])
        rows.append((encoded.prompt, encoded.action))
    longest = max(len(prompt) + len(action) for prompt, action in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (prompt, action) in enumerate(rows):
        end = len(prompt) + len(action)
        ids[row, :end] = torch.tensor([*prompt, *action])
        labels[row, len(prompt) : end] = torch.tensor(action)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < GOOD_LOSS:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    else:
        raise RuntimeError(f"the answers are not known by heart: a loss of {float(loss):.3g}")
    model.save_pretrained(path)


def evaluate(controller: str, out: Path) -> float:
    """m1@t1 of the served model, by workflow_eval.py."""
    command = [sys.executable, ROOT / "workflow_eval.py", "--model", NAME, "--env", "gsm8k"]
    command += ["--data_path", PROBLEMS, "--log_dir", out / "eval", "--max_turns", 1]
    command += ["--num_of_samples", 1, "--temperature", 0, "--max_new_tokens", 64]
    command += ["--prompt_style", STYLE]
    command += ["--controller_address", controller, "--wandb_project", ""]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    (summary,) = (out / "eval").rglob("summary.json")
    return json.loads(summary.read_text())["metrics"]["m1@t1"]["value"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True, help="where all is written")
    parser.add_argument("command", nargs="+", help="what runs beside the servers")
    args = parser.parse_args()

    from fastchat.serve import base_model_worker, controller, model_worker, openai_api_server
    from tests.support.servers import running

    asked = chats()
    path = args.output_dir.absolute() / "model"
    if not (path / "config.json").exists():
        print("+ the model learns its answers", flush=True)
        unfinished = path.with_name("model.part")
        memorize(unfinished, asked)
        unfinished.rename(path)
    options = ["--model-path", str(path), "--model-names", NAME, "--device", "cpu"]
    log = logging.getLogger("clients")
    worker = model_worker.build_worker(model_worker.parse_args(options), log)
    worker.engine.start()
    with (
        running(base_model_worker.create_app(worker)) as worker_url,
        running(controller.create_app()) as controller_url,
        running(openai_api_server.create_app(controller_url, ["key"])) as url,
    ):
        known = {"worker_name": worker_url, "worker_status": worker.status()}
        known["check_heart_beat"] = False
        requests.post(f"{controller_url}/register_worker", json=known).raise_for_status()
        said = {
            "base_url": f"{url}/v1",
            "model": NAME,
            "checkpoint": str(path),
            "m1_t1": evaluate(controller_url, args.output_dir),
            "problems": [
                {**chat, "prompt": worker.template.render_prompt(chat["messages"])}
                for chat in asked
            ],
        }
        (args.output_dir / "server.json").write_text(json.dumps(said, indent=1))
        return subprocess.run(args.command).returncode


if __name__ == "__main__":
    sys.exit(main())
