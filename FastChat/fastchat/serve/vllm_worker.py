"""A FastChat worker in front of a vLLM server, or of another one that takes token ids as vLLM does.

    python -m fastchat.serve.vllm_worker --model-path ./checkpoint --vllm-bin ~/vllm/bin/vllm
    python -m fastchat.serve.vllm_worker --model-path ./checkpoint --base-url http://gpu1:8000/v1

vLLM lives in an environment of its own (it pins other versions of torch and transformers); this
process needs neither torch nor a GPU. It renders dialogues with the chat template code that
training uses and sends token ids, so that the model sees what it was trained on.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from fastchat.client.process import Child, ServerEnded, Watch, asked, free_ports, stop, wait_until
from fastchat.constants import RequestError
from fastchat.conversation import ChatTemplate
from fastchat.model.model_adapter import base_source, context_length, load_config, resolve
from fastchat.model.weight_files import check_files
from fastchat.serve.base_model_worker import (
    add_model_arguments,
    add_worker_arguments,
    longest_of,
    names_of,
    take_port,
    template_of,
)
from fastchat.serve.base_model_worker import run as run_worker
from fastchat.serve.commands import OF_VLLM
from fastchat.serve.upstream import command as vllm
from fastchat.serve.upstream.client import UpstreamClient, explore
from fastchat.serve.upstream.worker import UpstreamWorker
from fastchat.utils import Parser, build_logger, normal_url, words

KEY_VARIABLE = "VLLM_API_KEY"
"""Names the environment variable with the server's key; vLLM itself reads the same one."""
_START_SECONDS = 3600.0
_OWN_OPTIONS = ("--host", "--port", "--uds")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(OF_VLLM, description=(__doc__ or "").splitlines()[0])
    add_worker_arguments(parser, "requests")
    add_model_arguments(parser, "the server's, or else the checkpoint's")
    add = parser.add_argument
    add("--vllm-bin", help="path of the `vllm` command; its server is started")
    add_server_arguments(parser)
    add(
        "--base-url",
        type=normal_url,
        help=f"URL of a running server, with /v1, instead of --vllm-bin; key in {KEY_VARIABLE}",
    )
    add("--upstream-model", help="the server's name for the model (the only one that it serves)")
    return parser.read(argv)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--vllm-args",
        type=words,
        default="",
        help='more options of `vllm serve`, as one text: --vllm-args="--tensor-parallel-size 2"',
    )
    add("--vllm-log", type=Path, help="file for what vLLM prints (a new one, named at the start)")


def check_args(args: argparse.Namespace) -> None:
    """ValueError with all contradictions in the command line."""
    problems = []
    if bool(args.vllm_bin) == bool(args.base_url):
        problems.append("give either --vllm-bin or --base-url")
    if args.vllm_bin and not shutil.which(args.vllm_bin):
        problems.append(f"--vllm-bin {args.vllm_bin} is no command that can be run")
    own = [word for word in shlex.split(args.vllm_args) if word.split("=")[0] in _OWN_OPTIONS]
    if own:
        problems.append(f"--vllm-args must leave {', '.join(own)} out: the worker chooses it")
    if args.vllm_args and not args.vllm_bin:
        problems.append("--vllm-args needs --vllm-bin")
    if problems:
        raise ValueError("; ".join(problems))


def start_server(args: argparse.Namespace, logger: logging.Logger) -> tuple[Child, str]:
    """Start `vllm serve` on a free port of this machine; returns it and its URL."""
    check_files(args.model_path, args.base_model_path)
    [port] = free_ports(1)
    program, source = shutil.which(args.vllm_bin), resolve(args.model_path)
    weights = base_source(args.model_path, args.base_model_path)
    command = [program, "serve", weights, "--host", "127.0.0.1", "--port", str(port)]
    command += vllm.adapter_options(source) if weights != source else []
    command += vllm.cpu_options() if vllm.is_for_cpus(program) else []
    command += shlex.split(args.vllm_args)
    log = args.vllm_log
    if log is None:
        handle, name = tempfile.mkstemp(prefix="vllm-", suffix=".log")
        os.close(handle)
        log = Path(name)
    logger.info("starting %s; it writes to %s", shlex.join(command), log)
    # It ends its own children, which hold the accelerator's memory.
    child = Child("the server", command, log, at_our_death=signal.SIGTERM)
    return child, f"http://127.0.0.1:{port}"


def build_worker(
    args: argparse.Namespace, base_url: str, template: ChatTemplate, logger: logging.Logger
) -> UpstreamWorker:
    """Ask the server behind `base_url` what it can do, and stand in front of it.

    ValueError if it does not answer, or cannot do what the command line asks for.
    """
    client = UpstreamClient(base_url, os.environ.get(KEY_VARIABLE, ""))
    wanted = args.upstream_model or resolve(args.model_path)
    try:
        ids = template.prompt_ids([{"role": "user", "content": "Hello"}])
        model, length = asyncio.run(explore(client, wanted, ids))
    except RequestError as error:
        raise ValueError(f"--base-url {base_url}: {error}") from error
    weights = base_source(args.model_path, args.base_model_path)
    served = length or context_length(load_config(weights))
    return UpstreamWorker(
        client,
        model,
        template,
        names_of(args),
        limit=args.limit_worker_concurrency,
        longest=longest_of(args, served, "server"),
        logger=logger,
    )


def main(argv: list[str] | None = None) -> None:
    run(parse_args(argv))


def run(args: argparse.Namespace) -> None:
    logger = build_logger("vllm_worker")
    watch: Watch | None = None

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(1 if watch is not None and watch.gone else 0)

    try:
        check_args(args)
        sock = take_port(args)
        template = template_of(args)
        with contextlib.ExitStack() as at_the_end:
            # uvicorn hands the signal on when it has ended, and the server must be stopped then.
            signal.signal(signal.SIGTERM, end)
            server, base_url = None, args.base_url
            if args.vllm_bin:
                server, url = start_server(args, logger)
                at_the_end.callback(stop, [server])
                wait_until(
                    lambda: asked(f"{url}/health") is not None,
                    [server],
                    _START_SECONDS,
                    logger.info,
                )
                base_url = f"{url}/v1"
            worker = build_worker(args, base_url, template, logger)
            if server:
                worker.served_by = f"vllm {_version(url)}"
            watch = Watch(base_url, server, logger)
            at_the_end.callback(watch.close)
            run_worker(worker, args, sock, f"through {base_url}, {worker.served_by}")
    except ServerEnded as error:
        logger.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        args.error(str(error))


def _version(url: str) -> str:
    try:
        return str(json.loads(asked(f"{url}/version") or b"{}")["version"])
    except (ValueError, KeyError, TypeError):
        return "of an unknown version"


if __name__ == "__main__":
    main()
