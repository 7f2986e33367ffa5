"""Errors in the shape that OpenAI's clients read."""

from typing import Any

from fastchat.client.http import PeerError
from fastchat.constants import ErrorCode, RequestError
from fastchat.protocol import worker_protocol

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_WORKER_STATUS = {
    ErrorCode.PARAM_OUT_OF_RANGE: (400, None),
    ErrorCode.INVALID_MODEL: (404, "model_not_found"),
    ErrorCode.CONTEXT_OVERFLOW: (400, "context_length_exceeded"),
    ErrorCode.CONTROLLER_NO_WORKER: (503, "no_worker"),
    ErrorCode.CONTROLLER_WORKER_TIMEOUT: (503, "worker_timeout"),
}


class ApiError(Exception):
    """A request that gets an error reply: with an HTTP status, a word for programs, and a field."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str = ""):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param or None

    def body(self) -> dict[str, Any]:
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else _KINDS[400])
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def from_worker(error: RequestError) -> ApiError:
    """A worker's error; the first three digits of its code are an HTTP status."""
    status, code = _WORKER_STATUS.get(error.code, (error.code // 100, None))
    text = str(error)
    if isinstance(error, PeerError):
        # The message names addresses that are not the client's business.
        text = error.said or f"the model's worker failed ({error.kind}); try again"
    return ApiError(status, text, code)


def parse(kind: type[worker_protocol.M], body: Any) -> worker_protocol.M:
    """A JSON body as what it should be; ApiError 400, which names the field."""
    try:
        return worker_protocol.parse(kind, body)
    except RequestError as error:
        raise ApiError(400, str(error), param=str(error).partition(":")[0]) from error
