"""Serves a Hugging Face checkpoint to FastChat's controller and clients.

    python -m fastchat.serve.model_worker --model-path meta-llama/Llama-2-7b-chat-hf
    python -m fastchat.serve.model_worker --model-path ./checkpoint --port 21003 --device cuda
    python -m fastchat.serve.model_worker --model-path ./checkpoint --engine vllm

The model answers many requests at the same time (see `engine/engine.py`), in the checkpoint's own
dtype where the device computes in it. Where there are a GPU and a vLLM, that generates instead and
`vllm_worker` serves. It listens on localhost only unless told otherwise.
"""

import argparse
import asyncio
import logging
import os
import shlex
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from fastchat.conversation import ChatTemplate
from fastchat.model.model_adapter import (
    DTYPES,
    base_source,
    context_length,
    load_config,
    load_model,
    pick_device,
)
from fastchat.model.weight_files import check_files
from fastchat.protocol.worker_protocol import GenerateRequest
from fastchat.serve import commands, vllm_worker
from fastchat.serve.base_model_worker import (
    BaseModelWorker,
    add_model_arguments,
    add_worker_arguments,
    longest_of,
    names_of,
    run,
    take_port,
    template_of,
)
from fastchat.serve.engine.gpu_errors import end_when_lost, is_full
from fastchat.serve.engine.replies import Job, reply_of
from fastchat.serve.engine.request import EngineRequest, SamplingParams
from fastchat.serve.prometheus import read_engine
from fastchat.serve.upstream import command as vllm
from fastchat.utils import (
    Parser,
    build_logger,
    byte_count,
    fraction,
    keep_freed_memory,
    positive_int,
    threads_of,
)

_STREAM_TOKENS = 2
"""New tokens of each sample between two frames of a stream, as FastChat sends them."""


class ModelWorker(BaseModelWorker):
    """A model on this machine, in a started `SlotEngine`.

    `seed` is that of requests that bring none; None draws afresh.
    """

    def __init__(
        self,
        engine: Any,
        template: ChatTemplate,
        model_names: list[str],
        *,
        limit: int = 64,
        seed: int | None = None,
        logger: logging.Logger,
    ):
        # Twice as many requests as rows: a freed row has its successor at hand.
        super().__init__(model_names, 2 * limit, logger, template)
        self.engine, self.context_length = engine, engine.max_length
        self.tokenizer = template.tokenizer
        self.seed = seed
        read_engine(self.metrics, engine.load)

    def prepare(self, request: GenerateRequest) -> Job:
        ids, max_new_tokens = self.prompts.fitted(request, self.context_length)
        engine_request = EngineRequest(
            prompt=ids,
            params=SamplingParams(
                request.temperature,
                request.top_p,
                request.top_k,
                request.presence_penalty,
                request.frequency_penalty,
                request.repetition_penalty,
            ),
            max_new_tokens=max_new_tokens,
            stop=tuple(request.stop),
            stop_ids=self.template.stop_token_ids | set(request.stop_token_ids),
            n=request.n,
            seed=self.seed if request.seed is None else request.seed,
            logprobs=request.logprobs,
            scores_prompt=request.scores_prompt,
        )
        self.engine.check(engine_request)
        return Job(engine_request, self.prompts.echo(request), request.return_token_ids)

    async def generate(self, prepared: Job) -> dict[str, Any]:
        await asyncio.wrap_future(self.engine.submit(prepared.engine))
        size = sum(len(sample.tokens) for sample in prepared.engine.samples)
        return await self.beside(
            size, lambda: reply_of(prepared, self.prompts.template, final=True)
        )

    async def stream(self, prepared: Job) -> AsyncGenerator[dict[str, Any], None]:
        loop, grown = asyncio.get_running_loop(), asyncio.Event()
        prepared.engine.on_progress = lambda: loop.call_soon_threadsafe(grown.set)
        done = asyncio.wrap_future(self.engine.submit(prepared.engine))
        done.add_done_callback(lambda _: grown.set())
        sent = 0
        try:
            while not done.done():
                await grown.wait()
                grown.clear()
                size = sum(len(sample.tokens) for sample in prepared.engine.samples)
                if not done.done() and size >= sent + _STREAM_TOKENS * prepared.engine.n:
                    sent = size
                    yield reply_of(prepared, self.template, final=False)
            await done
            yield reply_of(prepared, self.template, final=True)
        finally:
            done.cancel()

    def status(self) -> dict[str, Any]:
        return {**super().status(), "engine": self.engine.load()}


def parse_args(argv: list[str] | None = None, also: Iterable[str] = ()) -> argparse.Namespace:
    """Its arguments; `also` are the flags of a program that hands on what it does not know."""
    parser = Parser(commands.ELSEWHERE, also, description=(__doc__ or "").splitlines()[0])
    add_worker_arguments(parser, "answers (a request for n samples takes n)")
    add_model_arguments(parser, "the model's")
    add = parser.add_argument
    add(
        "--engine",
        choices=("auto", "embedded", "vllm"),
        default="auto",
        help="what generates: the engine here, or a vLLM (VLLM_BIN, or `vllm` beside this Python, "
        "or on PATH); auto takes vLLM where there are a GPU and a vLLM",
    )
    vllm_worker.add_server_arguments(parser)
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    add(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="auto is the checkpoint's own; on a CPU that does not compute in bfloat16, float32",
    )
    add(
        "--gpu-memory-fraction",
        type=fraction,
        help="share of the GPU's memory for weights and cache, above 0 and at most 1; workers that "
        "share a GPU need one each (85 %% of what is free when the weights are loaded)",
    )
    add(
        "--kv-memory",
        type=byte_count,
        help="the most memory for keys and values, such as 4GiB; a CPU's is taken as it is used "
        "(30 %% of what is free, on a GPU what --gpu-memory-fraction says)",
    )
    add(
        "--num-threads",
        type=positive_int,
        help="CPU threads of torch (OMP_NUM_THREADS, or the cores that this process may use)",
    )
    add("--seed", type=int, help="seed of requests that bring none (none)")
    commands.add_gpus(parser)
    return parser.read(argv)


def vllm_instead(args: argparse.Namespace, logger: logging.Logger) -> argparse.Namespace | None:
    """The arguments of `vllm_worker` where a vLLM generates; None for the engine here.

    ValueError if vLLM is asked for, and is not there or cannot do what the command line says.
    """
    commands.settle(args)
    check_files(args.model_path, args.base_model_path)
    command = vllm.find() if args.engine != "embedded" else None
    reason = vllm.against(args, command)
    if reason and args.num_gpus > 1 and args.engine == "auto":
        why = f"{commands.ONE_GPU}; vLLM does not generate, since {reason}"
        raise ValueError(f"--num-gpus {args.num_gpus}: {why}")
    if reason and (args.engine == "vllm" or args.vllm_args):
        raise ValueError(f"{'--vllm-args' if args.vllm_args else '--engine vllm'}: {reason}")
    if reason or command is None:
        logger.info("the engine here generates: %s", reason)
        return None
    logger.info("vLLM generates: %s (--engine embedded overrides)", command)
    own = vllm_worker.parse_args(["--model-path", args.model_path, "--vllm-bin", command])
    shared = {name: value for name, value in vars(args).items() if hasattr(own, name)}
    options = vllm.worker_options(args, vllm.is_for_cpus(command))
    shared["vllm_args"] = f"{shlex.join(options)} {args.vllm_args}"
    os.environ["OMP_NUM_THREADS"] = str(args.num_threads or threads_of())
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return argparse.Namespace(**{**vars(own), **shared})


def build_worker(args: argparse.Namespace, logger: logging.Logger) -> ModelWorker:
    """Load everything that the command line names; what is quick, and fails if wrong, comes first.

    ValueError if the checkpoint, the template, the device or the memory will not do.
    """
    commands.settle(args)
    commands.device_of(args)
    check_files(args.model_path, args.base_model_path)
    template = template_of(args)
    config = load_config(base_source(args.model_path, args.base_model_path))
    longest = longest_of(args, context_length(config), "model")
    own = getattr(config, "dtype", None)
    try:
        engine = _load_engine(args, template.tokenizer, longest, own, logger)
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise ValueError(
            f"{args.model_path} does not fit into the free memory of {pick_device(args.device)}; "
            "give every worker on this GPU its share with --gpu-memory-fraction (two may take 0.42 "
            "each), end what else uses the GPU, or choose another --device"
        ) from error
    limit, names = args.limit_worker_concurrency, names_of(args)
    return ModelWorker(engine, template, names, limit=limit, seed=args.seed, logger=logger)


def _load_engine(
    args: argparse.Namespace, tokenizer: Any, max_length: int, own: Any, logger: logging.Logger
) -> Any:
    """The model on its device in a `SlotEngine` that is not started yet."""
    import torch
    from transformers.utils import logging as hub_logging

    from fastchat.serve.engine.engine import SlotEngine

    hub_logging.disable_progress_bar()
    threads = args.num_threads or threads_of()
    torch.set_num_threads(threads)
    keep_freed_memory()
    device = pick_device(args.device) or "cpu"
    memory_fraction = commands.memory_fraction(args, device)
    options = commands.load_options(args, device)
    model = load_model(args.model_path, device=device, base=args.base_model_path, **options)
    logger.info(
        "%s; %s", _dtype_in_words(args, model, own), f"{threads} CPU thread{'s' * (threads > 1)}"
    )
    return SlotEngine(
        model,
        tokenizer,
        kv_bytes=args.kv_memory,
        max_rows=args.limit_worker_concurrency,
        max_length=max_length,
        memory_fraction=memory_fraction,
        logger=logger,
    )


def _dtype_in_words(args: argparse.Namespace, model: Any, own: Any) -> str:
    name = str(model.dtype).removeprefix("torch.")
    if args.load_8bit:
        return f"weights in 8 bits, computing in {name}"
    if args.dtype != "auto" or model.device.type != "cpu":
        return f"computing in {name}"
    reason = "as the checkpoint"
    if own not in (None, model.dtype):
        own = str(own).removeprefix("torch.")
        reason = f"since this CPU does not compute in {own} itself"
    return f"computing in {name}, {reason} (--dtype overrides)"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    logger = build_logger("model_worker")
    with commands.refusals(args):
        if instead := vllm_instead(args, logger):
            vllm_worker.run(instead)
            return
        sock = take_port(args)
        worker = build_worker(args, logger)
    engine, load = worker.engine, worker.engine.load()
    dtype = str(engine.model.model.dtype).removeprefix("torch.")
    slots = f"{load['slots']} slots of {load['slot_tokens']} tokens"
    end_when_lost(engine)
    engine.start()
    try:
        run(worker, args, sock, f"{engine.model.device}, {dtype}, {slots}")
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
