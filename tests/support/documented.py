"""A copy of the repository in which the commands of README and docs run as they are written.

The hub's models are tiny checkpoints in folders of the same names, the data sets small problems of
our own, the OpenAI API a server of the test. Only ports and the addresses of servers are added to
the command lines. What cannot run here stands in `ELSEWHERE`, with the reason and with the test
that does what can be done; all commands are parsed by tests/unit/test_docs.py.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
import requests

from scripts.flags import PROGRAMS
from tests.support.readme_commands import ROOT, Command
from tests.support.scripted_servers import OpenAI, chat_reply
from tests.support.servers import free_port, post, wait_for
from tests.support.stages import run_program
from tests.support.tiny import tiny_config, tiny_tokenizer

ELSEWHERE = {
    "bash scripts/quickstart.sh": "minutes; in small: tests/journeys/test_quickstart.py",
    "bash scripts/real.sh": "an hour; in small: tests/journeys/test_real.py",
    "bash scripts/(test|setup).sh": "runs this test, or is what it begins with",
    "pre-commit": "is not installed here",
    "pip install -e": "as scripts/setup.sh does",
    "(data/smollm2|checkpoints/try|log/try) ": "a real checkpoint: tests/journeys have tiny ones",
    "python data/fetch.py": "needs the network; from a local server: tests/unit/data/test_fetch.py",
    "python data/smollm2.py": "needs a network; on a tiny model: tests/unit/data/test_smollm2.py",
    "python data/splits.py": "needs those files; others: tests/unit/data/test_splits.py",
    "bash scripts/reproduce/llama2_7b_gsm8k.sh$": "needs GPUs: tests/journeys/test_reproduce.py",
    "bash scripts/rise.sh( --check)?$": "needs GPUs and a key: tests/journeys/test_rise_sh.py",
    "sbatch": "needs Slurm: tests/processes/test_slurm.py",
    "http://a:21001": "needs hosts a and b: tests/processes/test_commands.py",
    "fastchat.serve.(cli|status|test_m|launch|shutdown)": "on a tiny model: "
    "tests/processes/test_fastchat_commands.py",
    "lm_eval|inspect eval": "are not installed here: scripts/check_clients.sh",
    "--vllm-bin": "needs vLLM: tests/processes/test_vllm_server.py",
    "http://gpu1:8000": "needs a host gpu1: tests/unit/fastchat/serve/test_vllm_worker.py",
}
"""A pattern of commands -> why they do not run here, and which test is nearest."""

SERVERS = {
    "fastchat.serve.controller": "/test_connection",
    "fastchat.serve.model_worker": "/metrics",
    "fastchat.serve.openai_api_server": "/health",
    "fastchat.serve.gradio_web_server": "/",
}
"""What goes on until it is stopped -> what it answers when it is ready."""

NAMES = "Llama-2-7b-chat-hf,checkpoints/rise"
"""What the one worker serves. A checkpoint that no worker serves is started by each evaluation:
tests/processes/test_serving.py."""
MADE = {
    "log/gsm8k/2_turns.json": "workflow_gen.py .* gpt-3.5-turbo",
    "dataset/finetune.json": "workflow_convert.py .*finetune.json",
    "checkpoints/rise/model.safetensors": "train_mem.py",
    "dataset/pairs.jsonl": "--to dpo",
    "checkpoints/merged/model.safetensors": "apply_lora",
    "log/gsm8k/all/rows.jsonl": "rise.merge",
    "log/quiz/2_turns.json": "quiz.py",
    "log/report.html": "rise.report",
}
"""What must be there once a command that matches the pattern has run."""


def save_coin(directory: Path) -> None:
    """Write a Llama that answers every prompt with a box of 1 or of 2, by the toss of a coin."""
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = tiny_tokenizer("llama-2")
    sides = ["\\boxed{1}", "\\boxed{2}"]
    tokenizer.add_tokens(sides)
    marks = tokenizer.convert_tokens_to_ids(sides)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 16384}
    model = LlamaForCausalLM(tiny_config(tie_word_embeddings=False, **size, **ends))
    with torch.no_grad():
        # No layer adds anything, so the next token depends on the last one alone.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        embedding[:, 0] = 1.0
        embedding[marks] = torch.eye(embedding.shape[1])[1]
        head.zero_()
        head[marks, 0] = 3.0
        head[tokenizer.eos_token_id, 1] = 3.0
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_adapter(base: Path, directory: Path) -> None:
    """Write a LoRA adapter of a checkpoint, which changes nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"])).save_pretrained(
        directory
    )


def write_problems(folder: Path) -> None:
    """Problems whose answer is 1: the coin is right half of the time."""
    kinds = {
        "gsm8k": lambda i: {"question": f"{i} - {i - 1}?", "answer": "One is left.\n#### 1"},
        "math": lambda i: {"problem": f"${i} - {i - 1}$?", "solution": "It is $\\boxed{1}$."},
    }
    for kind, make in kinds.items():
        (folder / kind).mkdir()
        for part, numbers in (("train", range(1, 13)), ("test", range(13, 19))):
            lines = [json.dumps(make(i)) + "\n" for i in numbers]
            (folder / kind / f"{part}.jsonl").write_text("".join(lines))


class World:
    """A copy of the repository with models, data and servers, in which commands run."""

    def __init__(self, directory: Path, openai_url: str):
        self.directory = directory
        self.controller = ""
        self._servers: list[subprocess.Popen[str]] = []
        keep = shutil.ignore_patterns("__pycache__", "gsm8k", "math", "svamp", "asdiv")
        for name in ("FastChat", "data", "deepspeed", "envs", "rise", "scripts"):
            shutil.copytree(ROOT / name, directory / name, ignore=keep)
        for path in ROOT.glob("workflow_*.py"):
            shutil.copy(path, directory)
        hub = directory / "meta-llama" / "Llama-2-7b-chat-hf"
        save_coin(hub)
        shutil.copytree(hub, directory / "checkpoint")
        save_adapter(hub, directory / "checkpoints" / "adapter")
        write_problems(directory / "data")
        quiz = (ROOT / "docs" / "grading.md").read_text(encoding="utf-8")
        for name, language in (("quiz.py", "python"), ("quiz.jsonl", "json")):
            (found,) = re.findall(rf"```{language}\n(.*?)```", quiz, re.DOTALL)
            (directory / name).write_text(found)
        (directory / "expert.py").write_text(
            "def f(problem, messages):\n    return r'\\boxed{B}'\n"
        )
        changes = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{directory}:{directory / 'FastChat'}",
            "OPENAI_BASE_URL": openai_url,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "VIRTUAL_ENV": "active",
        }
        unset = {"OPENAI_API_KEY", "MASTER_PORT", "MASTER_ADDR"}
        self.environment = {k: v for k, v in os.environ.items() if k not in unset} | changes

    def perform(self, command: Command, patch: pytest.MonkeyPatch) -> None:
        """Run a command, or start it where it is a server; what it is to make must be there."""
        module = next((name for name in SERVERS if name in command.text), None)
        if module is None:
            self.run(command.text, patch)
        else:
            url = self.serve(command.text, SERVERS[module])
            if module.endswith("controller") and not self.controller:
                self.controller = url
            if module.endswith("worker"):
                served = sorted(NAMES.split(","))
                listed = f"{self.controller}/list_models"
                wait_for(lambda: sorted(post(listed)["models"]) == served)
        for path, pattern in MADE.items():
            if re.search(pattern, command.text):
                assert (self.directory / path).stat().st_size > 0

    def run(self, line: str, patch: pytest.MonkeyPatch) -> None:
        """Run a command line to its end: a Python program here, where its imports are there."""
        line = self._addressed(line)
        words = shlex.split(line.removeprefix("python ").removeprefix("-m "))
        if words[0] in PROGRAMS and "wandb" not in line:
            patch.chdir(self.directory)
            for name in {*os.environ} - {*self.environment}:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            assert import_module(PROGRAMS[words[0]]).main(words[1:]) in (0, None)
            return
        run_program("bash", "-c", line, cwd=self.directory, env=self.environment)

    def serve(self, line: str, path: str) -> str:
        """Start a server and wait until it answers; its URL."""
        port = free_port()
        line = f"{re.sub('--port [0-9]+', '', line)} --port {port}"
        log = self.directory / f"{port}.log"
        with log.open("w") as file:
            child = subprocess.Popen(
                ["bash", "-c", self._addressed(line)],
                cwd=self.directory,
                env=self.environment,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self._servers.append(child)
        url = f"http://localhost:{port}"

        def ready() -> bool:
            assert child.poll() is None, log.read_text()[-3000:]
            return requests.get(url + path, timeout=5).ok

        wait_for(ready, 120)
        return url

    def stop(self) -> None:
        """End every server with all that it started."""
        for child in reversed(self._servers):
            os.killpg(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for child in self._servers:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    def _addressed(self, line: str) -> str:
        """The line with a key, ports of its own and the address of this world's controller."""
        line = line.replace("<key>", "sk-test")
        line = line.replace("--master_port 20001", f"--master_port {free_port()}")
        line = line.replace("deepspeed Fast", f"deepspeed --master_port {free_port()} Fast")
        line = line.replace("http://localhost:21001", self.controller)
        if "fastchat.serve.model_worker" in line:
            return f"{line} --controller-address {self.controller} --model-names {NAMES}"
        if "fastchat.serve.openai_api_server" in line:
            return f"{line} --controller-address {self.controller}"
        if "fastchat.serve.gradio_web_server" in line and "--controller-url" not in line:
            return f"{line} --controller-url {self.controller}"
        if "workflow_gen.py" in line or "workflow_eval.py" in line:
            return f"{line} --controller_address {self.controller}"
        return line


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """A world with an OpenAI API, and nothing else running yet."""
    with OpenAI(lambda body: chat_reply("\\boxed{1}"), served=("gpt-3.5-turbo",)) as openai:
        place = World(directory, f"{openai.url}/v1")
        try:
            yield place
        finally:
            place.stop()


def runs_here(command: Command) -> bool:
    """Whether nothing keeps a command from running on this machine."""
    return not any(re.search(pattern, command.text) for pattern in ELSEWHERE)
