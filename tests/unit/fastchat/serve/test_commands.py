"""The flags of stock FastChat: honoured, or refused with the way out.

python -m pytest tests/unit/fastchat/serve/test_commands.py
"""

import os

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from fastchat.serve import cli, commands, controller, launch_all_serve, model_worker, screens
from tests.support.served import greedy
from tests.support.tiny import save_tiny_model


def parsed(*words):
    return model_worker.parse_args(["--model-path", "m", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-gpus", "2", "--engine", "embedded"], "worker per GPU .* --engine vllm"),
        (["--num-gpus", "2", "--gpus", "1"], "--num-gpus 2 are more than --gpus 1 names"),
        (["--gpus", "1", "--device", "cpu"], "give either --gpus or --device cpu"),
        (["--max-gpu-memory", "13GiB", "--gpu-memory-fraction", "0.5"], "give either"),
        (["--gpus", "first"], "give numbers of GPUs"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_loaded(words, said):
    with pytest.raises(ValueError, match=said):
        commands.settle(parsed(*words))


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


@pytest.mark.parametrize(
    ("read", "words", "said"),
    [
        (parsed, ["--gptq-wbits", "4"], "serve quantized checkpoints with vLLM"),
        (parsed, ["--stream-interval", "2"], "leave it out"),
        (parsed, ["--gpu"], "did you mean --gpus?"),
        (parsed, ["--vllm-args=-a 'b"], '--vllm-args: "-a \'b" has no closing quotation'),
        (controller.parse_args, ["--ssl"], "proxy that speaks TLS"),
        (cli.parse_args, ["--model-name", "m", "--judge-sent-end"], "an answer ends where"),
        (cli.parse_args, [], "give --model-path"),
        (launch_all_serve.parse_args, ["--model-path-address", "m", "--awq-wbits", "4"], "vLLM"),
        (launch_all_serve.parse_args, ["--model-path-address", "m", "--worker-port", "1"], "@PORT"),
    ],
)
def test_flags_of_others_are_refused_with_the_way_out(read, words, said, capsys):
    with pytest.raises(SystemExit) as end:
        read(*words) if read is parsed else read(words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


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
