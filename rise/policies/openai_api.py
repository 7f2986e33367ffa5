"""Answers of OpenAI-compatible servers: the OpenAI API, vLLM, SGLang, Ollama and others.

What a server counted is never lost: the tokens of attempts that gave no answer are reported with
the answer that a later attempt gave, or with the error.
"""

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from urllib.parse import quote

from rise.policies import keys
from rise.policies.openai_server import OpenAIServer
from rise.policies.policy import Policy, PolicyError, Retries, Sample, replace_unwritable
from rise.policies.refusals import LIMITS, WHOLE, Forms, RefusedRequest, body_of
from rise.policies.replies import (
    BLOCKED,
    choices_of,
    counts_of,
    room_in,
    sample_of,
    trouble_in,
)

log = logging.getLogger(__name__)

NOT_LISTED = (400, 404, 405, 422, 501)
"""Statuses of a server that has no list of its models."""
REASONER_NAME = re.compile(r"(o\d|gpt-5(?![.\d]|-chat))\S*")
"""Models of the OpenAI API that refuse every temperature and top_p but 1."""
REASONED_TO_THE_END = re.compile(r"max_tokens or model output limit was reached")
"""How the OpenAI API says in a status 400 that all new tokens went into reasoning."""


class OpenAIPolicy(Policy):
    """A model behind /chat/completions.

    `model` is the name that the server knows, `base_url` the URL up to and including /v1, None for
    the OpenAI API, or what OPENAI_BASE_URL puts in its place. `needs_usage` refuses answers whose
    tokens the server does not count, since their cost would be unknown. `left_out` and `learned`
    are those of `rise.policies.refusals.Forms`.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        base_url: str | None,
        key: str,
        request_timeout: float = 1800.0,
        retries: Retries | None = None,
        needs_usage: bool = False,
        left_out: Sequence[str] = (),
        learned: Callable[[str, list[str]], None] = lambda name, left_out: None,
    ):
        self.name = name
        self.model = model
        key_name = keys.OPENAI_KEY if base_url is None else keys.SERVER_KEY
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        # Limits of such servers are mostly per minute.
        self.retries: Retries = retries or Retries(overloads=8)
        self.needs_usage = needs_usage
        self._server = OpenAIServer(self.base_url, key, key_name, request_timeout)
        self._forms = Forms(name, self.base_url is None or reasons(model), left_out, learned)
        self._gives_ids: bool | None = None if self.base_url else False
        """Whether it is a vLLM, which gives the tokens that it samples; None is not known yet."""
        self._asks_the_clock = True
        """Whether a template that prints today's date does so; FastChat's servers have one day."""
        self._longest = sys.maxsize
        """The longest answer that its context could hold, where it says that."""
        self._shortens = False

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        settings = {"temperature": temperature, "top_p": top_p}
        if self.base_url is None or reasons(self.model):
            # 1 is the API's default, and models that reason may refuse to be told even that.
            settings = {name: value for name, value in settings.items() if value != 1}
        messages = [m | {"content": replace_unwritable(m["content"])[0]} for m in messages]
        settings |= {"model": self.model, "messages": messages}
        settings |= dict.fromkeys((WHOLE, "stream_options"), True)
        settings |= dict.fromkeys(LIMITS, max_new_tokens)
        if self._gives_ids is None:
            with contextlib.suppress(PolicyError):  # the request itself fails, too
                await self.check()
        if self._gives_ids:
            settings["return_token_ids"] = True

        def asked() -> int:
            # vLLM refuses several greedy answers, which are all the same.
            return 1 if temperature == 0 and "temperature" not in self._forms.left_out else n

        choices: list[Sample | PolicyError] = []
        spent: Counter[str] = Counter()
        drawn = 0
        try:
            while len(choices) < asked():
                # Some servers ignore n and answer once.
                request = settings | {"n": asked() - len(choices), "seed": seed + drawn}
                found = await self.retries.run(self._complete, request, spent)
                drawn += len(found)
                # A choice that broke off is drawn anew, where another one is an answer.
                choices += [choice for choice in found if not may_pass(choice)]
            samples = [
                dataclasses.replace(choice, place=place)
                for place, choice in enumerate(choices[: asked()])
                if isinstance(choice, Sample)
            ]
            if not samples:
                raise next(choice for choice in choices if isinstance(choice, PolicyError))
        except PolicyError as error:
            error.usage = {name: count for name, count in spent.items() if count}
            raise
        samples = _with_all_that_was_spent(samples, spent)
        copy = dataclasses.replace(samples[0], completion_tokens=0)
        return samples + [dataclasses.replace(copy, place=i) for i in range(asked(), n)]

    def day(self, of_run: str | None) -> str | None:
        # It renders dialogues itself, so what a run has fixed does not reach it.
        return datetime.date.today().isoformat() if of_run and self._asks_the_clock else None

    async def check(self) -> None:
        path = "/models" if self.base_url else f"/models/{quote(self.model)}"
        try:
            cards = _cards(await self._server.call("get", path))
        except PolicyError as error:
            status = getattr(error.__cause__, "status_code", None)
            if (
                self.base_url
                and status in NOT_LISTED
                and error.kind not in ("quota", "unauthorized")
            ):
                self._gives_ids = False
                return
            raise
        listed = [
            str(card.get("id") or card.get("name") or card.get("model")) for card in cards or ()
        ]
        lengths = [card.get("max_model_len") for card in cards or ()]
        self._gives_ids = any(lengths)
        self._asks_the_clock = not any(card.get("owned_by") == "fastchat" for card in cards or ())
        own = dict(zip(listed, lengths, strict=True)).get(self.model)
        self._longest = own - 1 if isinstance(own, int) and own > 1 else sys.maxsize
        # Azure lists what may be deployed, and not the deployments, which have names of their own.
        names_all = cards is not None and not any("lifecycle_status" in card for card in cards)
        if self.base_url and names_all and not any(map(self._is, listed)):
            shown = ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" * (len(listed) > 10))
            message = f"{self.base_url} serves {shown or 'nothing'}, not {self.model}"
            raise PolicyError("not_found", message)

    @property
    def left_out(self) -> list[str]:
        return self._forms.left_out

    async def close(self) -> None:
        await self._server.close()

    def _is(self, listed: str) -> bool:
        """Whether a listed name, perhaps a pattern, or with a tag, may be the model."""
        names = (name.removeprefix("models/").partition(":") for name in (self.model, listed))
        (own, _, tag), (other, _, other_tag) = names
        same_tag = tag == other_tag or not (tag and other_tag)
        return same_tag and fnmatchcase(own, other)

    async def _complete(
        self, request: dict[str, Any], spent: Counter[str]
    ) -> list[Sample | PolicyError]:
        """One request; what the server counted is added to `spent`, also where this raises."""
        wanted = request["max_tokens"]
        limit = min(wanted, self._longest)
        if limit < wanted:
            self._say_shortened(wanted, f"its context has {self._longest + 1} tokens")
        try:
            fitting = request | dict.fromkeys(LIMITS, limit)
            return await self._forms.answered(fitting, partial(self._ask, spent=spent))
        except PolicyError as error:
            room = room_in(error.message, limit) if error.kind == "context_overflow" else None
            if room is None:
                raise
            self._say_shortened(wanted, error.message)
        return await self._complete(request | dict.fromkeys(LIMITS, room), spent)

    def _say_shortened(self, wanted: int, why: str) -> None:
        if not self._shortens:
            self._shortens = True
            message = "%s has no room for %d new tokens (%s): answers get what its context leaves"
            log.warning(message, self.name, wanted, why)

    async def _ask(
        self, request: dict[str, Any], spent: Counter[str]
    ) -> list[Sample | PolicyError]:
        try:
            body = await self._server.call("post", "/chat/completions", body=body_of(request))
        except RefusedRequest as error:
            if not REASONED_TO_THE_END.search(error.said):
                raise
            spent.update(requests=1, uncounted_requests=1)  # without an answer, and paid
            return [Sample("", "length")] * request.get("n", 1)
        choices = choices_of(body)
        prompt_tokens, completion_tokens = counts_of(body)
        unknown = prompt_tokens is None or completion_tokens is None
        counts = {"prompt_tokens": prompt_tokens or 0, "completion_tokens": completion_tokens or 0}
        if isinstance(body, dict) and (body.get("choices") or body.get("usage")):
            spent.update(requests=1, uncounted_requests=int(unknown), **counts)
        if not choices:
            trouble = trouble_in(body)
            if BLOCKED.search(json.dumps(body)):
                raise PolicyError("content_filter", f"{self._server.where} filtered the prompt")
            if isinstance(body, dict | list) and trouble.words:
                raise self._server.typed(trouble)
            what = "no JSON" if isinstance(body, str) else "no choices"
            message = f"{self._server.where} sent {what} ({trouble.words[:200] or 'nothing'})"
            raise PolicyError("server", message)
        shares = split_evenly(completion_tokens or 0, len(choices))
        found = [sample_of(choice, self._server.where) for choice in choices]
        broken = [c for c in found if isinstance(c, PolicyError) and may_pass(c)]
        uncounted = unknown and self.needs_usage
        if len(broken) == len(found) or (broken and uncounted):
            raise broken[0]
        if uncounted:
            message = f"{self.name} does not report its tokens, which --max_cost_usd needs"
            raise PolicyError("setup", message)
        return [
            dataclasses.replace(
                choice, prompt_tokens=counts["prompt_tokens"], completion_tokens=share
            )
            if isinstance(choice, Sample)
            else choice
            for choice, share in zip(found, shares, strict=True)
        ]


def reasons(model: str) -> bool:
    """Whether it is one of the models of the OpenAI API that reason, whoever serves it."""
    return bool(REASONER_NAME.fullmatch(model.rpartition("/")[2]))


def may_pass(choice: Sample | PolicyError) -> bool:
    """Whether a choice broke off, and another try may give an answer."""
    return isinstance(choice, PolicyError) and choice.kind != "content_filter"


def _cards(body: Any) -> list[dict[str, Any]] | None:
    """What a list of models says of each; None where it cannot be read."""
    entries = body.get("data", body.get("models")) if isinstance(body, dict) else body
    if entries is None and isinstance(body, dict) and "data" in body:
        return []
    more = isinstance(body, dict) and body.get("has_more")
    if more or not isinstance(entries, list):
        return None
    return [e if isinstance(e, dict) else {"id": e} for e in entries]


def split_evenly(total: int, n: int) -> list[int]:
    """Split a total that a server reports for n samples together; the first ones get the rest.

    >>> split_evenly(7, 3)
    [3, 2, 2]
    """
    return [total // n + (i < total % n) for i in range(n)]


def _with_all_that_was_spent(samples: list[Sample], spent: Counter[str]) -> list[Sample]:
    """The samples; the first one carries what further and failed requests of the turn took."""
    others = sum(sample.completion_tokens for sample in samples[1:])
    first = dataclasses.replace(
        samples[0],
        prompt_tokens=spent["prompt_tokens"],
        completion_tokens=spent["completion_tokens"] - others,
        requests=max(1, spent["requests"]),
        uncounted=spent["uncounted_requests"],
    )
    return [first, *samples[1:]]
