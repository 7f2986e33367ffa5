"""Reads back TensorBoard's event files, to test what was really tracked."""

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


def events_of(directory: str | Path) -> EventAccumulator:
    """Everything in the event files of a directory."""
    return EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()


def scalars(board: EventAccumulator, name: str) -> dict[int, float]:
    """Step -> value."""
    return {event.step: make_ndarray(event.tensor_proto).item() for event in board.Tensors(name)}


def texts(board: EventAccumulator, name: str) -> Any:
    """The only text (or other tensor) of a name, as an array."""
    (event,) = board.Tensors(name)
    return make_ndarray(event.tensor_proto)
