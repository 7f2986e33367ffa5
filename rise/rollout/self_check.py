r"""A model judges its own answer: the request, what is recorded of it, what is said afterwards.

With `--feedback self` it says whether the answer is right, with `--feedback critique` what is wrong
with it (the feedback of Self-Refine). Both are asked to close with \boxed{right} or
\boxed{wrong}. An answer about which neither can be read is revised as if it were called wrong.
"""

from typing import Any

from envs.base import Env
from envs.grading.answers import stated_verdict
from rise.episodes.episode import PER_SAMPLE, Message, Turn
from rise.policies.policy import Policy, usage_of

NOTHING = {"requests": 0, "samples": 0, "prompt_tokens": 0, "completion_tokens": 0}
"""Usage of a turn at which nobody was asked."""


async def ask(
    policy: Policy, messages: list[Message], request: str, **sampling: Any
) -> dict[str, Any]:
    """Ask about the answer that ends the messages: {"says": right, wrong, unclear; "text", ...}."""
    asked = [*messages, {"role": "user", "content": request}]
    [reply] = await policy.sample(asked, n=1, **sampling)
    return {
        "says": stated_verdict(reply.text),
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": {"requests": 1} | usage_of([reply]),
    }


def told(env: Env, task_id: int, feedback: str, attempt: str, check: dict[str, Any]) -> str:
    if feedback == "critique":
        return env.text("refine", task_id, critique=check["text"])
    if check["says"] == "right":
        return env.text("right_again", task_id)
    return env.feedback_on(attempt, task_id, "wrong")


def keep(turn: Turn) -> Turn:
    """The turn at which the answer of this one stands."""
    lists: dict[str, Any] = {key: [getattr(turn, key)[turn.chosen]] for key in PER_SAMPLE}
    lists["observations"] = [""]
    return Turn(**lists, model=turn.model, usage=dict(NOTHING), kept=True)
