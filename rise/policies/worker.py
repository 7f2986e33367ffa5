"""Answers of FastChat workers: the address from the controller, the request straight to the worker.

Requests never pass through the controller's proxy: it costs five times the CPU time and, in the
stock controller, holds at most 40 requests at once.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from rise.policies.policy import Policy, PolicyError, Retries, Sample
from rise.policies.wire import CONTROL_TIMEOUT, new_session, post_json, read_reply
from rise.policies.workers import Worker, Workers


class WorkerPolicy(Policy):
    """A model that workers serve under a controller.

    A stock FastChat worker is asked for one sample at a time, and draws without a seed.

    Args:
        name: the name on the command line.
        controller: the controller's URL.
        model: the name under which the workers registered; `name` unless told otherwise.
        request_timeout: seconds for one request, all its samples together (at a stock worker each
            sample is a request).
        retries: how failed requests are tried again.
    """

    def __init__(
        self,
        name: str,
        controller: str,
        *,
        model: str | None = None,
        request_timeout: float = 1800.0,
        retries: Retries | None = None,
    ):
        self.name = name
        self.controller = controller
        self.model = model or name
        self.request_timeout = request_timeout
        self.retries = retries or Retries()
        self._session: aiohttp.ClientSession | None = None
        self._workers: Workers | None = None

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
        }
        return await self.retries.run(self._generate, request)

    async def check(self) -> None:
        workers = self._open()
        worker = await workers.acquire()
        try:
            url = f"{worker.address}/worker_get_status"
            await post_json(self._session, url, {}, CONTROL_TIMEOUT)
        finally:
            workers.release(worker)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> Workers:
        # The session belongs to the running loop, so it is made at the first request.
        if self._session is None:
            self._session = new_session()
            self._workers = Workers(self._session, self.controller, self.model)
        return self._workers

    async def _generate(self, request: dict[str, Any]) -> list[Sample]:
        workers = self._open()
        worker = await workers.acquire()
        try:
            if worker.template is not None:
                # One after the other: a stock worker gains nothing from several at a time.
                return [await self._ask_stock(worker, request) for _ in range(request["n"])]
            return read_reply(await self._ask(worker, request), request["n"])
        except PolicyError as error:
            workers.failed(worker, error.kind)
            raise
        finally:
            workers.release(worker)

    async def _ask(self, worker: Worker, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{worker.address}/worker_generate"
        return await post_json(self._session, url, body, self.request_timeout)

    async def _ask_stock(self, worker: Worker, request: dict[str, Any]) -> Sample:
        reply = await self._ask(worker, worker.template.request(request))
        [sample] = read_reply(reply, 1)
        room = worker.context_length - request["max_new_tokens"] - 1
        # A stock worker cuts the beginning of a prompt that is too long, and says nothing.
        if worker.context_length and sample.prompt_tokens >= room:
            raise PolicyError(
                "context_overflow",
                f"{worker.address} takes prompts below {room} tokens beside "
                f"{request['max_new_tokens']} new ones",
            )
        return sample


async def list_models(controller: str) -> list[str]:
    """The names that a controller serves.

    Raises:
        PolicyError: if it does not answer.
    """
    async with new_session() as session:
        reply = await post_json(session, f"{controller}/list_models", {}, CONTROL_TIMEOUT)
    return sorted(reply.get("models", []))
