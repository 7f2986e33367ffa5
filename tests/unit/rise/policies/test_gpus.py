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


def started(tmp_path, models, visible, options, cores=7):
    """Name -> (GPU, arguments) of every worker that would be started for these checkpoints."""
    found = {}

    def launch(serving, name, module, arguments, gpu=None):
        if module == "model_worker":
            found[name] = gpu, model_worker.parse_args(arguments)

    with (
        mock.patch.object(utils, "own_cores", lambda: cores),
        mock.patch.object(gpus, "visible_gpus", lambda: visible),
        mock.patch.object(LocalServing, "_launch", launch),
        mock.patch.object(local, "wait_until"),
        LocalServing(models, tmp_path, worker_args=options),
    ):
        return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"checkpoint-0": "0", "checkpoint-0.1": "1", "checkpoint-0.2": "2"}),
        (["--device", "cuda:1"], {"checkpoint-0": None}),
        (["--gpus=0,1"], {"checkpoint-0": None}),
        (["--engine", "vllm", "--num-gpus", "2"], {"checkpoint-0": None}),
    ],
)
def test_every_gpu_has_a_worker_unless_the_user_chose(tmp_path, options, expected):
    found = started(tmp_path, ["a"], ["0", "1", "2"], options)
    assert {name: gpu for name, (gpu, _) in found.items()} == expected


@pytest.mark.parametrize(
    ("models", "visible", "options", "expected"),
    [
        (["a", "b"], ["0"], [], [0.425, 0.425]),
        (["a", "b", "c"], ["0", "1"], [], [0.425, None, 0.425]),
        (["a"], ["0", "1"], [], [None, None]),
        (["a", "b"], ["0", "1"], ["--device=cuda:1"], [0.425, 0.425]),
        (["a", "b"], ["0"], ["--gpu-memory-fraction", "0.3"], [0.3, 0.3]),
        (["a", "b"], ["0"], ["--gpu-memory-fraction=0.3"], [0.3, 0.3]),
        (["a", "b"], ["0"], ["--max-gpu-memory", "9GiB"], [None, None]),
    ],
)
def test_workers_on_one_gpu_share_its_memory(tmp_path, models, visible, options, expected):
    found = started(tmp_path, models, visible, options)
    assert [args.gpu_memory_fraction for _, args in found.values()] == expected


@pytest.mark.parametrize(("options", "expected"), [([], [3, 3]), (["--num-threads=2"], [2, 2])])
def test_workers_share_the_cores(tmp_path, monkeypatch, options, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = started(tmp_path, ["a", "b"], [], options)
    assert [args.num_threads for _, args in found.values()] == expected
