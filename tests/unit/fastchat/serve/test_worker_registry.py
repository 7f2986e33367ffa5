"""The controller's table: who is in, who is chosen.

python -m pytest tests/unit/fastchat/serve/test_worker_registry.py
"""

from collections import Counter

import pytest

from fastchat.protocol.controller_protocol import RegisterRequest, WorkerStatus
from fastchat.serve.worker_registry import WorkerRegistry


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def registry_of(method, *workers):
    clock = Clock()
    registry = WorkerRegistry(method, clock)
    for name, models, speed, queue in workers:
        status = WorkerStatus(model_names=models, speed=speed, queue_length=queue)
        registry.add(RegisterRequest(worker_name=f"http://{name}:1"), status)
    return registry, clock


def test_the_lottery_follows_the_speeds():
    registry, _ = registry_of(
        "lottery", ("a", ["m"], 1, 0), ("b", ["m"], 3, 9), ("c", ["other"], 5, 0)
    )
    chosen = Counter(registry.choose("m") for _ in range(4000))
    assert set(chosen) == {"http://a:1", "http://b:1"}
    assert 0.7 < chosen["http://b:1"] / 4000 < 0.8


def test_the_shortest_queue_is_relative_to_the_speed_and_grows_with_every_choice():
    registry, _ = registry_of("shortest_queue", ("a", ["m"], 1, 2), ("b", ["m"], 4, 4))
    # a: 2 / 1; b: 4 / 4, 5 / 4, 6 / 4, 7 / 4, 8 / 4.
    assert [registry.choose("m")[7] for _ in range(6)] == ["b", "b", "b", "b", "a", "b"]


@pytest.mark.parametrize("method", ["lottery", "shortest_queue"])
def test_nobody_serves_it(method):
    registry, _ = registry_of(method, ("a", ["m"], 1, 0), ("stopped", ["z"], 0, 0))
    assert registry.choose("unknown") == ""
    assert registry.choose("z") == ""


def test_silent_workers_are_removed_unless_they_need_not_speak():
    registry, clock = registry_of("lottery", ("a", ["m"], 1, 0), ("b", ["m", "n"], 1, 0))
    quiet = RegisterRequest(worker_name="http://q:1", check_heart_beat=False)
    registry.add(quiet, WorkerStatus(model_names=["q"]))
    clock.now = 80
    assert registry.heart_beat("http://a:1", queue_length=3)
    clock.now = 100
    assert registry.remove_silent(90) == ["http://b:1"]
    assert registry.models() == ["m", "q"]
    assert registry.workers["http://a:1"].status.queue_length == 3
    assert not registry.heart_beat("http://b:1", queue_length=0)


def test_models_are_listed_once_and_by_kind():
    registry, _ = registry_of("lottery", ("a", ["m", "n"], 1, 1), ("b", ["m"], 2, 2))
    seeing = RegisterRequest(worker_name="http://s:1", multimodal=True)
    registry.add(seeing, WorkerStatus(model_names=["s"]))
    assert registry.models() == ["m", "n", "s"]
    assert registry.models(multimodal=True) == ["s"]
    assert registry.models(multimodal=False) == ["m", "n"]
    assert registry.total() == WorkerStatus(model_names=["m", "n", "s"], speed=4.0, queue_length=3)
