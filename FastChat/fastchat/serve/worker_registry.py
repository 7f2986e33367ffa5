"""The controller's table of workers, and the choice among those that serve a model."""

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from fastchat.protocol.controller_protocol import RegisterRequest, WorkerStatus

DispatchMethod = Literal["lottery", "shortest_queue"]


def add_dispatch_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dispatch-method",
        choices=get_args(DispatchMethod),
        default="shortest_queue",
        help="how a worker is chosen among those that serve a model (shortest_queue)",
    )


@dataclass
class WorkerInfo:
    """What the controller knows about one worker."""

    status: WorkerStatus
    check_heart_beat: bool
    multimodal: bool
    last_seen: float
    """Clock time of the last registration or heartbeat, in seconds."""


@dataclass
class WorkerRegistry:
    """Workers by their URL.

    The method "lottery" draws a worker with probability proportional to its speed; "shortest_queue"
    takes the smallest queue length over speed and counts the request. `clock` only grows.
    """

    dispatch_method: DispatchMethod
    clock: Callable[[], float] = time.monotonic
    workers: dict[str, WorkerInfo] = field(default_factory=dict)

    def add(self, request: RegisterRequest, status: WorkerStatus) -> None:
        self.workers[request.worker_name] = WorkerInfo(
            status, request.check_heart_beat, request.multimodal, self.clock()
        )

    def heart_beat(self, name: str, queue_length: int) -> bool:
        """Note that a worker lives; False if it is not registered."""
        if info := self.workers.get(name):
            info.status.queue_length, info.last_seen = queue_length, self.clock()
        return info is not None

    def remove(self, name: str) -> bool:
        return self.workers.pop(name, None) is not None

    def remove_silent(self, seconds: float) -> list[str]:
        """Take out the workers whose last heartbeat is older than that, and return their names."""
        oldest = self.clock() - seconds
        silent = [
            name
            for name, info in self.workers.items()
            if info.check_heart_beat and info.last_seen < oldest
        ]
        for name in silent:
            del self.workers[name]
        return silent

    def models(self, multimodal: bool | None = None) -> list[str]:
        """The names of all models served, sorted; optionally of one kind of worker only."""
        return sorted(
            {
                name
                for info in self.workers.values()
                if multimodal is None or info.multimodal is multimodal
                for name in info.status.model_names
            }
        )

    def choose(self, model: str) -> str:
        """The URL of a worker that serves `model`, "" if there is none."""
        serving = {
            name: info.status
            for name, info in self.workers.items()
            if model in info.status.model_names and info.status.speed > 0
        }
        if not serving:
            return ""
        if self.dispatch_method == "lottery":
            speeds = [status.speed for status in serving.values()]
            return random.choices(list(serving), weights=speeds)[0]
        name = min(serving, key=lambda name: serving[name].queue_length / serving[name].speed)
        # Until the next heartbeat this count is all that spreads a burst over the workers.
        serving[name].queue_length += 1
        return name

    def total(self) -> WorkerStatus:
        return WorkerStatus.model_construct(  # sums may be larger than what one worker may say
            model_names=self.models(),
            speed=sum(info.status.speed for info in self.workers.values()),
            queue_length=sum(info.status.queue_length for info in self.workers.values()),
        )
