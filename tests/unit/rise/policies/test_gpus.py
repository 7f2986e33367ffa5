"""Several workers for one checkpoint: which GPU each gets.

python -m pytest tests/unit/rise/policies/test_gpus.py
"""

from unittest import mock

import pytest

from fastchat import utils
from fastchat.serve import model_worker
from rise.policies import gpus, local
from rise.policies.local import LocalServing


def test_gpus_are_those_of_the_environment_or_of_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == []
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\necho "GPU 0: A (UUID: x)"\necho "  MIG 1g"\necho "GPU 1: B"\n')
    driver.chmod(0o755)
    assert gpus.visible_gpus() == ["0", "1"]
    for value, names in {"": [], "2, 3": ["2", "3"], "1,-1,0": ["1"], "GPU-x": ["GPU-x"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpus.visible_gpus() == names
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver.write_text("#!/bin/sh\necho 'GPU access failed'\nexit 9\n")
    assert gpus.visible_gpus() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"checkpoint-0": "0", "checkpoint-0.1": "1", "checkpoint-0.2": "2"}),
        (("--device", "cuda:1"), {"checkpoint-0": None}),
    ],
)
def test_every_gpu_has_a_worker_unless_the_user_chose(tmp_path, options, expected):
    started = {}

    def launch(serving, name, module, arguments, gpu=None):
        if module == "model_worker":
            started[name] = gpu

    with (
        mock.patch.object(gpus, "visible_gpus", lambda: ["0", "1", "2"]),
        mock.patch.object(LocalServing, "_launch", launch),
        mock.patch.object(local, "wait_until"),
        LocalServing(["a"], tmp_path, worker_args=options),
    ):
        assert started == expected


@pytest.mark.parametrize(
    ("models", "visible", "options", "expected"),
    [
        (["a", "b"], ["0"], [], [0.425, 0.425]),
        (["a", "b", "c"], ["0", "1"], [], [0.425, None, 0.425]),
        (["a"], ["0", "1"], [], [None, None]),
        (["a", "b"], ["0", "1"], ["--device=cuda:1"], [0.425, 0.425]),
        (["a", "b"], ["0"], ["--gpu-memory-fraction", "0.3"], [0.3, 0.3]),
        (["a", "b"], ["0"], ["--gpu-memory-fraction=0.3"], [0.3, 0.3]),
    ],
)
def test_workers_on_one_gpu_share_its_memory(tmp_path, models, visible, options, expected):
    started = []

    def launch(serving, name, module, arguments, gpu=None):
        if module == "model_worker":
            started.append(model_worker.parse_args(arguments).gpu_memory_fraction)

    with (
        mock.patch.object(gpus, "visible_gpus", lambda: visible),
        mock.patch.object(LocalServing, "_launch", launch),
        mock.patch.object(local, "wait_until"),
        LocalServing(models, tmp_path, worker_args=options),
    ):
        assert started == expected


@pytest.mark.parametrize(("options", "expected"), [([], [3, 3]), (["--num-threads=2"], [2, 2])])
def test_workers_share_the_cores(tmp_path, monkeypatch, options, expected):
    started = []

    def launch(serving, name, module, arguments, gpu=None):
        if module == "model_worker":
            started.append(model_worker.parse_args(arguments).num_threads)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with (
        mock.patch.object(utils, "own_cores", lambda: 7),
        mock.patch.object(gpus, "visible_gpus", list),
        mock.patch.object(LocalServing, "_launch", launch),
        mock.patch.object(local, "wait_until"),
        LocalServing(["a", "b"], tmp_path, worker_args=options),
    ):
        assert started == expected
