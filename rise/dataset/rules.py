"""Episodes -> weighted training rows: which attempts are kept, and how much each of them counts.

An attempt is the chosen sample of a turn at which somebody was asked. The order of the rules:

1. `--only_success`: an episode without a success gives no row.
2. `--drop_truncated`: answers that the limit of new tokens cut are no rows; they stay history.
   Without it they are trained as they were sampled, without a stop token.
3. `--remove_duplication` (`without_repetition`): empty and repeated attempts leave the episode,
   its history included, before anything else looks at it. White space around an attempt does not
   tell two apart; the text of those that stay is the one that the model wrote.
4. `until_success`: nothing after the first success.
5. `--criteria` (`meets_criteria`): all, better, best or success.
6. `--weighting` (`rise.dataset.weights.weight`): exp, advantage, centered or none. A weight of 0
   trains nothing, so such a row is dropped; so is an empty answer that was cut.

A row shows what the model saw when it answered: the opening and the last `context_window` - 1
attempts that are left, through the same function as the rollout (`rise.episodes.episode.visible`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastchat.conversation import Answer, unpack_ids
from rise.dataset.weights import weight
from rise.episodes.episode import Episode, Message, Turn, visible

CRITERIA = ("all", "better", "best", "success")
FORMATS = ("fastchat", "messages")
SUCCESS = 1
"""The reward of a right answer, in every environment."""

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class Rules:
    """What becomes of an episode: the arguments of workflow_convert.py by these names."""

    criteria: str = "all"
    drop_truncated: bool = False
    only_success: bool = False
    remove_duplication: bool = False
    correct_to_correct: bool = False
    """A success at turn 1 does not end the episode: turn 2 is data too."""
    context_window: int | None = None
    """c: a row shows the opening and at most c - 1 earlier attempts; None: all of them."""
    weighting: str = "exp"
    temperature: float = 0.4


Attempt = tuple[int, Turn]
"""A turn at which somebody was asked, and its number, counted from 1."""


@dataclass(frozen=True)
class Row:
    """One training example: messages of which only the last, an answer, is trained."""

    task_id: int
    turn: int
    """The turn of the trained answer in its episode, counted from 1."""
    messages: list[Message]
    opening: int
    """How many messages came before the first attempt: a trainer that cuts history keeps them."""
    reward: int
    weight: float
    date: str | None = None
    is_cut: bool = False
    """Whether the limit of new tokens ended the answer."""
    token_ids: str | None = None
    tokenizer: str | None = None
    """Both as in `rise.episodes.episode.Turn`, of the answer."""
    number: int | None = None
    """Tells several rows of one task and turn apart; counted from 1, None where there is one."""

    def to_dict(self, source: int, form: str) -> dict[str, Any]:
        """The row as JSON; `source` numbers the converted logs from 0, `form` is one of FORMATS."""
        name = f"{source}-{self.task_id}-{self.turn}"
        head = {"id": name if self.number is None else f"{name}-{self.number}"}
        tail: dict[str, Any] = {
            "reward": self.reward,
            "weight": self.weight,
            "task_id": self.task_id,
            "turn": self.turn,
            "opening": self.opening,
        }
        if form == "messages":
            return head | {"messages": self.messages} | tail
        conversations: list[dict[str, Any]] = [
            {"from": SHAREGPT_ROLES[message["role"]], "value": message["content"], "loss": 0.0}
            for message in self.messages
        ]
        answer = conversations[-1]
        answer["loss"] = self.weight
        if self.is_cut:
            answer["finish_reason"] = "length"
        if self.token_ids is not None:
            answer["token_ids"] = self.token_ids
            tail["tokenizer"] = self.tokenizer
        if self.date is not None:
            tail["prompt_date"] = self.date
        return head | {"conversations": conversations} | tail

    @property
    def has_answer(self) -> bool:
        return bool(self.messages[-1]["content"] or self.token_ids)

    @property
    def answer(self) -> Answer:
        """What the trainer knows of the answer beside its text."""
        ids = None if self.token_ids is None else unpack_ids(self.token_ids)
        return Answer(ids, self.tokenizer, self.is_cut, self.date)


def rows_from_episode(
    episode: Episode,
    rules: Rules,
    opening: Sequence[Message] | None = None,
    mean: float = 0.0,
) -> tuple[list[Row], Counter[str]]:
    """The training rows of one episode, and how many attempts were dropped for which reason.

    `opening` is for a log without dialogues; `mean` is what `weight` takes.
    """
    if rules.only_success and episode.max_reward != SUCCESS:
        return [], Counter({"episode without success": len(episode.turns)})
    attempts = attempts_of(episode)
    dropped: Counter[str] = Counter()
    failed = sum(map(is_failure, episode.turns))
    if rules.remove_duplication:
        attempts, dropped = without_repetition(attempts, rules.correct_to_correct)
    dropped["error of a server"] = failed
    used = until_success(attempts, rules.correct_to_correct)
    dropped["after the first success"] = len(attempts) - len(used)
    start = list(episode.opening if opening is None else opening) if used else []
    rows = []
    for count, (number, turn) in enumerate(used, start=1):
        history = [earlier for _, earlier in used[: count - 1]]
        actions = [earlier.action for earlier in history]
        observations = [earlier.observation for earlier in history]
        messages = visible(start, actions, observations, rules.context_window)
        row = Row(
            episode.task_id,
            number,
            [*messages, {"role": "assistant", "content": turn.action}],
            len(start),
            turn.reward,
            weight(turn.reward, mean, rules.weighting, rules.temperature),
            date=episode.date,
            is_cut=turn.finish_reason == "length",
            token_ids=turn.token_ids[turn.chosen] if turn.token_ids else None,
            tokenizer=turn.tokenizer,
        )
        if not meets_criteria([turn.reward for _, turn in used[:count]], rules.criteria):
            dropped[f"not {rules.criteria}"] += 1
        elif row.is_cut and (rules.drop_truncated or not row.has_answer):
            dropped["cut at the limit of new tokens"] += 1
        elif row.weight == 0:
            dropped["weight 0"] += 1
        else:
            rows.append(row)
    return rows, +dropped


def all_rewards(episode: Episode) -> list[int]:
    return [reward for turn in episode.turns if not turn.kept for reward in turn.rewards]


def attempts_of(episode: Episode) -> list[Attempt]:
    if any(turn.shown for turn in episode.turns):
        raise ValueError(
            f"episode {episode.task_id} showed another problem's attempt (--shown_attempts): "
            "such a run is a check, convert one that was made without it"
        )
    numbered = enumerate(episode.turns, start=1)
    return [(i, turn) for i, turn in numbered if not turn.kept and not is_failure(turn)]


def is_failure(turn: Turn) -> bool:
    """Whether it is an error of a FastChat worker, which published logs have as an answer."""
    return turn.action.startswith("**NETWORK ERROR DUE TO HIGH TRAFFIC")


def without_repetition(
    attempts: Sequence[Attempt], keep_right: bool
) -> tuple[list[Attempt], Counter[str]]:
    """The attempts without the empty and the repeated ones, and how many of these there were.

    White space around them does not tell two apart, and stays. Correct-to-correct data is there to
    teach the repetition of a right attempt: `keep_right`.
    """
    kept: list[Attempt] = []
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    for number, turn in attempts:
        action = turn.action.strip()
        if not action:
            dropped["empty"] += 1
        elif action in seen and not (keep_right and turn.reward == SUCCESS):
            dropped["repeated"] += 1
        else:
            seen.add(action)
            kept.append((number, turn))
    return kept, dropped


def until_success(attempts: Sequence[Attempt], correct_to_correct: bool) -> list[Attempt]:
    """The attempts up to the first success, with `correct_to_correct` to the first after turn 1."""
    used = []
    for number, turn in attempts:
        used.append((number, turn))
        if turn.reward == SUCCESS and not (correct_to_correct and number == 1):
            break
    return used


def meets_criteria(rewards: Sequence[int], criteria: str) -> bool:
    """Whether the last of these attempts becomes training data.

    all: always; better: its reward is above the previous one's; best: no earlier reward is above
    it (a tie is kept); success: it is right. The first attempt is kept whatever its reward, except
    under success.

    >>> [meets_criteria([0, 0], criteria) for criteria in CRITERIA]
    [True, False, True, False]
    >>> [meets_criteria([-1], criteria) for criteria in CRITERIA]
    [True, True, True, False]
    """
    *earlier, reward = rewards
    if criteria == "success":
        return reward == SUCCESS
    if criteria == "all" or not earlier:
        return True
    return reward > earlier[-1] if criteria == "better" else reward >= max(earlier)
