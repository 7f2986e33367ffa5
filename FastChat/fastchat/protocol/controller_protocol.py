"""What the controller reads, JSON bodies of workers and clients, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field


def _worker_url(name: str) -> str:
    parts = urlsplit(name)
    # Reading the port is what finds a bad one.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{name!r} is no URL of a worker, like http://host:21002")
    return name.rstrip("/")


WorkerUrl = Annotated[str, AfterValidator(_worker_url)]


class WorkerStatus(BaseModel):
    """What a worker says about itself; the last three fields are ours."""

    model_names: list[str]
    speed: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Relative weight in the lottery, and divisor of the queue length."""
    queue_length: int = Field(default=0, ge=0)
    """Requests that the worker holds, running or waiting."""
    limit: int | None = Field(default=None, ge=1)
    """Requests that it generates at the same time."""
    extensions: list[str] = []
    """Fields of a request that a stock worker does not know."""
    context_length: int = Field(default=0, ge=0)
    """Longest prompt plus answer, in tokens; 0 where it does not say."""


class RegisterRequest(BaseModel):
    """A worker announces itself."""

    worker_name: WorkerUrl
    check_heart_beat: bool = True
    """Whether silence removes the worker."""
    worker_status: WorkerStatus | None = None
    """None: the controller asks the worker."""
    multimodal: bool = False


class HeartBeat(BaseModel):
    """A registered worker lives."""

    worker_name: str
    queue_length: int = Field(default=0, ge=0)


class ModelRequest(BaseModel):
    """A client asks for a worker that serves `model`."""

    model: str


class ModelList(BaseModel):
    """The reply to `/list_models`."""

    models: list[str]


class WorkerAddress(BaseModel):
    """The reply to `/get_worker_address`."""

    address: WorkerUrl | Literal[""]
    """"" where nobody serves the model."""
