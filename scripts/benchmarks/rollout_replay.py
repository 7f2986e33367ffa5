"""The requests of a run of `workflow_gen.py`, fed to the engine in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout_model import CONTEXT


class Replay:
    """Generates again what a run generated: no HTTP, no thread, no driver, no grading.

    Every turn is submitted when the one before it has ended, and an episode when another one has,
    so that the engine sees what it saw in the run.

    Args:
        checkpoint: the model that the run asked.
        problems: the file that the run read.
        concurrency: episodes in flight, as in the run.
    """

    def __init__(self, checkpoint: Path, problems: Path, concurrency: int):
        import envs
        from fastchat.conversation import ChatTemplate
        from fastchat.model.model_adapter import load_model, load_tokenizer
        from fastchat.serve.engine.engine import SlotEngine

        self._concurrency = concurrency
        self._env = envs.make("gsm8k", problems)
        self._template = ChatTemplate(load_tokenizer(str(checkpoint)))
        self._engine = SlotEngine(
            load_model(str(checkpoint), device="cpu"),
            self._template.tokenizer,
            max_rows=concurrency,
            max_length=CONTEXT,
        )

    def prepare(self, rows: Path, max_new_tokens: int, seed: int) -> int:
        """Build the requests of a run from its rows; returns the tokens that it generated.

        Args:
            rows: the run's rows.jsonl.
            max_new_tokens: its limit of one answer, in tokens.
            seed: its seed.
        """
        from rise.episodes.journal import load_episodes

        episodes = load_episodes(rows)
        self._requests = [self._requests_of(e, max_new_tokens, seed) for e in episodes]
        self._texts = [[turn.action for turn in episode.turns] for episode in episodes]
        return sum(turn.usage["completion_tokens"] for e in episodes for turn in e.turns)

    def run(self) -> int:
        """Generate; returns the number of new tokens."""
        before = self._engine.stats.generated_tokens
        waiting = iter(self._requests)
        for _ in range(self._concurrency):
            self._advance(iter(()), waiting)
        while self._engine.step():
            pass
        return self._engine.stats.generated_tokens - before

    def differing(self) -> int:
        """Answers whose text is not the one of the run; both drew with the same seeds."""
        from fastchat.serve.stopping import decode

        wrong = 0
        for requests, texts in zip(self._requests, self._texts, strict=True):
            for request, text in zip(requests, texts, strict=True):
                tokens = list(request.samples[0].tokens)
                if tokens[-1] in request.stop_ids:
                    tokens.pop()
                wrong += decode(self._template.tokenizer, tokens) != text
        return wrong

    def _requests_of(self, episode: Any, max_new_tokens: int, seed: int) -> list[Any]:
        from fastchat.serve.engine.request import EngineRequest
        from fastchat.serve.engine.sampling import SamplingParams
        from rise.episodes.episode import visible
        from rise.rollout.play import draw_seed

        opening, requests = self._env.opening(episode.task_id), []
        for t in range(len(episode.turns)):
            earlier = episode.turns[:t]
            told = [turn.observation for turn in earlier]
            messages = visible(opening, [turn.action for turn in earlier], told, None)
            requests.append(
                EngineRequest(
                    prompt=self._template.prompt_ids(messages),
                    params=SamplingParams(),
                    max_new_tokens=max_new_tokens,
                    stop_ids=self._template.stop_token_ids,
                    seed=draw_seed(seed, episode.task_id, t),
                )
            )
        return requests

    def _advance(self, turns: Iterator[Any], waiting: Iterator[list[Any]]) -> None:
        """Submit an episode's next turn; after the last one the next episode begins."""
        request = next(turns, None)
        while request is None:
            episode = next(waiting, None)
            if episode is None:
                return
            turns = iter(episode)
            request = next(turns, None)
        request.done.add_done_callback(lambda _: self._advance(turns, waiting))
        self._engine.submit(request)
