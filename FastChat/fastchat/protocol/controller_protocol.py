"""What the controller reads: JSON bodies of workers and clients."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator


class WorkerStatus(BaseModel):
    """What a worker says about itself."""

    model_names: list[str]
    speed: float = Field(default=1.0, ge=0)
    """Relative weight in the lottery, and divisor of the queue length."""
    queue_length: int = Field(default=0, ge=0)
    """Requests that the worker holds, running or waiting."""


class RegisterRequest(BaseModel):
    """A worker announces itself."""

    worker_name: str
    """The worker's URL."""
    check_heart_beat: bool = True
    """Whether silence removes the worker."""
    worker_status: WorkerStatus | None = None
    """None: the controller asks the worker."""
    multimodal: bool = False

    @field_validator("worker_name")
    @classmethod
    def _is_url(cls, name: str) -> str:
        parts = urlsplit(name)
        # Reading the port is what finds a bad one.
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"{name!r} is no URL of a worker, like http://host:21002")
        return name.rstrip("/")


class HeartBeat(BaseModel):
    """A registered worker lives."""

    worker_name: str
    queue_length: int = Field(default=0, ge=0)


class ModelRequest(BaseModel):
    """A client asks for a worker that serves `model`."""

    model: str
