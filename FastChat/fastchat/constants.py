"""Error codes, ports and times that controller, workers and clients share.

The codes and the names of the environment variables are FastChat's, so that its clients work.
"""

import os
from enum import IntEnum
from typing import Literal

CONTROLLER_PORT = 21001
WORKER_PORT = 21002
CONTROLLER_ADDRESS = f"http://localhost:{CONTROLLER_PORT}"

TOKEN_VARIABLE = "FASTCHAT_CONTROLLER_TOKEN"
"""Names the environment variable with what a controller and all who ask it share; unset: nothing is
asked for, as with stock FastChat."""

MAX_SAMPLES = 1024
"""The largest `n` of one request."""

MAX_MESSAGES = 2048
"""The most messages of one dialogue."""

CHARACTERS_PER_TOKEN = 16
"""A text with more characters than that for each token of a context is not tokenized: it cannot fit
and would take minutes. English has four, runs of blanks have more."""

LONG_TEXT = 20_000
"""Characters from which on a text is tokenized apart from the others, which would wait for it."""

MAX_BODY_BYTES = 16 * 2**20
"""The largest request body that a controller or a worker reads."""

MAX_REPLY_BYTES = 64 * 2**20
"""The largest reply that a client reads: a thousand long answers with their token ids."""

FinishReason = Literal["stop", "length", "abort"]
"""Why a worker's answer ends."""


class ErrorCode(IntEnum):
    """The `error_code` of a reply; 0 is success. A client takes no text from any other reply."""

    VALIDATION_TYPE_ERROR = 40001
    INVALID_AUTH_KEY = 40101
    INCORRECT_AUTH_KEY = 40102
    NO_PERMISSION = 40103
    INVALID_MODEL = 40301
    PARAM_OUT_OF_RANGE = 40302
    CONTEXT_OVERFLOW = 40303
    RATE_LIMIT = 42901
    QUOTA_EXCEEDED = 42902
    ENGINE_OVERLOADED = 42903
    INTERNAL_ERROR = 50001
    CUDA_OUT_OF_MEMORY = 50002
    GRADIO_REQUEST_ERROR = 50003
    GRADIO_STREAM_UNKNOWN_ERROR = 50004
    CONTROLLER_NO_WORKER = 50005
    CONTROLLER_WORKER_TIMEOUT = 50006


class RequestError(Exception):
    """A request that gets an error reply; the message is what its sender reads."""

    def __init__(self, code: ErrorCode, message: str):
        super().__init__(message)
        self.code = code

    def reply(self) -> dict[str, str | int]:
        """The wire form: FastChat's `{"text", "error_code"}`."""
        return {"text": str(self), "error_code": int(self.code)}


def no_room(tokens: int, limit: int) -> str:
    """What a prompt that fills the context is told; clients know such errors by these words."""
    return (
        f"this model's maximum context length is {limit} tokens; {tokens} tokens in the prompt "
        "leave no room for an answer, shorten it"
    )


def controller_headers() -> dict[str, str]:
    """What a request to the controller carries beside its body."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def heart_beat_interval() -> float:
    """Seconds between two heartbeats of a worker, 45 unless the environment says so."""
    return _seconds("FASTCHAT_WORKER_HEART_BEAT_INTERVAL", 45)


def heart_beat_expiration() -> float:
    """Seconds of silence after which a worker is out, 90 unless the environment says so."""
    return _seconds("FASTCHAT_CONTROLLER_HEART_BEAT_EXPIRATION", 90)


def worker_timeout() -> float:
    """Seconds that the controller waits for a worker's next bytes, 100 by default."""
    return _seconds("FASTCHAT_WORKER_API_TIMEOUT", 100)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"{name}={text!r} must be a positive number of seconds")
    return value
