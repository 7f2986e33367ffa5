"""The systems that `rollouts.py` compares, each as a context manager with methods to be timed.

Every method generates for the problems that it is given and returns the number of new tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import stock_fschat

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 180.0
"""Seconds for a server to start."""
MODEL = "random"


@dataclass
class Settings:
    """What every request has in common."""

    max_new_tokens: int
    """Limit of one answer, in tokens."""
    concurrency: int
    """Episodes in flight of our driver, and rows of our worker."""
    batch: int
    """Prompts per call of HF generate."""
    temperature: float = 1.0


class Stock:
    """The controller and the worker of stock fschat, asked as the published driver asks them."""

    def __init__(self, python: Path, checkpoint: Path, log_dir: Path, settings: Settings):
        self._settings = settings
        self._python, self._checkpoint, self._log_dir = python, checkpoint, log_dir
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stock:
        from fastchat.client.process import free_ports
        from fastchat.model.model_adapter import load_tokenizer

        self._tokenizer = load_tokenizer(str(self._checkpoint))
        ports = free_ports(2)
        self._controller, worker = (f"http://localhost:{port}" for port in ports)
        self.processes = [self._launch("controller", "--port", str(ports[0]))]
        _wait_for(lambda: _served(self._controller) is not None)
        arguments = ["--model-path", self._checkpoint, "--model-names", MODEL, "--device", "cpu"]
        arguments += ["--port", ports[1], "--worker-address", worker]
        arguments += ["--controller-address", self._controller]
        self.processes.append(self._launch("model_worker", *map(str, arguments)))
        _wait_for(lambda: MODEL in (_served(self._controller) or ()))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _launch(self, module: str, *arguments: str) -> psutil.Process:
        process = subprocess.Popen(
            stock_fschat.command(self._python, module, *arguments),
            env=stock_fschat.environment(self._log_dir),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return psutil.Process(process.pid)

    def one_by_one(self, dialogues: Sequence[Any], samples: int = 1) -> int:
        """Every sample is a request of its own, sent when the one before has ended."""
        return sum(self._ask(dialogue) for dialogue in dialogues for _ in range(samples))

    def _ask(self, dialogue: Any) -> int:
        body = {
            "model": MODEL,
            "prompt": self._tokenizer.apply_chat_template(
                dialogue, tokenize=False, add_generation_prompt=True
            ),
            "temperature": self._settings.temperature,
            "max_new_tokens": self._settings.max_new_tokens,
            "echo": False,
        }
        url = f"{self._controller}/worker_generate_stream"
        reply = requests.post(url, json=body, stream=True, timeout=300)
        frames = reply.iter_lines(decode_unicode=False, delimiter=b"\0")
        last = [json.loads(frame) for frame in frames if frame][-1]
        if last["error_code"] != 0:
            raise RuntimeError(f"the stock worker failed: {last['text']}")
        # It reports the index of the last token.
        return last["usage"]["completion_tokens"] + 1


class HuggingFace:
    """`generate` of transformers in this process, on left-padded batches."""

    def __init__(self, checkpoint: Path, settings: Settings):
        from fastchat.model.model_adapter import load_model, load_tokenizer

        self._settings = settings
        self._tokenizer = load_tokenizer(str(checkpoint))
        self._tokenizer.padding_side = "left"
        self._model = load_model(str(checkpoint), device="cpu")
        self.processes: list[psutil.Process] = []

    def batches(self, dialogues: Sequence[Any]) -> int:
        """All dialogues in batches; what a row has behind its end does not count."""
        size = self._settings.batch
        parts = [dialogues[i : i + size] for i in range(0, len(dialogues), size)]
        return sum(self._batch(part) for part in parts)

    def length(self, dialogue: Any) -> int:
        """Tokens of a prompt."""
        ids = self._tokenizer.apply_chat_template(dialogue, add_generation_prompt=True)
        return len(ids["input_ids"])

    def _batch(self, dialogues: Sequence[Any]) -> int:
        inputs = self._tokenizer.apply_chat_template(
            list(dialogues),
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = self._model.generate(
            **inputs,
            do_sample=True,
            temperature=self._settings.temperature,
            top_k=0,
            max_new_tokens=self._settings.max_new_tokens,
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        ended = new == self._tokenizer.eos_token_id
        return int((ended.cumsum(1) - ended.int() == 0).sum())


class Ours:
    """Our controller and worker, asked by our driver."""

    def __init__(self, checkpoint: Path, problems: Path, log_dir: Path, settings: Settings):
        import envs
        from rise.policies.local import LocalServing

        self._settings, self._problems, self._log_dir = settings, problems, log_dir
        self._env = envs.make("gsm8k", problems)
        self._serving = LocalServing(
            [str(checkpoint)],
            log_dir / "serving",
            concurrency=settings.concurrency,
            worker_args=["--num-threads", "1", "--device", "cpu"],
        )
        self._checkpoint = str(checkpoint)

    def __enter__(self) -> Ours:
        before = set(psutil.Process().children())
        self._serving.__enter__()
        self.processes = [p for p in psutil.Process().children() if p not in before]
        self.controller, self.model = self._serving.addresses()[self._checkpoint]
        return self

    def __exit__(self, *exception: object) -> None:
        self._serving.stop()

    def rollout(self, task_ids: Sequence[int], samples: int = 1, seed: int = 0) -> int:
        """One turn on each problem, as many at a time as the settings allow."""
        return asyncio.run(self._rollout(task_ids, samples, seed))

    async def _rollout(self, task_ids: Sequence[int], samples: int, seed: int) -> int:
        from rise.policies.worker import WorkerPolicy
        from rise.rollout.play import Plan, play

        policy = WorkerPolicy(MODEL, self.controller, model=self.model)
        settings = self._settings
        plan = Plan(
            [policy], [samples], [settings.temperature], [settings.max_new_tokens], seed=seed
        )
        waiting, tokens = iter(task_ids), 0

        async def lane() -> None:
            nonlocal tokens
            for task_id in waiting:
                episode = await play(self._env, plan, task_id)
                if episode.error:
                    raise RuntimeError(f"our worker failed: {episode.error}")
                tokens += episode.turns[0].usage["completion_tokens"]

        try:
            await asyncio.gather(*(lane() for _ in range(settings.concurrency)))
        finally:
            await policy.close()
        return tokens

    def workflow(self, turns: int, seed: int) -> Path:
        """Run workflow_gen.py on all problems; returns the rows that it wrote."""
        log_dir = self._log_dir / f"workflow-{seed}"
        words = [sys.executable, ROOT / "workflow_gen.py", "--data_path", self._problems]
        words += ["--env", "gsm8k", "--log_dir", log_dir, "--max_turns", turns]
        words += ["--models", self.model, "--controller_address", self.controller]
        words += ["--max_new_tokens", self._settings.max_new_tokens]
        words += ["--concurrency", self._settings.concurrency, "--seed", seed]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"workflow_gen.py failed: {done.stdout[-1000:]}{done.stderr[-1000:]}"
            )
        return next(log_dir.rglob("rows.jsonl"))


def _served(controller: str) -> list[str] | None:
    try:
        return requests.post(f"{controller}/list_models", timeout=5).json()["models"]
    except (requests.RequestException, ValueError):
        return None


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"a server did not start within {START_LIMIT:g} s")
        time.sleep(0.1)
