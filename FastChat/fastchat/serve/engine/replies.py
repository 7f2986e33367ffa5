"""The reply to a request, from the samples that the engine fills."""

from dataclasses import dataclass, field
from typing import Any

from fastchat.constants import FinishReason
from fastchat.conversation import ChatTemplate
from fastchat.protocol.worker_protocol import Logprobs, wire_reply
from fastchat.serve.engine.request import EngineRequest, Sample
from fastchat.serve.engine.spelling import Speller
from fastchat.serve.stopping import cut_at_stop, decode, hold_back


@dataclass
class Job:
    """A request that was checked, and how its reply is to look."""

    engine: EngineRequest
    echo: str
    return_token_ids: bool
    _spellers: list[Speller] = field(default_factory=list)

    def logprobs(self, tokens: list[list[int]], tokenizer: Any) -> list[Logprobs] | None:
        """Of every sample what no frame has told yet, beginning with the prompt if it counts."""
        request = self.engine
        if request.logprobs is None:
            return None
        for _ in range(request.n - len(self._spellers)):
            speller = Speller(tokenizer, request.logprobs, self.echo)
            self._spellers.append(speller)
            if request.scores_prompt:
                speller.tell(request.prompt, request.prompt_scores)
                speller.begin()
        for sample, ids, speller in zip(request.samples, tokens, self._spellers, strict=True):
            some = slice(speller.told, len(ids))
            speller.tell(ids[some], sample.scores[some])
        return [speller.take() for speller in self._spellers]


def reply_of(job: Job, template: ChatTemplate, *, final: bool) -> dict[str, Any]:
    """The state of all samples as it goes over the wire; `final` once the request is done."""
    request = job.engine
    answers = [answer_of(sample, request, template.tokenizer) for sample in request.samples]
    tokens = [list(sample.tokens) for sample in request.samples]
    return wire_reply(
        [job.echo + text for text, _ in answers],
        [reason if final else None for _, reason in answers],
        len(request.prompt),
        [len(sample) for sample in tokens],
        (request.prompt, tokens, template.fingerprint) if job.return_token_ids else None,
        job.logprobs(tokens, template.tokenizer),
    )


def answer_of(
    sample: Sample, request: EngineRequest, tokenizer: Any
) -> tuple[str, FinishReason | None]:
    """The text of a sample without what stopped it, and why it ended (None: it goes on)."""
    reason, tokens = sample.finish_reason, list(sample.tokens)
    if tokens and tokens[-1] in request.stop_ids:
        tokens.pop()
    text = decode(tokenizer, tokens)
    if reason is None:
        return hold_back(text, request.stop), None
    short = cut_at_stop(text, request.stop)
    return short, "stop" if short != text else reason
