"""Every launcher, with real DeepSpeed processes on the CPU.

python -m pytest tests/processes/test_launchers.py
"""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fastchat.model.model_adapter import load_model
from fastchat.train.run_record import LOCK
from fastchat.train.train import main
from tests.support.servers import free_port
from tests.support.stages import ROOT
from tests.support.training_data import make_case

SCRIPT = "FastChat/fastchat/train/train_mem.py"
BIN = Path(sys.executable).parent
SECONDS = 300

PAIR = """
import json, sys, torch
from fastchat.train import launch, run_record
launch.name_accelerator()
from fastchat.train.train import main

# DeepSpeed goes on with the groups of its first run.
torch.distributed.destroy_process_group = lambda *_: None
run_record.LOCK_WAIT = 0.2
launch.leave([main(words) for words in json.loads(sys.argv[1])] != [2, 0, 0, 0, 0])
"""
"""Several runs one after the other in the same processes: each start takes seconds."""
ADAPTERS = {"q_lora": "zero2.json", "use_lora": "zero3.json"}
"""A flag of an adapter -> the file with which it is trained."""


def start(command, **more):
    """Start a command as a shell without a login, a terminal or GPUs would."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "RANK", "LOCAL_"))}
    keep |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    keep |= {"NETRC": "/nonexistent", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    keep |= more
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=keep,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(command, **more):
    """Run a command to its end and return its output; fails the test on another code than 0."""
    process = start(command, **more)
    try:
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-4000:]
    return output


def arguments(case, output, *more):
    model, data = case
    return [
        *("--model_name_or_path", model, "--data_path", data, "--output_dir", output),
        *("--report_to", "none", "--num_train_epochs", "2", "--logging_steps", "1"),
        *("--learning_rate", "1e-3", "--save_strategy", "no", *more),
    ]


def two(launcher, script=SCRIPT):
    """A launcher's command line for two processes."""
    flag = {"deepspeed": "--num_accelerators", "torchrun": "--nproc_per_node"}[launcher]
    return [launcher, flag, "2", "--master_port", str(free_port()), script]


def log(output):
    record = json.loads((output / "training.json").read_text())
    assert record["status"] == "finished"
    return record, [entry for entry in record["log_history"] if "loss" in entry]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("case"), count=22)


@pytest.fixture(scope="module")
def reference(case, tmp_path_factory):
    """22 rows in steps of 8, so that the last step of an epoch is short; one process, float32."""
    output = tmp_path_factory.mktemp("reference") / "out"
    command = arguments(
        case, output, "--per_device_train_batch_size", "8", "--disable_tqdm", "True"
    )
    assert main([str(part) for part in command]) == 0
    return output


def assert_same_run(output, reference, rel):
    (record, entries), (_, expected) = log(output), log(reference)
    assert len(entries) == len(expected) == 6
    for key in ("loss", "grad_norm", "nll", "effective_samples", "learning_rate"):
        assert [e[key] for e in entries] == pytest.approx([e[key] for e in expected], rel=rel)
    model, other = (load_model(path, device="cpu") for path in (output, reference))
    assert model.num_parameters() == record["parameters"] == other.num_parameters()
    for (name, value), own in zip(other.named_parameters(), model.parameters(), strict=True):
        assert (value - own).abs().max().item() < 10 * rel, name


def adapter(small, output, flag, *more):
    """With gradient checkpointing: the inputs of the first block are frozen."""
    flags = [f"--{flag}", "True", "--lora_dropout", "0", "--gradient_checkpointing", "True"]
    return [str(part) for part in arguments(small, output, *flags, *more)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    shapes = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 2}
    shapes |= {"intermediate_size": 128, "num_key_value_heads": 2}
    return make_case(tmp_path_factory.mktemp("small"), 22, **shapes)


@pytest.fixture(scope="module")
def ended(case, tmp_path_factory):
    """A run of ZeRO-3 that SIGTERM and then kill -9 have ended: its place and its arguments."""
    output = tmp_path_factory.mktemp("ended") / "out"
    more = ["--per_device_train_batch_size", "4", "--deepspeed", "deepspeed/zero3.json"]
    more += ["--save_strategy", "steps", "--save_steps", "1"]
    words = [str(part) for part in arguments(case, output, *more)]
    for number, wanted in ((signal.SIGTERM, 1), (signal.SIGKILL, 4)):
        process, printed = start([*two("deepspeed"), *words]), ""
        deadline = time.monotonic() + SECONDS
        while not (output / f"checkpoint-{wanted}" / "complete.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.02)
        # deepspeed alone is told to end: it says nothing to its processes.
        (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        printed, _ = process.communicate(timeout=SECONDS)
        assert json.loads((output / "training.json").read_text())["status"] == "running"
        if number == signal.SIGTERM:
            [step] = re.findall(r"SIGTERM: stopped after step (\d) of 6, which is saved", printed)
            assert (output / f"checkpoint-{step}" / "complete.json").exists()
        else:
            assert f"resuming from {output}/checkpoint-{step}" in printed
    return output, words


@pytest.fixture(scope="module")
def pair(case, small, ended, tmp_path_factory):
    """What two processes have trained, but where another one does, and what they have said."""
    place = tmp_path_factory.mktemp("pair")
    (place / "pair.py").write_text(PAIR)
    (place / "held").mkdir()
    more = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    runs = [[*map(str, arguments(case, place / name, *more))] for name in ("held", "case")]
    for flag, file in ADAPTERS.items():
        more = ["--per_device_train_batch_size", "4", "--deepspeed", f"deepspeed/{file}"]
        runs.append(adapter(small, place / flag, flag, *more))
    runs.append(ended[1])
    with (place / "held" / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        printed = run([*two("torchrun", place / "pair.py"), json.dumps(runs)])
    (place / "printed").write_text(printed)
    return place


def test_all_processes_end_where_the_first_is_refused(pair):
    printed = (pair / "printed").read_text()
    # Both say it here, where no launcher ends the second one while it waits.
    assert printed.count(f"another process is training in {pair}/held: wait for it, or ") == 2
    assert "Traceback" not in printed
    assert {path.name for path in (pair / "held").iterdir()} == {LOCK}


def test_two_processes_train_as_one_does(pair, reference):
    assert log(pair / "case")[0]["processes"] == 2
    assert_same_run(pair / "case", reference, rel=1e-5)


def test_zero3_in_two_processes_goes_on_after_sigterm_and_kill_9(ended, pair, reference):
    assert f"resuming from {ended[0]}/checkpoint-" in (pair / "printed").read_text()
    assert_same_run(ended[0], reference, rel=1e-5)


def test_an_interrupt_saves_the_step_and_ends_with_130_on_an_ascii_terminal_too(tmp_path):
    output = tmp_path / "out"
    model, data = make_case(tmp_path)
    data.write_text(data.read_text().replace("What is", "Combien d\u2019\u0153ufs \U0001f600"))
    more = ["--per_device_train_batch_size", "1", "--num_train_epochs", "1000"]
    command = [sys.executable, SCRIPT, *arguments((model, data), output, *more)]
    process = start(command, PYTHONIOENCODING="ascii")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "'loss'" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and "Traceback" not in printed
    [step] = re.findall(r"SIGINT: stopped after step (\d+) of 10000, which is saved", printed)
    assert (output / f"checkpoint-{step}" / "complete.json").exists()
    assert any("Combien d\\u2019\\u0153ufs \\U0001f600" in line for line in lines)
    # No progress bar in what is not a terminal: every metric line begins its line.
    metrics = [line for line in [*lines, *printed.splitlines()] if "'loss'" in line]
    assert metrics and all(line.startswith("{'loss'") for line in metrics)


def test_an_interrupt_before_the_first_step_is_one_line(case, tmp_path):
    process = start([sys.executable, SCRIPT, *arguments(case, tmp_path / "out")])
    modules = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in modules.read_text():  # Python is up, and the packages are imported
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "interrupted" in printed and "Traceback" not in printed


@pytest.mark.parametrize("flag", ADAPTERS)
def test_adapters_train_in_two_processes_as_in_one(small, pair, tmp_path, flag):
    assert main(adapter(small, tmp_path, flag, "--per_device_train_batch_size", "8")) == 0
    (record, entries), (_, expected) = log(pair / flag), log(tmp_path)
    assert record["processes"] == 2
    for key in ("loss", "grad_norm"):
        assert [e[key] for e in entries] == pytest.approx([e[key] for e in expected], rel=1e-4)
    ours, theirs = (load_file(n / "adapter_model.safetensors") for n in (pair / flag, tmp_path))
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max().item() < 1e-3, name


def test_a_port_in_use_is_one_clear_error(case, tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        for name, value in {**launched, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        assert main([str(part) for part in arguments(case, tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"port {port}" in error and "Traceback" not in error
    assert "choose a free one with the launcher's --master_port" in error
