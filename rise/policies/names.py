"""Who answers to a model's name: decided once per name, before the first request.

1. a name that the controller serves: its workers
2. a directory with a checkpoint, or `hf:ORG/NAME`: a controller and a worker of our own
3. `NAME@http://HOST:PORT/v1`: that OpenAI-compatible server
4. `gpt-*`, `chatgpt-*`, `o1*`, ...: the OpenAI API
5. `FILE.py:FUNCTION`: a Python function f(problem, messages) -> str
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastchat.model import files
from fastchat.model.weight_files import check_files
from fastchat.utils import similar
from rise.policies.function import FunctionPolicy, load_function
from rise.policies.keys import NO_KEY, OPENAI_KEY, SERVER_KEY, find_key
from rise.policies.openai_api import OpenAIPolicy, reasons
from rise.policies.policy import GONE, Policy, PolicyError
from rise.policies.worker import WorkerPolicy, list_models

log = logging.getLogger(__name__)

SERVER_NAME = re.compile(r"(?P<model>.+)@(?P<url>https?://\S+)")
OPENAI_NAME = re.compile(r"(gpt-|chatgpt-|o\d)\S*")
FUNCTION_NAME = re.compile(r".+\.py:\w+")

SERVED = ("worker", "server", "openai")
"""Kinds of those who may come back; nobody starts a worker of this run again."""

STUDENT = {"temperature": 1.0, "max_new_tokens": 1000}
"""Published sampling of the learner."""
TEACHER = {"temperature": 0.7, "max_new_tokens": 512}
"""Published sampling of the teacher, a model of the OpenAI API."""
REASONER = {"temperature": 1.0, "max_new_tokens": 8192}
"""A reasoning model of the OpenAI API: its one temperature, and room for what it reasons."""


def decide(names: list[str], controller: str) -> dict[str, str]:
    """The kind of each name: worker, checkpoint, server, openai, function; ValueError if none."""
    served: list[str] = []
    controller_error = None
    try:
        served = asyncio.run(list_models(controller))
    except PolicyError as error:
        controller_error = error.message
    kinds: dict[str, str] = {}
    problems: list[str] = []
    for name in dict.fromkeys(names):
        kind = "worker" if name in served else _kind_by_form(name)
        if kind is None:
            problems.append(_nobody(name, controller, served, controller_error))
        elif problem := _unusable(name, kind):
            problems.append(problem)
        else:
            kinds[name] = kind
    if problems:
        raise ValueError("\n".join(problems))
    return kinds


def sampling(kinds: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The temperature and the limit of new tokens of every turn: as given, else as published."""
    turns = [_published(model, kinds.get(model)) for model in config["models"]]
    return {name: config.get(name) or [turn[name] for turn in turns] for name in STUDENT}


def unavailable_sampling(kinds: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """What is wrong where a reasoning model of the OpenAI API is to sample as it refuses to."""
    given = sampling(kinds, config)["temperature"]
    return [
        f"--{name} {value:g}: {model} takes no other than 1; with several models give one "
        "temperature per turn, or leave it out"
        for model, temperature in zip(config["models"], given, strict=True)
        if kinds[model] == "openai" and reasons(model)
        for name, value in (("temperature", temperature), ("top_p", config["top_p"]))
        if value != 1
    ]


def _published(model: str, kind: str | None) -> dict[str, Any]:
    match = SERVER_NAME.fullmatch(model) if kind == "server" else None
    if kind in ("openai", "server") and reasons(match["model"] if match else model):
        return REASONER
    return TEACHER if kind == "openai" else STUDENT


def build(
    kinds: Mapping[str, str],
    config: Mapping[str, Any],
    local: Mapping[str, tuple[str, str]],
    learned: Callable[[str, list[str]], None] = lambda name, left_out: None,
) -> dict[str, Policy]:
    """One policy per name; `local` has (controller URL, model name) of each checkpoint.

    `learned` is called with a name and what its server is found to refuse.
    """
    timeout = config["request_timeout"]
    policies: dict[str, Policy] = {}
    for name, kind in kinds.items():
        if kind == "function":
            policies[name] = FunctionPolicy(name, timeout)
        elif kind in ("worker", "checkpoint"):
            own = (config["controller_address"], name)
            address, model = own if kind == "worker" else local[name]
            policies[name] = WorkerPolicy(
                name, address, model=model, date=config.get("date"), request_timeout=timeout
            )
        else:
            match = SERVER_NAME.fullmatch(name) if kind == "server" else None
            policies[name] = OpenAIPolicy(
                name,
                model=match["model"] if match else name,
                base_url=match["url"] if match else None,
                key=find_key(SERVER_KEY if match else OPENAI_KEY) or NO_KEY,
                request_timeout=timeout,
                needs_usage=config.get("max_cost_usd") is not None,
                left_out=config.get("left_out", {}).get(name, []),
                learned=learned,
            )
        if kind in SERVED and (retries := policies[name].retries):
            retries.patience = 60.0 * config.get("wait_for_server", 0)
    return policies


async def wait_for(kinds: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Wait until those can be asked who answered a run before, as long as it waits for anybody."""
    policies = build({name: kind for name, kind in kinds.items() if kind in SERVED}, config, {})
    for name, policy in policies.items():
        try:
            await policy.check()
        except PolicyError as error:
            minutes = config.get("wait_for_server", 0)
            if error.kind in GONE and minutes and policy.retries:
                message = "%s does not answer (%s) and is waited for, %g minutes at most"
                log.warning(message, name, error.message, minutes)
                with contextlib.suppress(PolicyError):  # `probe` says it
                    await policy.retries.run(policy.check)
        await policy.close()


async def probe(kinds: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Ask every server whether it could answer now; nothing is generated."""
    remote = {name: kind for name, kind in kinds.items() if kind != "checkpoint"}
    policies = build(remote, config, {})
    problems = []
    for name, policy in policies.items():
        try:
            await policy.check()
        except PolicyError as error:
            remedy = "; start that server, or check its address" * (error.kind == "connection")
            problems.append(f"{name} does not answer ({error.kind}): {error.message}{remedy}")
        finally:
            await policy.close()
    if problems:
        raise ValueError("\n".join(problems))


def fingerprint(name: str) -> str | None:
    """A checksum of a function's file or of a checkpoint, also where that is served by its path.

    None for other names, be they those of folders too.
    """
    if FUNCTION_NAME.fullmatch(name):
        return files.fingerprint(name.rpartition(":")[0])
    return files.fingerprint(name, with_base=True) if Path(name).is_dir() else None


def is_absent(name: str) -> bool:
    """Whether a name can only be the directory of a checkpoint that is not there yet."""
    folder = Path(name)
    if not folder.is_dir():
        return "/" in name and _kind_by_form(name) is None
    # What a training that was killed has left, before it saved its model.
    begun = (folder / "training.json").is_file() or not any(folder.glob("[!.]*"))
    return begun and not any((folder / file).is_file() for file in files.CONFIGURATIONS)


def _kind_by_form(name: str) -> str | None:
    if name.startswith("hf:") or Path(name).is_dir():
        return "checkpoint"
    forms = {"server": SERVER_NAME, "openai": OPENAI_NAME, "function": FUNCTION_NAME}
    return next((kind for kind, form in forms.items() if form.fullmatch(name)), None)


def _unusable(name: str, kind: str) -> str | None:
    server = SERVER_NAME.fullmatch(name) if kind == "server" else None
    if server and not urlsplit(server["url"]).path.strip("/"):
        return f"{name} has no path: give the server's URL up to and including /v1"
    if server and "@" in server["url"]:
        # The name is shown and recorded, so it must not hold a password.
        return f"a server's URL must hold no user and no password: its key is {SERVER_KEY}"
    try:
        if kind == "openai" and find_key(OPENAI_KEY) is None:
            return (
                f"{name} is a name of the OpenAI API, and there is no key: set {OPENAI_KEY}, or "
                f"write {OPENAI_KEY}: '<key>' to keys.cfg"
            )
        if kind == "server":
            find_key(SERVER_KEY)
        if kind == "checkpoint":
            check_files(name)
        if kind == "function":
            load_function(name)
    except ValueError as error:
        return str(error)
    return None


def _nobody(name: str, controller: str, served: list[str], controller_error: str | None) -> str:
    if name.endswith(".py"):
        return f"{name} is a file without the name of a function: did you mean {name}:FUNCTION?"
    if name.startswith((".", "/", "~")):
        return f"{name} is no directory: give one with a saved model{similar(name)}"
    if re.fullmatch(r"[^@\s]+@[\w.-]+(:\d+)?(/\S*)?", name):
        return f"{name} has no http:// or https:// behind the @: give NAME@http://HOST:PORT/v1"
    if controller_error:
        state = (
            f"no controller answers at {controller} ({controller_error}). Start one with `python "
            "-m fastchat.serve.controller` and a worker with `python -m "
            "fastchat.serve.model_worker --model-path DIRECTORY`, or"
        )
    else:
        state = (
            f"the controller at {controller} serves {', '.join(served) or 'nothing'} (a worker "
            "that is still loading is not listed yet);"
        )
    beside = similar(name)
    if beside and not served:
        return f"there is no directory {name}, and nobody serves a model of that name{beside}"
    hint = f" Did you mean hf:{name}?" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
    return (
        f"nobody answers to the model {name!r}: {state} give a directory with a checkpoint, "
        "hf:ORG/NAME, NAME@http://HOST:PORT/v1, a name of the OpenAI API (gpt-*) or "
        f"FILE.py:FUNCTION.{hint}"
    )
