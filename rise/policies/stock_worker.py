"""Requests for workers of stock FastChat, which know neither messages nor several samples.

Such a worker describes its template by the fields of FastChat's `Conversation`; a dialogue becomes
the text that FastChat's own clients would send, and `rise.policies.worker` asks for one sample at a
time with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastchat.serve import conv_style
from rise.episodes.episode import Message

IN_FLIGHT = 5
"""Requests that a stock worker generates at the same time unless told otherwise; more would wait
there, and the time they wait counts."""


@dataclass(frozen=True)
class StockTemplate:
    """A stock worker's template."""

    conv: Mapping[str, Any]
    """The field `conv` of `/worker_get_conv_template`."""

    @classmethod
    def from_reply(cls, conv: Mapping[str, Any]) -> StockTemplate:
        """Read the field `conv` of the reply.

        Raises:
            ValueError: a field is missing, or the style is none that can be written here.
        """
        conv_style.check(conv)
        return cls(conv)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text of a dialogue, up to where the answer begins.

        The example dialogue that some templates bring is left out: the environment brings its own.
        """
        return conv_style.render(self.conv, messages, examples=False)

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Our request for n samples as the request that a stock worker takes n times.

        It has no seed: a stock worker has one for all requests, or none.
        """
        kept = ("model", "temperature", "top_p", "max_new_tokens", "echo")
        return {name: request[name] for name in kept} | {
            "prompt": self.prompt(request["messages"]),
            "stop": self.conv.get("stop_str"),
            "stop_token_ids": list(self.conv.get("stop_token_ids") or ()),
        }
