"""Answers that come as a stream of events, put together as the whole reply that they stand for."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

_FIELDS = (":", "event:", "id:", "retry:")
"""How lines begin that hold no data."""
BROKEN_OFF = "stream_aborted"
"""How a choice ended whose stream ended before it."""


def whole(text: str) -> dict[str, Any] | None:
    r"""The reply that a stream tells in pieces, its error included; None for another text.

    A choice is whole where it has a finish reason, or the stream ends as it should.

    >>> whole('data: {"choices": [{"delta": {"content": "4"}}]}\n\ndata: [DONE]\n')
    {'choices': [{'index': 0, 'message': {'content': '4'}}]}
    """
    if "\ndata:" not in f"\n{text}" or text.lstrip().startswith("<"):
        return None
    reply: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    is_done = False
    for event in _events(text):
        if event is None:
            is_done = True
            continue
        reply |= {name: value for name, value in event.items() if value is not None}
        pieces = event.get("choices")
        for place, piece in enumerate(pieces if isinstance(pieces, list) else []):
            if isinstance(piece, dict):
                index = piece.get("index")
                place = index if type(index) is int else place
                choices.setdefault(place, _Choice()).take(piece)
                if isinstance(piece.get("usage"), dict):
                    reply["usage"] = piece["usage"]
    if choices:
        reply["choices"] = [choices[place].told(place, is_done) for place in sorted(choices)]
    return reply or None


class _Choice:
    """One of the answers, as far as it is told."""

    def __init__(self) -> None:
        self._message: defaultdict[str, list[Any]] = defaultdict(list)
        self._beside: defaultdict[str, list[Any]] = defaultdict(list)
        self._rest: dict[str, Any] = {}
        self._is_whole = False

    def take(self, piece: dict[str, Any]) -> None:
        """Add a piece; some servers end with the whole message."""
        if piece.get("message") is not None:
            self._message.clear()
            self._is_whole = True
        said = piece.get("delta") if piece.get("message") is None else piece["message"]
        for name, value in (said if isinstance(said, dict) else {"content": said}).items():
            if value is not None:
                self._message[name].append(value)
        for name, value in piece.items():
            if name in ("text", "token_ids") and value is not None:
                self._beside[name].append(value)
            elif name not in ("message", "delta", "index") and value is not None:
                self._rest[name] = value

    def told(self, index: int, is_done: bool) -> dict[str, Any]:
        """The choice of a whole reply."""
        message = {name: _joined(pieces) for name, pieces in self._message.items()}
        told = {name: _joined(pieces) for name, pieces in self._beside.items()} | self._rest
        if message or "text" not in told:
            told["message"] = message
        if not (is_done or self._is_whole or told.get("finish_reason")):
            told["finish_reason"] = BROKEN_OFF
        return {"index": index, **told}


def _joined(pieces: list[Any]) -> Any:
    """Texts as one, lists (and texts between them) as one list; of anything else the last."""
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    if all(isinstance(piece, str | list) for piece in pieces):
        return [part for piece in pieces for part in (piece if type(piece) is list else [piece])]
    return pieces[-1]


def _events(text: str) -> Iterator[dict[str, Any] | None]:
    """The objects of a stream, None for its proper end; what cannot be read ends it."""
    for block in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        lines = block.split("\n")
        told = [line for line in lines if not line.startswith(_FIELDS)]
        data = [line.removeprefix("data:").strip() for line in told]
        is_error = any(line.startswith("event:") and "error" in line for line in lines)
        is_done = "[DONE]" in data
        data = [line for line in data if line and line != "[DONE]"]
        found: list[Any] = []
        if any(line[0] in "{[" for line in data):
            with contextlib.suppress(ValueError, RecursionError):
                found = [json.loads("\n".join(data))]
                data = []
        for line in data:  # events without a blank line between them
            if line[0] not in "{[":
                continue
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                if line.startswith("{"):
                    yield from _objects(found, is_error)
                    return
        yield from _objects(found or ["\n".join(data) or "error"] * is_error, is_error)
        if is_done:
            yield None


def _objects(found: list[Any], is_error: bool) -> Iterator[dict[str, Any]]:
    for event in found:
        event = event[0] if isinstance(event, list) and event else event
        if is_error and not (isinstance(event, dict) and event.get("error")):
            event = {"error": event}
        if isinstance(event, dict):
            yield event
