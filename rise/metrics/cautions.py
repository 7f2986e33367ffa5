"""When the numbers of a run should not be believed yet: doubts in words, with their remedies."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rise.episodes.episode import Episode

LOWEST, HIGHEST = 0.05, 0.95
"""Accuracies between which a method can show anything."""
MOST_UNCLEAR = 0.2
"""Share of a model's checks without a verdict above which its revisions are not its own choice."""
MOST_UNREAD = 0.5
"""Share of attempts without an answer above which the model does not know the format."""
MOST_CUT = 0.05
"""Share of cut answers above which the limit of new tokens is part of what is measured."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def cautions(metrics: dict[str, Any]) -> list[str]:
    """One sentence per doubt about a run, with the remedy; empty where there is none.

    >>> rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 96}
    >>> fine = {"m1@t1": rate, "length": [rate | {"value": 0.01}, None]}
    >>> cautions(fine)
    []
    >>> cautions(fine | {"m1@t1": rate | {"value": 0.97}})
    ['m1@t1 is 97.0 %, above 95 %: there is hardly a mistake to mend; take harder problems']
    """
    unread = metrics.get("unread")
    found = text_cautions(unread, [rate["value"] if rate else 0.0 for rate in metrics["length"]])
    accuracy = metrics["m1@t1"]["value"]
    if accuracy < LOWEST and not unread:
        found.append(
            f"m1@t1 is {100 * accuracy:.1f} %, below {100 * LOWEST:.0f} %: read a few answers, the "
            "prompt, the chat template or the answer format may be wrong"
        )
    if accuracy > HIGHEST:
        found.append(
            f"m1@t1 is {100 * accuracy:.1f} %, above {100 * HIGHEST:.0f} %: there is hardly a "
            "mistake to mend; take harder problems"
        )
    for turn, rate in enumerate(metrics.get("check", {}).get("unclear", []), start=1):
        if rate and rate["value"] > MOST_UNCLEAR:
            found.append(
                f"{100 * rate['value']:.1f} % of the checks of turn {turn} say neither right nor "
                "wrong, and their answers are revised: read some, they are in rows.jsonl"
            )
            break
    return found


def text_cautions(unread: dict[str, float] | None, cut: Sequence[float]) -> list[str]:
    """What stands against the answers as texts; `cut` has the share of each turn."""
    if unread:
        return [_of_unread(unread)]
    if (most := max(cut)) <= MOST_CUT:
        return []
    return [
        f"{100 * most:.1f} % of the answers of turn {1 + cut.index(most)} were cut at the limit of "
        f"new tokens, more than {100 * MOST_CUT:.0f} %: raise --max_new_tokens"
    ]


class Unread:
    """Counts what the attempts of turn 1 look like that have no answer."""

    def __init__(self) -> None:
        self._attempts = 0
        self._found: Counter[str] = Counter()

    def add(self, episode: Episode) -> None:
        for turn in episode.turns[:1]:
            self._attempts += len(turn.actions)
            for text, verdict in zip(turn.actions, turn.verdicts, strict=True):
                if verdict == "no_answer":
                    right = _last_number(text) == _last_number(episode.answer) is not None
                    self._found.update(
                        share=1,
                        no_box="\\boxed" not in text,
                        last_number_right=right,
                        empty=not text.strip(),
                    )

    def shares(self) -> dict[str, float] | None:
        r"""None where most attempts have an answer.

        {"share": of all attempts of turn 1; of those "no_box": without \boxed,
        "last_number_right": whose last number is that of the reference, "empty": without a text}.

        >>> unread(sketch("-", "-", "r5"))["no_box"], unread(sketch("-", "r5", "r5"))
        (1.0, None)
        """
        count = self._found["share"]
        if count <= MOST_UNREAD * self._attempts:
            return None
        shares = {name: number / count for name, number in self._found.items()}
        return shares | {"share": count / self._attempts}


def unread(episodes: Sequence[Episode]) -> dict[str, float] | None:
    found = Unread()
    for episode in episodes:
        found.add(episode)
    return found.shares()


def _last_number(text: str) -> float | None:
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def _of_unread(found: dict[str, float]) -> str:
    percent = {name: f"{100 * share:.0f} %" for name, share in found.items()}
    said = f"{percent['share']} of the attempts of turn 1 have no answer: {percent['no_box']} of "
    said += f"these have no \\boxed{{}}, the last number is right in {percent['last_number_right']}"
    if found["empty"] > MOST_UNREAD:
        return (
            f"{said}, {percent['empty']} are empty; where that is reasoning, raise --max_new_tokens"
        )
    if found["no_box"] < MOST_UNREAD:
        return f"{said}. Read some: what is in the box is no answer of this --env"
    return (
        f"{said}. The model does not know the format: a warm start (fine-tuning on some right "
        "answers in it, such as the data of workflow_convert.py) helps, more tokens do not"
    )
