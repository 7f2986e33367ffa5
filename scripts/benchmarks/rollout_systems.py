"""The systems that `rollouts.py` compares; their methods return the number of new tokens.

`settings` are the arguments of `rollouts.py`; all draw at temperature 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests
import stock_fschat
from bench import ask, wait_for

if TYPE_CHECKING:
    from rise.policies.policy import Policy

START_LIMIT = 180.0
MODEL = "random"
CONTEXT = 2048
"""Longest prompt plus answer, in tokens."""


class Stock:
    """The controller and the worker of stock fschat, asked as the published driver asks them."""

    def __init__(self, python: Path, checkpoint: Path, log_dir: Path, settings: argparse.Namespace):
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
        wait_for(lambda: self._served() is not None, START_LIMIT)
        arguments = ["--model-path", self._checkpoint, "--model-names", MODEL, "--device", "cpu"]
        arguments += ["--port", ports[1], "--worker-address", worker]
        arguments += ["--controller-address", self._controller]
        self.processes.append(self._launch("model_worker", *map(str, arguments)))
        wait_for(lambda: MODEL in (self._served() or ()), START_LIMIT)
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

    def _served(self) -> list[str] | None:
        reply = ask(self._controller, "list_models")
        return reply and reply["models"]

    def one_by_one(self, dialogues: Sequence[Any], samples: int = 1) -> int:
        return sum(self._ask(dialogue) for dialogue in dialogues for _ in range(samples))

    def _ask(self, dialogue: Any) -> int:
        body = {
            "model": MODEL,
            "prompt": self._tokenizer.apply_chat_template(
                dialogue, tokenize=False, add_generation_prompt=True
            ),
            "temperature": 1.0,
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

    def __init__(self, checkpoint: Path, settings: argparse.Namespace):
        from fastchat.model.model_adapter import load_model, load_tokenizer

        self._settings = settings
        self._tokenizer = load_tokenizer(str(checkpoint))
        self._tokenizer.padding_side = "left"
        self._model = load_model(str(checkpoint), device="cpu", dtype=settings.dtype)
        self.processes: list[psutil.Process] = []

    def batches(self, dialogues: Sequence[Any]) -> int:
        """All dialogues in batches; what a row has behind its end does not count."""
        size = self._settings.batch
        parts = [dialogues[i : i + size] for i in range(0, len(dialogues), size)]
        return sum(self._batch(part) for part in parts)

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
            temperature=1.0,
            top_k=0,
            max_new_tokens=self._settings.max_new_tokens,
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        ended = new == self._tokenizer.eos_token_id
        return int((ended.cumsum(1) - ended.int() == 0).sum())


class Ours:
    """Our controller and worker, asked by our driver; `worker` are further arguments of the worker.

    With `--engine vllm` the worker is the one in front of a vLLM, whose processes count too.
    """

    def __init__(
        self,
        checkpoint: Path,
        problems: Path,
        log_dir: Path,
        settings: argparse.Namespace,
        worker: Sequence[str] = (),
    ):
        import envs
        from rise.policies.local import LocalServing

        self._settings = settings
        self._env = envs.make("gsm8k", problems)
        self._serving = LocalServing(
            [str(checkpoint)],
            log_dir / "serving",
            concurrency=settings.concurrency,
            worker_args=[
                *("--num-threads", str(settings.threads), "--device", "cpu"),
                *("--dtype", settings.dtype, "--context-length", str(CONTEXT), *worker),
            ],
        )
        self._checkpoint = str(checkpoint)

    def __enter__(self) -> Ours:
        before = set(psutil.Process().children(recursive=True))
        self._serving.__enter__()
        now = psutil.Process().children(recursive=True)
        self.processes = [process for process in now if process not in before]
        self.controller, self.model = self._serving.addresses()[self._checkpoint]
        return self

    def __exit__(self, *exception: object) -> None:
        self._serving.stop()

    def _policy(self) -> Policy:
        from rise.policies.worker import WorkerPolicy

        return WorkerPolicy(MODEL, self.controller, model=self.model)

    def rollout(
        self, task_ids: Sequence[int], samples: int = 1, seed: int = 0, turns: int = 1
    ) -> int:
        return asyncio.run(self._rollout(task_ids, samples, seed, turns))

    async def _rollout(self, task_ids: Sequence[int], samples: int, seed: int, turns: int) -> int:
        from rise.rollout.play import Plan, play

        policy = self._policy()
        limits = [self._settings.max_new_tokens] * turns
        plan = Plan(
            *([policy] * turns, [samples] * turns, [1.0] * turns, limits),
            seed=seed,
            feedback="none" if turns > 1 else "oracle",
        )
        waiting, tokens = iter(task_ids), 0

        async def lane() -> None:
            nonlocal tokens
            for task_id in waiting:
                episode = await play(self._env, plan, task_id)
                if episode.error:
                    raise RuntimeError(f"{type(self).__name__} failed: {episode.error}")
                tokens += sum(turn.usage["completion_tokens"] for turn in episode.turns)

        try:
            await asyncio.gather(*(lane() for _ in range(self._settings.concurrency)))
        finally:
            await policy.close()
        return tokens


class LlamaCpp(Ours):
    """llama.cpp's server with a slot for every episode in flight, asked by our driver."""

    def __init__(self, gguf: Path, problems: Path, settings: argparse.Namespace):
        import envs

        self._settings, self._gguf = settings, gguf
        self._env = envs.make("gsm8k", problems)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LlamaCpp:
        from fastchat.client.process import free_ports

        slots, threads = self._settings.concurrency, self._settings.threads
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        command = [self._settings.llama_server, "-m", self._gguf, "--host", "127.0.0.1"]
        command += ["--port", port, "--threads", threads, "--threads-batch", threads]
        command += ["--parallel", slots, "--ctx-size", slots * CONTEXT]
        server = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(server.wait)
        self._stack.callback(server.kill)
        self.processes = [psutil.Process(server.pid)]
        wait_for(self._is_ready, START_LIMIT)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self._url}/health", timeout=10).ok
        except requests.ConnectionError:
            return False

    def _policy(self) -> Policy:
        from rise.policies.openai_api import OpenAIPolicy

        return OpenAIPolicy(MODEL, model=MODEL, base_url=f"{self._url}/v1", key="none")
