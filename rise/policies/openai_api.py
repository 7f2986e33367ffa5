"""Answers of OpenAI-compatible servers: the OpenAI API, vLLM, SGLang, Ollama and others.

What a server counted is never lost: the tokens of attempts that gave no answer are reported with
the answer that a later attempt gave, or with the error.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from rise.policies import keys
from rise.policies.policy import Policy, PolicyError, Retries, Sample
from rise.policies.wire import seconds_to_wait, split_evenly, status_kind

if TYPE_CHECKING:
    import openai

NOT_LISTED = (404, 405, 501)
"""Statuses of a server that has no list of its models."""
REFUSED = (400, 413, 422)
"""Statuses of a request that the server understood and does not take."""
TOO_LONG = re.compile(
    r"context[ _](length|size|window)|n_ctx|max_model_len|maximum (model|allowed) length"
)
"""How servers say that a prompt does not fit. Only the OpenAI API has a code for it: vLLM and
SGLang write about "maximum context length", llama.cpp has the type exceed_context_size_error."""


class OpenAIPolicy(Policy):
    """A model behind /chat/completions.

    Args:
        name: the name on the command line.
        model: the name that the server knows.
        base_url: URL up to and including /v1; None for the OpenAI API.
        key: API key.
        request_timeout: seconds for one request, all its samples together.
        retries: how failed requests are tried again.
        needs_usage: refuse answers whose tokens the server does not count, since their cost would
            be unknown.
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
    ):
        self.name = name
        self.model = model
        self.base_url = base_url
        self.request_timeout = request_timeout
        self.retries = retries or Retries()
        self.needs_usage = needs_usage
        if key != keys.NO_KEY:
            keys.remember(key)
        self._key = key
        self._opened: openai.AsyncOpenAI | None = None

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        settings = {"temperature": temperature, "top_p": top_p}
        if self.base_url is None:
            # 1 is the API's default, and models that reason may refuse to be told even that.
            settings = {name: value for name, value in settings.items() if value != 1}
            settings["max_completion_tokens"] = max_new_tokens
        else:
            # Said always: the default of such a server may be the checkpoint's, not 1.
            settings["max_tokens"] = max_new_tokens
        choices: list[Sample | PolicyError] = []
        spent: Counter[str] = Counter()
        try:
            while len(choices) < n:
                # Some servers ignore n and answer once.
                request = settings | {"n": n - len(choices), "seed": seed + len(choices)}
                request |= {"model": self.model, "messages": messages}
                choices += await self.retries.run(self._complete, request, spent)
            samples = [
                dataclasses.replace(choice, place=place)
                for place, choice in enumerate(choices[:n])
                if isinstance(choice, Sample)
            ]
            if not samples:
                raise choices[0]
        except PolicyError as error:
            error.usage = dict(spent)
            raise
        return _with_all_that_was_spent(samples, spent)

    async def check(self) -> None:
        client = self._client()
        try:
            if self.base_url is None:
                await client.models.retrieve(self.model)
                return
            served = [model.id async for model in client.models.list()]
        except Exception as error:
            if getattr(error, "status_code", None) in NOT_LISTED and self.base_url is not None:
                return
            raise as_policy_error(error, self.base_url) from error
        if self.model not in served:
            message = f"{self.base_url} serves {', '.join(served) or 'nothing'}, not {self.model}"
            raise PolicyError("bad_request", message)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _client(self) -> openai.AsyncOpenAI:
        if self._opened is None:
            import openai

            self._opened = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self.base_url,
                timeout=self.request_timeout,
                max_retries=0,
            )
        return self._opened

    async def _complete(
        self, request: dict[str, Any], spent: Counter[str]
    ) -> list[Sample | PolicyError]:
        """One request; what the server counted is added to `spent`, also where this raises."""
        try:
            reply = await self._client().chat.completions.create(**request)
        except Exception as error:
            raise as_policy_error(error, self.base_url) from error
        usage = getattr(reply, "usage", None)
        prompt_tokens = getattr(usage, "prompt_tokens", None) or 0
        completion_tokens = getattr(usage, "completion_tokens", None) or 0
        if usage is not None:
            counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
            spent.update(requests=1, **counts)
        elif self.needs_usage:
            message = f"{self.name} does not report its tokens, which --max_cost_usd needs"
            raise PolicyError("malformed", message)
        # A reply that is no JSON comes as a plain text.
        choices = getattr(reply, "choices", None) or []
        if not choices:
            raise PolicyError("malformed", f"{self.model} sent no choices")
        shares = split_evenly(completion_tokens, len(choices))
        return [
            _sample(choice, prompt_tokens, share)
            for choice, share in zip(choices, shares, strict=True)
        ]


def _with_all_that_was_spent(samples: list[Sample], spent: Counter[str]) -> list[Sample]:
    """The samples; the first one carries what further and failed requests of the turn took."""
    others = sum(sample.completion_tokens for sample in samples[1:])
    first = dataclasses.replace(
        samples[0],
        prompt_tokens=spent["prompt_tokens"],
        completion_tokens=spent["completion_tokens"] - others,
        requests=max(1, spent["requests"]),
    )
    return [first, *samples[1:]]


def _sample(choice: Any, prompt_tokens: int, completion_tokens: int) -> Sample | PolicyError:
    """A choice as a sample; a refused or filtered one is an error, never a text.

    The error is returned, since the other choices of the request are answers all the same.
    """
    if choice.finish_reason not in ("stop", "length"):
        return PolicyError("content_filter", f"the answer ended with {choice.finish_reason!r}")
    text = getattr(choice.message, "content", None)
    if not isinstance(text, str):
        return PolicyError("malformed", "the answer has no text")
    return Sample(text, choice.finish_reason, prompt_tokens, completion_tokens)


def as_policy_error(error: Exception, base_url: str | None) -> PolicyError:
    """The typed error for an exception of the openai client.

    Raises:
        Exception: the given one, if it is not an error of the client or the server.
    """
    import openai

    where = base_url or "the OpenAI API"
    if isinstance(error, openai.APITimeoutError):
        return PolicyError("timeout", f"no answer from {where} in time")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return PolicyError("connection", f"{where}: {type(cause).__name__} {cause}")
    if not isinstance(error, openai.APIStatusError):
        if isinstance(error, openai.OpenAIError | ValueError):  # ValueError: half a JSON text
            return PolicyError("malformed", f"{where}: {error}")
        raise error
    status, code = error.status_code, str(error.code)
    if status in REFUSED and TOO_LONG.search(_said(error).lower()):
        kind = "context_overflow"
    elif code == "insufficient_quota":
        kind = "quota"
    else:
        kind = status_kind(status)
    # The message may repeat the key, which must be gone before a cut leaves a part of it.
    message = keys.redact(str(error.message))[:500]
    retry_after = seconds_to_wait(error.response.headers)
    return PolicyError(kind, f"{where} answered HTTP {status}: {message}", retry_after)


def _said(error: openai.APIStatusError) -> str:
    """What the server says in the fields for it; others may repeat the prompt, whatever it says."""
    if not isinstance(error.body, dict):
        return str(error.body or error.message)
    return " ".join(str(error.body.get(name)) for name in ("code", "type", "message"))
