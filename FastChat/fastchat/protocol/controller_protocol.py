"""What the controller reads, JSON bodies of workers and clients, and what it answers."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field

from fastchat.protocol.worker_protocol import Text

_SERVER = re.compile(r"https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?/?", re.ASCII | re.IGNORECASE)
_NAME_LENGTH = 1000


def _worker_url(name: str) -> str:
    """Scheme, host and port: whoever names more would choose what a controller asks of others."""
    shown = f"{name[:100]!r} is no URL of a worker, like http://host:21002"
    if len(name) > _NAME_LENGTH or not _SERVER.fullmatch(name):
        raise ValueError(f"{shown}: give scheme, host and port only")
    try:
        parts = urlsplit(name)
        (parts.hostname or "").encode("idna")
        if parts.port == 0:
            raise ValueError("port 0")
    except ValueError as error:  # a host that cannot be looked up, a port above 65535
        raise ValueError(f"{shown}: {error}") from error
    return name.rstrip("/")


WorkerUrl = Annotated[str, AfterValidator(_worker_url)]
Name = Annotated[Text, Field(max_length=_NAME_LENGTH)]
Load = Annotated[int, Field(ge=0, lt=2**31)]


class WorkerStatus(BaseModel):
    """What a worker says about itself; the last four fields are ours."""

    model_names: list[Name] = Field(max_length=1000)
    speed: float = Field(default=1.0, ge=0, le=1e9, allow_inf_nan=False)
    """Relative weight in the lottery, and divisor of the queue length."""
    queue_length: Load = 0
    """Requests that the worker holds, running or waiting."""
    limit: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Requests that it generates at the same time."""
    extensions: list[str] = []
    """Fields of a request that a stock worker does not know."""
    context_length: Load = 0
    """Longest prompt plus answer, in tokens; 0 where it does not say."""
    engine: dict[str, float] | None = None
    """Counts and levels of the embedded engine; None where vLLM generates."""


class RegisterRequest(BaseModel):
    """A worker announces itself."""

    worker_name: WorkerUrl
    check_heart_beat: bool = True
    worker_status: WorkerStatus | None = None
    """None: the controller asks the worker."""
    multimodal: bool = False


class HeartBeat(BaseModel):
    """A registered worker lives."""

    worker_name: WorkerUrl
    queue_length: Load = 0


class HeartBeatReply(BaseModel):
    """The reply to `/receive_heart_beat`."""

    exist: bool


class ModelRequest(BaseModel):
    """A client asks for a worker that serves `model`."""

    model: Name


class ModelList(BaseModel):
    """The reply to `/list_models`."""

    models: list[str]


class WorkerAddress(BaseModel):
    """The reply to `/get_worker_address`."""

    address: WorkerUrl | Literal[""]
    """"" where nobody serves the model."""
