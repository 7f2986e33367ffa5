"""The systems that `rollouts.py` compares; their methods return the number of new tokens.

`settings` are the arguments of `rollouts.py`; stock, HF and ours draw at temperature 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import requests
import stock_fschat
from bench import ROOT, ask, wait_for

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

        self._settings, self._problems, self._log_dir = settings, problems, log_dir
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

    def rollout(
        self, task_ids: Sequence[int], samples: int = 1, seed: int = 0, turns: int = 1
    ) -> int:
        return asyncio.run(self._rollout(task_ids, samples, seed, turns))

    async def _rollout(self, task_ids: Sequence[int], samples: int, seed: int, turns: int) -> int:
        from rise.policies.worker import WorkerPolicy
        from rise.rollout.play import Plan, play

        policy = WorkerPolicy(MODEL, self.controller, model=self.model)
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
                    raise RuntimeError(f"our worker failed: {episode.error}")
                tokens += sum(turn.usage["completion_tokens"] for turn in episode.turns)

        try:
            await asyncio.gather(*(lane() for _ in range(self._settings.concurrency)))
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


class Replay:
    """Generates again what a run generated: no HTTP, no thread, no driver, no grading.

    Every turn is submitted when the one before it has ended, and an episode when another one has,
    so that the engine sees what it saw in the run, with as many episodes in flight.
    """

    def __init__(self, checkpoint: Path, problems: Path, concurrency: int, dtype: str = "float32"):
        import envs
        from fastchat.conversation import ChatTemplate
        from fastchat.model.model_adapter import load_model, load_tokenizer
        from fastchat.serve.engine.engine import SlotEngine

        self._concurrency = concurrency
        self._env = envs.make("gsm8k", problems)
        self._template = ChatTemplate(load_tokenizer(str(checkpoint)))
        self._engine = SlotEngine(
            load_model(str(checkpoint), device="cpu", dtype=dtype),
            self._template.tokenizer,
            max_rows=concurrency,
            max_length=CONTEXT,
        )

    def prepare(self, rows: Path, max_new_tokens: int, seed: int) -> int:
        """Build the requests of a run from its rows; returns the tokens that it generated."""
        from rise.episodes.journal import load_episodes

        episodes = load_episodes(rows)
        self._requests = [self._requests_of(e, max_new_tokens, seed) for e in episodes]
        self._texts = [[turn.action for turn in episode.turns] for episode in episodes]
        return sum(turn.usage["completion_tokens"] for e in episodes for turn in e.turns)

    def run(self) -> int:
        before = self._engine.stats.generated_tokens
        waiting = iter(self._requests)
        for _ in range(self._concurrency):
            self._advance(iter(()), waiting)
        while self._engine.step():
            pass
        return self._engine.stats.generated_tokens - before

    def differing(self) -> int:
        """Answers whose text is not the one of the run; both drew with the same seeds."""
        from fastchat.serve.stopping import decode

        wrong = 0
        for requests_, texts in zip(self._requests, self._texts, strict=True):
            for request, text in zip(requests_, texts, strict=True):
                tokens = list(request.samples[0].tokens)
                if tokens[-1] in request.stop_ids:
                    tokens.pop()
                wrong += decode(self._template.tokenizer, tokens) != text
        return wrong

    def _requests_of(self, episode: Any, max_new_tokens: int, seed: int) -> list[Any]:
        from fastchat.serve.engine.request import EngineRequest
        from fastchat.serve.engine.sampling import SamplingParams
        from rise.episodes.episode import visible
        from rise.rollout.play import draw_seed

        opening, found = self._env.opening(episode.task_id), []
        actions = [turn.action for turn in episode.turns]
        told = [turn.observation for turn in episode.turns]
        for t in range(len(actions)):
            messages = visible(opening, actions[:t], told[:t], None)
            found.append(
                EngineRequest(
                    prompt=self._template.prompt_ids(messages),
                    params=SamplingParams(),
                    max_new_tokens=max_new_tokens,
                    stop_ids=self._template.stop_token_ids,
                    seed=draw_seed(seed, episode.task_id, t),
                )
            )
        return found

    def _advance(self, turns: Iterator[Any], waiting: Iterator[list[Any]]) -> None:
        """Submit an episode's next turn; after the last one the next episode begins."""
        request = next(turns, None)
        while request is None:
            episode = next(waiting, None)
            if episode is None:
                return
            turns = iter(episode)
            request = next(turns, None)
        request.done.add_done_callback(lambda _: self._advance(turns, waiting))
        self._engine.submit(request)
