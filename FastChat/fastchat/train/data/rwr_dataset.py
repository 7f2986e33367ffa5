"""Training examples: token ids, the trained span and its weight, built in one pass.

Token ids come from `ChatTemplate.encode`: the context of an answer is what a worker was fed,
the trained span is what was sampled, its stop token included.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fastchat.conversation import ChatTemplate
from fastchat.train.arguments import DataArguments
from fastchat.train.data.rows import Notes, Place, RowReader, Target, read_targets, targets_of
from fastchat.train.prefix_tree.trie import PrefixOrder
from fastchat.train.processes import say


@dataclass(frozen=True, slots=True)
class Example:
    """A target as token ids; the answer is `input_ids[action_start:]`."""

    row: str
    input_ids: Sequence[int]
    action_start: int
    weight: float
    reward: float | None
    source: str = "text"
    """Where the answer's tokens come from, see `fastchat.conversation.Encoded`."""
    closed_thought: bool = False
    """Whether an empty thought was closed before the answer."""
    is_cut: bool = False
    """Whether the answer was cut at the limit of new tokens; it has no stop token then."""
    cut: int = 0
    """Pairs of answer and feedback that its history lost to the longest length."""


@dataclass
class DataReport:
    """What became of the rows of one file; lengths in tokens."""

    rows: int = 0
    examples: int = 0
    recorded_ids: int = 0
    """Examples whose answer is trained as the tokens that were sampled."""
    tokenized: int = 0
    """Examples whose answer is known as text only, and tokenized; the next two are among them."""
    other_tokenizer: int = 0
    """Examples with recorded tokens that are another tokenizer's."""
    edited: int = 0
    """Examples with recorded tokens that do not spell their text."""
    closed_thoughts: int = 0
    """Examples of these whose prompt opens a thought, and whose answer has none: it is closed."""
    truncated: int = 0
    """Examples whose answer was cut at the limit of new tokens: no stop token is trained."""
    without_answer: int = 0
    """Rows that end in no answer and have no weight, and empty answers that were cut. Dropped."""
    too_long: int = 0
    """Examples longer than `max_length` even without any history. Dropped."""
    history_cut: int = 0
    """Examples that lost their oldest attempts to fit into `max_length`."""
    max_length: int = 0
    longest: int = 0
    tokens: int = 0
    action_tokens: int = 0
    weight_mean: float = 0.0
    weight_min: float = 0.0
    weight_max: float = 0.0
    effective_samples: float = 0.0
    """(sum |w|)^2 / sum w^2: how many equally weighted examples the weights are worth."""

    @property
    def dropped(self) -> int:
        return self.without_answer + self.too_long

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "dropped": self.dropped}

    def notices(self) -> list[str]:
        """What a user should know of answers that are not trained as they stand in the file."""
        found = {
            "have recorded tokens of another tokenizer, so their text is trained; the checkpoint "
            "that is trained should be the one that was sampled": self.other_tokenizer,
            "have a text that is not the one that their recorded tokens spell; the text is "
            "trained": self.edited,
            "have no thought where the prompt opens one; it is closed, empty, before "
            "them": self.closed_thoughts,
        }
        return [f"NOTICE: {count} answers {what}" for what, count in found.items() if count]

    def __str__(self) -> str:
        return (
            f"{self.rows} rows -> {self.examples} examples ({self.too_long} longer than "
            f"{self.max_length} tokens dropped, {self.without_answer} without an answer dropped, "
            f"history of {self.history_cut} cut); answers: {self.recorded_ids} as the tokens that "
            f"were sampled, {self.tokenized} tokenized, {self.truncated} without a stop token as "
            f"they were cut; {self.tokens} tokens, {self.action_tokens} of them trained; weights "
            f"{self.weight_min:.4g} to {self.weight_max:.4g}, worth "
            f"{self.effective_samples:.0f} equal ones"
        )


class RWRDataset:
    """The examples of a file that workflow_convert.py wrote, by index.

    `lazy` keeps their places instead of token ids, and reads and encodes a row on every access.
    """

    def __init__(
        self,
        path: str | Path,
        template: ChatTemplate,
        max_length: int,
        lazy: bool = False,
        loss_on: str = "all",
    ):
        self.report = DataReport(max_length=max_length)
        self.lengths: list[int] = []
        self.trajectories: list[int] = []
        """For every example a number that those with the same opening messages share."""
        self.notes = Notes()
        self._template = template
        self._loss_on = loss_on
        self._reader = RowReader(path) if lazy else None
        self._examples: list[Example] = []
        self._unanswered = ""
        """The first row without an answer."""
        self._places = array("q")
        """If lazy, four numbers for every example: `Place`, row, and which answer of the row."""
        weights = []
        openings: dict[bytes, int] = {}
        for row, (place, targets) in enumerate(read_targets(path, loss_on, self.notes)):
            self.report.rows += 1
            before = self.report.without_answer
            self.report.without_answer += not targets
            for answer, target in enumerate(targets):
                try:
                    example = encode(target, template, max_length)
                except ValueError as error:
                    raise ValueError(f"{path}, row {row}: {error}") from error
                if example is None:
                    self.report.too_long += 1
                    continue
                if example.action_start == len(example.input_ids):
                    self.report.without_answer += 1
                    continue
                self._count(example)
                weights.append(target.weight)
                self.trajectories.append(openings.setdefault(_opening(target), len(openings)))
                if lazy:
                    self._places.extend((*place, row, answer))
                else:
                    self._examples.append(example)
            if self.report.without_answer and not before:
                self._unanswered = f"{path}, row {row}"
        self._weigh(weights, path)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Example:
        if self._reader is None:
            return self._examples[index]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, size, row, answer = self._places[4 * index : 4 * index + 4]
        target = targets_of(self._reader(Place(start, size)), row, self._loss_on)[answer]
        example = encode(target, self._template, self.report.max_length)
        assert example is not None, "it was encoded once before it was counted"
        return example

    @cached_property
    def prefixes(self) -> PrefixOrder:
        """How the examples begin alike, without their last tokens, which are only predicted."""
        return PrefixOrder(example.input_ids[:-1] for example in self)

    def check_dropped(self, max_fraction: float) -> None:
        report = self.report
        fraction = report.dropped / (report.dropped + report.examples)
        if fraction > max_fraction:
            longer = f"are longer than {report.max_length} tokens without any history"
            counts = {
                f"{longer}, so raise --model_max_length": report.too_long,
                f"have no answer ({self._unanswered}, is the first)": report.without_answer,
            }
            why = "; ".join(f"{count} {what}" for what, count in counts.items() if count)
            raise ValueError(
                f"{report.dropped} of {report.dropped + report.examples} examples "
                f"({fraction:.1%}) cannot be trained: {why}. To train on the others give "
                f"--max_dropped_fraction {min(1.0, fraction + 0.01):.2f}"
            )

    def _count(self, example: Example) -> None:
        report, length = self.report, len(example.input_ids)
        report.recorded_ids += example.source == "recorded"
        report.tokenized += example.source != "recorded"
        report.other_tokenizer += example.source == "other_tokenizer"
        report.edited += example.source == "edited"
        report.closed_thoughts += example.closed_thought
        report.truncated += example.is_cut
        report.history_cut += example.cut > 0
        report.examples += 1
        report.longest = max(report.longest, length)
        report.tokens += length
        report.action_tokens += length - example.action_start
        self.lengths.append(length)

    def _weigh(self, weights: list[float], path: str | Path) -> None:
        largest = max((abs(weight) for weight in weights), default=0.0)
        if not largest:
            raise ValueError(
                f"nothing to train in {path}: of {self.report.rows} rows "
                f"{self.report.without_answer} have no answer, {self.report.too_long} are longer "
                f"than {self.report.max_length} tokens, and no other has a weight (a gpt turn "
                "with loss other than 0)"
            )
        self.report.weight_mean = sum(weights) / len(weights)
        self.report.weight_min, self.report.weight_max = min(weights), max(weights)
        shares = [abs(weight) / largest for weight in weights]  # of tiny ones the square is 0
        self.report.effective_samples = sum(shares) ** 2 / sum(share**2 for share in shares)


def read_data(
    data: DataArguments, template: ChatTemplate, max_length: int
) -> tuple[RWRDataset, RWRDataset | None]:
    how = (template, max_length, data.lazy_preprocess, data.loss_on)
    train_set = RWRDataset(data.data_path, *how)
    if str(train_set.notes):
        say(f"data: {train_set.notes}")
    say(f"data: {train_set.report}")
    for notice in train_set.report.notices():
        say(notice)
    train_set.check_dropped(data.max_dropped_fraction)
    if data.eval_data_path is None:
        return train_set, None
    eval_set = RWRDataset(data.eval_data_path, *how)
    say(f"evaluation data: {eval_set.report}")
    return train_set, eval_set


def encode(target: Target, template: ChatTemplate, max_length: int) -> Example | None:
    """A target as at most `max_length` tokens; None if it is longer even without any history.

    The oldest pairs of answer and feedback after the opening are cut first; the answer never is.
    """
    messages, cut = target.messages, 0
    while True:
        encoded = template.encode(messages, target.answer)
        if len(encoded.prompt) + len(encoded.action) <= max_length:
            break
        if len(messages) - target.opening < 3:
            return None
        messages = messages[: target.opening] + messages[target.opening + 2 :]
        cut += 1
    _check_bos(target, encoded.prompt, template)
    return Example(
        target.row,
        array("i", encoded.prompt + encoded.action),
        len(encoded.prompt),
        target.weight,
        target.reward,
        encoded.source,
        encoded.closed_thought,
        target.answer.is_cut,
        cut,
    )


def marked_sample(example: Example, template: ChatTemplate) -> str:
    decode = template.tokenizer.decode
    context = decode(list(example.input_ids[: example.action_start]))
    action = decode(list(example.input_ids[example.action_start :]))
    trained = len(example.input_ids) - example.action_start
    return (
        f"----- row {example.row}: {len(example.input_ids)} tokens, the {trained} between the "
        f"marks are trained with weight {example.weight:.4g} -----\n"
        f"{context}[TRAINED>>>{action}<<<TRAINED]\n-----"
    )


def _opening(target: Target) -> bytes:
    """A digest of what is never cut: the texts of all openings would fill the memory."""
    texts = [message["content"] for message in target.messages[: target.opening]]
    return blake2b(json.dumps(texts).encode(), digest_size=16).digest()


def _check_bos(target: Target, prompt: list[int], template: ChatTemplate) -> None:
    bos = template.tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        raise ValueError(
            f"row {target.row}: the context starts with two BOS tokens; take the BOS out of the "
            "first message, or pass another --chat_template"
        )
