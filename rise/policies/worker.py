"""Answers of FastChat workers, asked through `fastchat.client`."""

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster, Worker
from rise.policies.policy import Policy, PolicyError, Retries, Sample

log = logging.getLogger(__name__)


class WorkerPolicy(Policy):
    """A model that workers serve under a controller, by default under its own name.

    `controller` is its URL, or a file with it, which is read again when nobody is there. `date` is
    the day (YYYY-MM-DD) that prompts print whose template prints today's; None is the worker's
    own. `request_timeout` is in seconds, for all samples of a request together.
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
        self._controller = controller
        self._cluster = Cluster(url_of(controller))
        self._left: list[Cluster] = []

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

    async def drawn(self) -> dict[str, int]:
        return await self._cluster.drawn(self.model)

    async def check(self) -> None:
        async with self._held():
            pass

    async def close(self) -> None:
        for cluster in (*self._left, self._cluster):
            await cluster.close()

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[tuple[Cluster, Worker]]:
        cluster = self._cluster
        try:
            async with cluster.hold(self.model) as worker:
                yield cluster, worker
        except PeerError as error:
            with contextlib.suppress(OSError):  # who serves may have moved
                url = url_of(self._controller)
                if url and url != self._cluster.controller:
                    log.warning("%s is asked for at %s from now on", self.name, url)
                    self._left.append(self._cluster)
                    self._cluster = Cluster(url)
            raise as_policy_error(error) from error

    async def _generate(self, request: dict[str, Any]) -> list[Sample]:
        async with self._held() as (cluster, worker):
            reply = await cluster.generate(worker, request, self.request_timeout)
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


def url_of(controller: str) -> str:
    """The URL itself, or the one in a file, as `scripts/slurm/serve.sh` writes it."""
    is_url = "://" in controller or not controller
    return controller if is_url else Path(controller).read_text(encoding="utf-8").strip()


async def list_models(controller: str) -> list[str]:
    cluster = Cluster(url_of(controller))
    try:
        return await cluster.models()
    except PeerError as error:
        raise as_policy_error(error) from error
    finally:
        await cluster.close()
