"""The flags of the servers, stock FastChat's too: honoured, or refused in one line that helps.

python -m pytest tests/unit/fastchat/serve/test_commands.py
"""

import os
import shlex
import socket

import pytest
import torch
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from fastchat.serve import (
    cli,
    commands,
    controller,
    launch_all_serve,
    model_worker,
    screens,
    vllm_worker,
)
from tests.support.served import greedy
from tests.support.tiny import save_tiny_model


def parsed(*words):
    return model_worker.parse_args(["--model-path", "m", *words])


def refusal(capsys, program, *words):
    """The one line of a program that refuses to start."""
    with pytest.raises(SystemExit) as end:
        program.main([str(word) for word in words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("error:") == 1 and "usage" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--num-gpus 2 --engine embedded", "else give --engine vllm"),
        ("--num-gpus 2 --gpus 1", "--num-gpus 2 are more than --gpus 1 names"),
        ("--gpus 1 --device cpu", "give either --gpus or --device cpu"),
        ("--max-gpu-memory 13GiB --gpu-memory-fraction 0.5", "give either"),
        ("--gpus first", "give numbers of GPUs"),
        ("--gptq-wbits 4", "serve quantized checkpoints with vLLM"),
        ("--stream-interval 2", "leave it out"),
        ("--gpu", "did you mean --gpus?"),
        ("""--vllm-args="-a 'b" """, '--vllm-args: "-a \'b" has no closing quotation'),
        ("--host 0.0.0.0", "--worker-address"),
        ("--host 'no such host'", "is no address"),
        ("--port x", "'x'"),
        ("--context-length 99999", "--context-length 99999 is longer"),
        ("--device mps", "unknown device 'mps'"),
        ("--conv-template vicuna", "unknown chat template 'vicuna'"),
        ("--limit-worker-concurrency 0", "above 0"),
        *((f"--gpu-memory-fraction {x}", "at most 1") for x in ("0", "1.01", "-1", "nan", "all")),
    ],
)
def test_a_worker_refuses_what_it_cannot_honour(words, said, checkpoint, capsys):
    model = ("--model-path", checkpoint(), "--port", 0)
    assert said in refusal(capsys, model_worker, *model, *shlex.split(words))


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        (controller, "--ssl", "proxy that speaks TLS"),
        (controller, "--port 99999", "--port 99999 is no port"),
        (cli, "--model-name m --judge-sent-end", "an answer ends where"),
        (cli, "", "give --model-path"),
        (launch_all_serve, "--model-path-address m --awq-wbits 4", "vLLM"),
        (cli, "--model-path m --stlye rich", "did you mean --style?"),
        (launch_all_serve, "--model-path-address m --worker-port 1", "@PORT"),
        (launch_all_serve, "--model-path-address m --model-path other", "@PORT"),
        (launch_all_serve, "--model-path-address m --no-register", "leave it out"),
        (launch_all_serve, "--model-path-address m --server-prot 1", "did you mean --server-port?"),
        (vllm_worker, "--model-path m --dtype half", 'go into --vllm-args="..."'),
    ],
)
def test_others_refuse_what_they_cannot_honour(program, words, said, capsys):
    assert said in refusal(capsys, program, *words.split())


def test_a_port_that_is_taken_is_named_with_its_flag(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, controller, "--port", port)
    assert f"cannot listen on localhost:{port}" in line and "--port" in line


def test_what_is_no_checkpoint_to_serve_is_said_with_the_remedy(tmp_path, capsys):
    save_tiny_model(tmp_path / "plain", installed=False)
    line = refusal(capsys, model_worker, "--model-path", tmp_path / "plain", "--port", 0)
    assert all(word in line for word in ("--chat-template", "llama-2", "chatml", "zephyr"))
    for path, said in ((tmp_path, "config.json"), (tmp_path / "no", "there is no directory '")):
        assert said in refusal(capsys, model_worker, "--model-path", path, "--port", 0)


@pytest.mark.parametrize("place", ["torch.nn.Module.to", "fastchat.serve.engine.engine.KVPool"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")],
)
def test_a_model_without_room_on_the_gpu_is_one_line(checkpoint, capsys, monkeypatch, place, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(place, full)
    words = ("--model-path", checkpoint(), "--device", "cpu", "--port", 0)
    line = refusal(capsys, model_worker, *words)
    assert f"{checkpoint()} does not fit into the free memory of cpu" in line
    assert "--gpu-memory-fraction" in line


def test_memory_of_a_gpu_is_none_of_a_cpu():
    with pytest.raises(ValueError, match="--kv-memory"):
        commands.memory_fraction(parsed("--max-gpu-memory", "13Gib"), "cpu")
    assert commands.memory_fraction(parsed("--gpu-memory-fraction", "0.4"), "cpu") == 0.4


def test_gpus_are_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    commands.settle(parsed("--gpus", "1, GPU-8"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,GPU-8"


def test_a_gpu_that_is_none_is_no_reason_to_take_the_cpu(monkeypatch):
    monkeypatch.setattr(commands, "pick_device", lambda _: "cpu")
    assert commands.device_of(parsed()) == "cpu"
    with pytest.raises(ValueError, match="--gpus 7: torch sees no such GPU"):
        commands.device_of(parsed("--gpus", "7"))


def test_weights_in_8_bits_answer(tmp_path):
    pytest.importorskip("bitsandbytes")
    path = save_tiny_model(tmp_path / "model")
    model, tokens = greedy(path, "--load-8bit")
    assert model.get_submodule("model.layers.0.mlp.up_proj").weight.element_size() == 1
    assert len(tokens) == 12


def test_the_rich_screen_reads_and_shows(capsys):
    args = cli.parse_args(["--model-name", "m", "--style", "rich"])

    async def texts():
        yield "**4"
        yield "**4** it is"

    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        screen = screens.screen_of(args)
        pipe.send_text("2 + 2?\n")
        assert screen.ask("USER") == "2 + 2?"
        pipe.send_text("\x04")
        assert screen.ask("USER") is None
    assert cli.asyncio.run(screen.show(texts())) == "**4** it is"
    assert "4 it is" in capsys.readouterr().out
