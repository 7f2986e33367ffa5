"""The record of one episode: what was asked, answered, graded and shown again.

Index conventions: `t` counts turns from 0, `i` counts the samples of a turn from 0. A record is
plain JSON; `Episode.to_dict` writes the published keys and ours, `Episode.from_dict` reads both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]

PER_SAMPLE = ("actions", "answers", "verdicts", "rewards", "observations", "finish_reasons")
OPTIONAL = ("shown", "check", "kept", "sees", "filtered", "reasoning", "token_ids", "tokenizer")
"""Keys that only the runs have which need them."""
PER_TURN = {"models": "model", "usage": "usage", "chosen": "chosen"} | {k: k for k in OPTIONAL}
PUBLISHED = ("actions", "observations", "rewards")
BEST = {"best_actions": "action", "best_observations": "observation", "best_rewards": "reward"}
KEYS = ("task_id", "query", "answer", "max_reward", "turn_history", "dialogue")
OUR_KEYS = ("feedback", "date", "error")
"""Keys of a record that published logs do not have."""
REFUSALS = frozenset({"bad_request", "content_filter"})
"""Kinds of errors that a further try hardly changes, though it might."""
ASKED_LAST = REFUSALS | {"function"}
"""Kinds after which the other problems go first; a function that raises can be mended."""


@dataclass
class Turn:
    """One turn of an episode. The lists run over its samples and have the same length."""

    actions: list[str]
    answers: list[str | None]
    """The final answer read from each action; None where there is none."""
    verdicts: list[str]
    """right, wrong, no_answer or timeout, one per action."""
    rewards: list[int]
    observations: list[str]
    """The feedback that each action would get. Where the model itself gives it, only the chosen
    action has one, once there is a further turn."""
    finish_reasons: list[str]
    """stop or length (the answer was cut at the limit of new tokens), one per action."""
    model: str
    usage: dict[str, int]
    """prompt_tokens (counted once per turn) and completion_tokens (over all samples)."""
    chosen: int = 0
    """Index of the sample that the episode goes on with."""
    shown: dict[str, Any] | None = None
    """{"task_id", "action"}: another problem's attempt that the next turn saw in its place."""
    check: dict[str, Any] | None = None
    """What the model said of the chosen action, if it was asked: `rise.rollout.self_check.ask`."""
    kept: bool = False
    """Nothing was asked at this turn: the previous answer stands (`--revise_if_wrong`)."""
    sees: str | None = None
    """none or reference, as the expert saw (`--expert_sees`); None for the dialogue alone."""
    filtered: list[int] = field(default_factory=list)
    """Places, among the samples asked for, of those that the server filtered: no list has them."""
    reasoning: list[str | None] = field(default_factory=list)
    """What the server sent beside each action: its reasoning, or why it refused. Else empty."""
    token_ids: list[str] = field(default_factory=list)
    """The tokens of each action as they were sampled, the one that ended it included, packed by
    `fastchat.conversation.pack_ids`: they are what is trained. Empty where no server gave them."""
    tokenizer: str | None = None
    """Whose tokens they are: `fastchat.conversation.ChatTemplate.fingerprint`."""

    @property
    def action(self) -> str:
        return self.actions[self.chosen]

    @property
    def observation(self) -> str:
        return self.observations[self.chosen]

    @property
    def reward(self) -> int:
        return self.rewards[self.chosen]

    @property
    def finish_reason(self) -> str | None:
        """Why the chosen action ended; None, as the two below, where none was stored."""
        return self.finish_reasons[self.chosen] if self.finish_reasons else None

    @property
    def answer(self) -> str | None:
        return self.answers[self.chosen] if self.answers else None

    @property
    def verdict(self) -> str | None:
        return self.verdicts[self.chosen] if self.verdicts else None


@dataclass
class Episode:
    """One problem, its turns, and the dialogue they make.

    `dialogue` is the opening, then attempt, feedback, attempt, ..., ending with the last chosen
    action. It is never cut by a window: `visible` says what a turn saw of it.
    """

    task_id: int
    query: str
    answer: str
    turns: list[Turn] = field(default_factory=list)
    dialogue: list[Message] = field(default_factory=list)
    error: dict[str, Any] | None = None
    """{"kind", "message", "turn"} if a request failed: the episode is owed again. With "final" it
    is not, since the same request would always fail: the prompt does not fit the context, or it
    was refused in as many calls as "given_up_after" says. "usage" has what the server counted all
    the same, "model" who that was."""
    feedback: str | None = None
    """What the model was told after its attempts (`--feedback`); None in a published log."""
    is_cut: bool = False
    """Whether a published log's `--dialogue_limit` cut the dialogue: it is left out then."""
    date: str | None = None
    """The day (YYYY-MM-DD) that prompts print whose template prints today's; None in old logs, and
    where it is `fastchat.chat_templates.DATE`."""

    @property
    def is_owed(self) -> bool:
        return is_owed(self.error)

    @property
    def is_given_up(self) -> bool:
        """Whether it ended since it was refused in too many calls."""
        return self.error is not None and "given_up_after" in self.error

    @property
    def max_reward(self) -> int | None:
        return max((turn.reward for turn in self.turns), default=None)

    @property
    def opening(self) -> list[Message]:
        length = len(self.dialogue) - (2 * sum(not turn.kept for turn in self.turns) - 1)
        if not self.turns or length < 1:
            raise ValueError(
                f"episode {self.task_id} has {len(self.turns)} turns and a dialogue of "
                f"{len(self.dialogue)} messages, so its prompt is unknown: use a log that "
                "workflow_gen.py wrote"
            )
        return self.dialogue[:length]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON: the published keys, then ours. Turns are keyed "0", "1", ..."""
        history: dict[str, Any] = {
            key: [getattr(turn, name) for turn in self.turns] for key, name in BEST.items()
        }
        for key in (*PUBLISHED, *(k for k in PER_SAMPLE if k not in PUBLISHED)):
            history[key] = {str(t): getattr(turn, key) for t, turn in enumerate(self.turns)}
        for key, name in PER_TURN.items():
            history[key] = {str(t): getattr(turn, name) for t, turn in enumerate(self.turns)}
        for key in OPTIONAL:
            if not any(history[key].values()):
                del history[key]
        record = {
            "task_id": self.task_id,
            "query": self.query,
            "answer": self.answer,
            "max_reward": self.max_reward,
            "turn_history": history,
            "dialogue": self.dialogue,
        }
        ours = {key: getattr(self, key) for key in OUR_KEYS}
        return record | {key: value for key, value in ours.items() if value}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Episode:
        """Read a record of ours or of a published log.

        A published log has no answers or verdicts (the lists stay empty), calls the model "agent",
        and its dialogue lacks the last action: the roles and the action are put right. One that is
        shorter than the turns is left out.
        """
        _check_keys(record)
        history = record["turn_history"]
        turns = [_turn(history, t) for t in range(len(history["best_actions"]))]
        name = f"episode {record['task_id']}"
        for t, turn in enumerate(turns):
            lists = (*PER_SAMPLE, "token_ids")
            lengths = {len(getattr(turn, key)) for key in lists if getattr(turn, key)}
            if len(lengths) != 1 or not 0 <= turn.chosen < min(lengths):
                raise ValueError(f"{name}, turn {t + 1}: its lists of samples differ in length")
        blocked = str(len(turns)) in history["actions"]
        dialogue = _dialogue(record.get("dialogue") or [], turns, blocked)
        is_cut = not history.get("verdicts") and bool(dialogue) and not _is_whole(dialogue, turns)
        return cls(
            task_id=record["task_id"],
            query=record["query"],
            answer=record["answer"],
            turns=turns,
            dialogue=[] if is_cut else dialogue,
            error=record.get("error"),
            feedback=record.get("feedback"),
            is_cut=is_cut,
            date=record.get("date"),
        )


def is_owed(error: dict[str, Any] | None) -> bool:
    """Whether an episode with this error is played again."""
    return error is not None and not error.get("final", False)


def is_refused(error: dict[str, Any] | None) -> bool:
    """Whether an episode is owed since it was refused, which a further try hardly changes."""
    return error is not None and is_owed(error) and error["kind"] in REFUSALS


def visible(
    opening: list[Message], attempts: list[str], observations: list[str], context_window: int | None
) -> list[Message]:
    """The messages that a model sees before its next attempt.

    A window of c shows the opening and the last c - 1 attempts with their feedback, None all.

    >>> opening = [{"role": "user", "content": "1+1?"}]
    >>> [m["content"] for m in visible(opening, ["3", "4"], ["no", "no!"], 2)]
    ['1+1?', '4', 'no!']
    """
    if context_window is not None and context_window < 1:
        raise ValueError(f"context_window is {context_window}: give 1 or more, or None for all")
    pairs = list(zip(attempts, observations, strict=True))
    if context_window is not None:
        pairs = pairs[max(0, len(pairs) - (context_window - 1)) :]
    messages = [dict(message) for message in opening]
    for attempt, observation in pairs:
        messages.append({"role": "assistant", "content": attempt})
        messages.append({"role": "user", "content": observation})
    return messages


def _check_keys(record: dict[str, Any]) -> None:
    if not isinstance(record, dict) or not isinstance(record.get("turn_history"), dict):
        raise ValueError('an episode is an object with a "turn_history"; this is not one')
    history = record["turn_history"]
    known = {*BEST, *PER_SAMPLE, *PER_TURN}
    missing = [key for key in ("task_id", "query", "answer") if key not in record]
    missing += [key for key in (*BEST, *PUBLISHED) if key not in history]
    unknown = sorted((record.keys() - {*KEYS, *OUR_KEYS}) | (history.keys() - known))
    names = {"lacks": missing, "has unknown keys": unknown}
    told = [f"{what} {', '.join(keys)}" for what, keys in names.items() if keys]
    if told:
        raise ValueError(f"episode {record.get('task_id', '?')} {' and '.join(told)}")


def _turn(history: dict[str, Any], t: int) -> Turn:
    key = str(t)
    lists = {name: history.get(name, {}).get(key, []) for name in PER_SAMPLE}
    if not all(isinstance(text, str) for text in lists["actions"]):
        raise ValueError(f"turn {t + 1}: an action is no text: {lists['actions']!r:.80}")
    known: dict[str, Any] = {"model": "", "usage": {}}
    known |= {name: history[k][key] for k, name in PER_TURN.items() if key in history.get(k, {})}
    if known.get("chosen") is None:
        best = history["best_actions"][t]
        known["chosen"] = lists["actions"].index(best) if best in lists["actions"] else -1
    return Turn(**lists, **known)


def _dialogue(messages: list[Message], turns: list[Turn], blocked: bool) -> list[Message]:
    """The dialogue with our role names, ending with the last chosen action.

    A published dialogue is the prompt of the last turn, so it lacks that turn's action; where a
    turn was blocked it is the prompt of the blocked turn, so one feedback is too many.
    """
    roles = {"agent": "assistant"}
    dialogue = [
        {"role": roles.get(m["role"], m["role"]), "content": m["content"]} for m in messages
    ]
    if not turns or not dialogue or dialogue[-1]["role"] == "assistant":
        return dialogue
    if blocked:
        return dialogue[:-1]
    return [*dialogue, {"role": "assistant", "content": turns[-1].action}]


def _is_whole(dialogue: list[Message], turns: list[Turn]) -> bool:
    """Whether a published dialogue is a prompt, and after it all attempts with their feedback."""
    start = len(dialogue) - (2 * len(turns) - 1)
    attempts = [message["content"].strip() for message in dialogue[max(0, start) :: 2]]
    roles = [message["role"] for message in dialogue[max(0, start) :]]
    return (
        start >= 1
        and dialogue[0]["role"] != "assistant"
        and set(roles[::2]) <= {"assistant"}
        and "assistant" not in roles[1::2]
        and attempts == [turn.action.strip() for turn in turns]
    )
