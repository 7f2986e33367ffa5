"""Answers of FastChat workers, asked through `fastchat.client`."""

from __future__ import annotations

from typing import Any

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster
from rise.policies.policy import Policy, PolicyError, Retries, Sample


class WorkerPolicy(Policy):
    """A model that workers serve under a controller.

    Args:
        name: the name on the command line.
        controller: the controller's URL.
        model: the name under which the workers registered; `name` unless told otherwise.
        date: the day (YYYY-MM-DD) that prompts print whose template prints today's; None is the
            worker's own.
        request_timeout: seconds for one request, all its samples together.
        retries: how failed requests are tried again.
    """

    def __init__(
        self,
        name: str,
        controller: str,
        *,
        model: str | None = None,
        date: str | None = None,
        request_timeout: float = 1800.0,
        retries: Retries | None = None,
    ):
        self.name = name
        self.model = model or name
        self.date = date
        self.request_timeout = request_timeout
        self.retries: Retries = retries or Retries()
        self._cluster = Cluster(controller)

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        request = {
            "model": self.model,
            "messages": messages,
            "n": n,
            "seed": seed,
            "temperature": temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
            "echo": False,
            "return_token_ids": True,
            **({"date": self.date} if self.date else {}),
        }
        return await self.retries.run(self._generate, request)

    async def check(self) -> None:
        try:
            async with self._cluster.hold(self.model):
                pass
        except PeerError as error:
            raise as_policy_error(error) from error

    async def close(self) -> None:
        await self._cluster.close()

    async def _generate(self, request: dict[str, Any]) -> list[Sample]:
        try:
            async with self._cluster.hold(self.model) as worker:
                reply = await self._cluster.generate(worker, request, self.request_timeout)
        except PeerError as error:
            raise as_policy_error(error) from error
        nothing: list[list[int] | None] = [None] * len(reply.texts)
        ids = reply.token_ids or nothing
        answers = zip(reply.texts, reply.reasons, reply.completion_tokens, ids, strict=True)
        prompt_tokens = reply.usage.prompt_tokens
        return [
            Sample(
                text, str(reason), prompt_tokens, count, token_ids=tokens, tokenizer=reply.tokenizer
            )
            for text, reason, count, tokens in answers
        ]


def as_policy_error(error: PeerError) -> PolicyError:
    """What the rollout makes of it: a worker whose reply is malformed is left to the others."""
    kind = "server" if error.kind == "malformed" else error.kind
    return PolicyError(kind, str(error), error.retry_after)


async def list_models(controller: str) -> list[str]:
    """The names that a controller serves.

    Raises:
        PolicyError: if it does not answer.
    """
    cluster = Cluster(controller)
    try:
        return await cluster.models()
    except PeerError as error:
        raise as_policy_error(error) from error
    finally:
        await cluster.close()
