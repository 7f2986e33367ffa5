"""Answers of OpenAI-compatible servers: the OpenAI API, vLLM, SGLang, Ollama and others.

The key of the OpenAI API is read from the environment (OPENAI_API_KEY) or from `keys.cfg`. Servers
given as `NAME@URL` never see it: they get RISE_SERVER_KEY, if there is one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.policies import Policy, PolicyError, Retries, Sample
from rise.wire import seconds_to_wait, split_evenly, status_kind

if TYPE_CHECKING:
    import openai

OPENAI_KEY = "OPENAI_API_KEY"
SERVER_KEY = "RISE_SERVER_KEY"
KEYS_FILE = Path("keys.cfg")
NOT_LISTED = (404, 405, 501)
"""Statuses of a server that has no list of its models."""


class OpenAIPolicy(Policy):
    """A model behind /chat/completions.

    Args:
        name: the name on the command line.
        model: the name that the server knows.
        base_url: URL up to and including /v1; None for the OpenAI API.
        key: API key.
        request_timeout: seconds for one request, all its samples together.
        retries: how failed requests are tried again.
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
    ):
        self.name = name
        self.model = model
        self.base_url = base_url
        self.request_timeout = request_timeout
        self.retries = retries or Retries()
        self._key = key
        self._opened: openai.AsyncOpenAI | None = None

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        settings = {"temperature": temperature, "top_p": top_p}
        if self.base_url is None:
            settings = {} if re.match(r"o\d", self.model) else settings
            settings["max_completion_tokens"] = max_new_tokens
        else:
            settings["max_tokens"] = max_new_tokens
        samples: list[Sample] = []
        while len(samples) < n:
            # Some servers ignore n and answer once.
            request = settings | {"n": n - len(samples), "seed": seed + len(samples)}
            request |= {"model": self.model, "messages": messages}
            samples += await self.retries.run(self._complete, request)
        return samples[:n]

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

    async def _complete(self, request: dict[str, Any]) -> list[Sample]:
        try:
            reply = await self._client().chat.completions.create(**request)
        except Exception as error:
            raise as_policy_error(error, self.base_url) from error
        choices = reply.choices or []
        if not choices:
            raise PolicyError("malformed", f"{self.model} sent no choices")
        usage = reply.usage
        shares = split_evenly(usage.completion_tokens if usage else 0, len(choices))
        prompt_tokens = usage.prompt_tokens if usage else 0
        return [
            _sample(choice, prompt_tokens, share)
            for choice, share in zip(choices, shares, strict=True)
        ]


def _sample(choice: Any, prompt_tokens: int, completion_tokens: int) -> Sample:
    """A choice as a sample; a refused or filtered one is an error, never a text."""
    if choice.finish_reason not in ("stop", "length"):
        raise PolicyError("content_filter", f"the answer ended with {choice.finish_reason!r}")
    if choice.message.content is None:
        raise PolicyError("malformed", "the answer has no text")
    return Sample(choice.message.content, choice.finish_reason, prompt_tokens, completion_tokens)


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
        if isinstance(error, openai.OpenAIError):
            return PolicyError("malformed", f"{where}: {error}")
        raise error
    status, code = error.status_code, str(error.code)
    if code == "context_length_exceeded":
        kind = "context_overflow"
    elif code == "insufficient_quota":
        kind = "quota"
    else:
        kind = status_kind(status)
    # The API repeats a part of a refused key in its message; no key belongs in a log.
    message = re.sub(r"sk-\S+", "sk-...", str(error.message))[:500]
    retry_after = seconds_to_wait(error.response.headers)
    return PolicyError(kind, f"{where} answered HTTP {status}: {message}", retry_after)


def find_key(name: str) -> str | None:
    """An API key from the environment, else from keys.cfg in the current directory.

    A line of keys.cfg is `NAME: '<key>'`; the quotes may be missing.
    """
    if os.environ.get(name):
        return os.environ[name]
    if not KEYS_FILE.is_file():
        return None
    pattern = rf"^\s*{re.escape(name)}\s*[:=]\s*(['\"]?)(\S+?)\1\s*$"
    match = re.search(pattern, KEYS_FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return match.group(2) if match else None
