"""A worker whose model runs in a server that takes token ids, as vLLM does."""

import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastchat.constants import ErrorCode, FinishReason, RequestError
from fastchat.conversation import ChatTemplate
from fastchat.protocol.worker_protocol import GenerateRequest, Logprobs, wire_reply
from fastchat.serve.base_model_worker import BaseModelWorker
from fastchat.serve.stopping import cut_at_stop, decode, hold_back
from fastchat.serve.upstream.client import Choice, Completion, UpstreamClient, broken


@dataclass
class Sample:
    """One sample, and how much of it is known."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    new: Logprobs = field(default_factory=Logprobs)
    """Log-probabilities that no frame has told yet."""
    is_scored: bool = False
    finish_reason: FinishReason | None = None

    def take(self, choice: Choice) -> None:
        """Add a choice of a reply, or what a chunk of a stream adds to it.

        RequestError if the server gave the sample up.
        """
        self.text += choice.text or ""
        self.tokens += choice.token_ids or []
        if choice.logprobs is not None:
            self.is_scored = True
            for name in Logprobs.model_fields:
                getattr(self.new, name).extend(getattr(choice.logprobs, name))
        reason = choice.finish_reason
        if reason in ("abort", "error"):
            raise RequestError(ErrorCode.INTERNAL_ERROR, "the server gave the answer up")
        if reason is not None:
            self.finish_reason = "length" if reason == "length" else "stop"

    def told(self) -> Logprobs:
        """The log-probabilities since this was asked last."""
        new, self.new = self.new, Logprobs()
        return new


@dataclass
class UpstreamJob:
    """A checked request, and the samples that grow."""

    request: GenerateRequest
    ids: list[int]
    """The prompt."""
    max_new_tokens: int
    echo: str
    """Text in front of every answer."""
    samples: list[Sample] = field(init=False)
    """Those that are asked for: greedy ones are all the same, and vLLM refuses several."""

    def __post_init__(self) -> None:
        self.samples = [Sample() for _ in range(1 if self.is_greedy else self.request.n)]

    @property
    def is_greedy(self) -> bool:
        return self.request.top_p < 1e-8 or self.request.temperature < 1e-5

    def take(self, reply: Completion) -> None:
        """Add the choices of a reply, or of a chunk of a stream.

        RequestError if the server gave one up, or sent another than was asked for.
        """
        for i, choice in enumerate(reply.choices):
            index = i if choice.index is None else choice.index
            if index >= len(self.samples):
                raise broken(f"sent a choice with the index {index}")
            self.samples[index].take(choice)
            if not self.max_new_tokens:
                # vLLM generates one all the same.
                self.samples[index].tokens.clear()

    def reply(self, template: ChatTemplate, *, final: bool) -> dict[str, Any]:
        """The state of all samples as it goes over the wire.

        RequestError if it is `final`, and the server left a sample without an end.
        """
        if final and any(sample.finish_reason is None for sample in self.samples):
            raise broken("broke an answer off")
        scored = self.request.logprobs is not None
        if final and scored and not all(sample.is_scored for sample in self.samples):
            reason = "the server behind the worker gives no log-probabilities; leave logprobs out"
            raise RequestError(ErrorCode.VALIDATION_TYPE_ERROR, reason)
        stops = self.request.stop
        texts, reasons = [], []
        for sample in self.samples:
            # Not every server leaves the stop text out.
            ended = sample.finish_reason is not None
            text = self._answer(sample, template.tokenizer)
            cut = cut_at_stop(text, stops) if ended else hold_back(text, stops)
            texts.append(self.echo + cut)
            reasons.append(sample.finish_reason if final else None)
        tokens = [list(sample.tokens) for sample in self.samples]
        with_ids = self.request.return_token_ids
        times = self.request.n // len(self.samples)
        return wire_reply(
            texts * times,
            reasons * times,
            len(self.ids),
            [len(ids) for ids in tokens] * times,
            (self.ids, tokens * times, template.fingerprint) if with_ids else None,
            [sample.told() for sample in self.samples] * times if scored else None,
        )

    def _answer(self, sample: Sample, tokenizer: Any) -> str:
        """The text of a sample, without a prompt that the server put in front of it.

        A prompt is scored under `echo`; vLLM then leaves out its text where it returns token ids.
        """
        if not self.request.scores_prompt:
            return sample.text
        if decode(tokenizer, sample.tokens).startswith(sample.text.rstrip("\ufffd")):
            return sample.text
        for prompt in (self.echo, decode(tokenizer, self.ids), tokenizer.decode(self.ids)):
            if sample.text.startswith(prompt):
                return sample.text[len(prompt) :]
        raise broken("echoed another prompt")


class UpstreamWorker(BaseModelWorker):
    """A model that another server runs, which gets `limit` requests at the same time.

    `model` is the server's name for it; `longest` is that of prompt plus answer, in tokens.
    """

    def __init__(
        self,
        client: UpstreamClient,
        model: str,
        template: ChatTemplate,
        model_names: list[str],
        *,
        limit: int,
        longest: int,
        logger: logging.Logger,
    ):
        super().__init__(model_names, limit, logger, template)
        self.client, self.served_by = client, client.base_url
        self.model = model
        self.context_length = longest

    def prepare(self, request: GenerateRequest) -> UpstreamJob:
        ids, longest = self.prompts.fitted(request, self.context_length)
        return UpstreamJob(request, ids, longest, self.prompts.echo(request))

    async def generate(self, prepared: UpstreamJob) -> dict[str, Any]:
        prepared.take(await self.client.ask("/completions", Completion, self._body(prepared)))
        return await self._whole(prepared)

    async def stream(self, prepared: UpstreamJob) -> AsyncGenerator[dict[str, Any], None]:
        body = {**self._body(prepared), "stream": True}
        async with contextlib.aclosing(self.client.events("/completions", body)) as events:
            async for event in events:
                prepared.take(event)
                yield prepared.reply(self.template, final=False)
        yield await self._whole(prepared)

    async def _whole(self, job: UpstreamJob) -> dict[str, Any]:
        size = sum(len(sample.text) for sample in job.samples)
        return await self.beside(size, lambda: job.reply(self.prompts.template, final=True))

    async def close(self) -> None:
        await self.client.close()

    def _body(self, job: UpstreamJob) -> dict[str, Any]:
        request = job.request
        # vLLM refuses top_p 0, which here means greedy.
        greedy = job.is_greedy
        # It would take a checkpoint's own values for what is left out.
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": job.ids,
            "max_tokens": job.max_new_tokens,
            "temperature": 0.0 if greedy else request.temperature,
            "top_p": 1.0 if greedy else request.top_p,
            "top_k": request.top_k,
            "min_p": 0,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "repetition_penalty": request.repetition_penalty,
            "n": len(job.samples),
            "stop_token_ids": sorted(self.template.stop_token_ids | {*request.stop_token_ids}),
            "return_token_ids": True,
        }
        if request.logprobs is not None:
            body |= {"logprobs": request.logprobs, "echo": request.echo}
        if request.stop:
            body["stop"] = request.stop
        if request.seed is not None:
            body["seed"] = request.seed
        return body
