"""What a model hears after an attempt, and who decides it (`--feedback`).

| mode | what is said | who decides | an episode ends |
|---|---|---|---|
| none | "incorrect", whatever was answered | nobody | after all turns |
| oracle | right, wrong or no answer | the reference | at its first success |
| verdict | right, wrong or no answer | the reference | after all turns |
| self | right or wrong | the model, when asked whether its answer is right | after all turns |
| critique | what is wrong with the answer | the model, when asked for that | after all turns |

The texts are those of `envs.prompts`. A model that judges itself gets an extra request after every
turn but the last, with the question and its answer alone: see `rise.rollout.self_check`.
"""

FEEDBACK = ("none", "oracle", "verdict", "self", "critique")
"""What `--feedback` takes."""
EXPERT_SEES = ("none", "feedback", "reference")
"""What `--expert_sees` takes."""


def is_forced(feedback: str) -> bool:
    """Whether every problem plays all its turns, the right ones too."""
    return feedback != "oracle"


def knows_truth(feedback: str) -> bool:
    """Whether the feedback rests on the reference: a vote over its turns would repeat that."""
    return feedback in ("oracle", "verdict")


def asks_itself(feedback: str) -> bool:
    return feedback in ("self", "critique")


def texts_of(feedback: str, expert_sees: str) -> tuple[str, ...]:
    """The texts of a style that a run needs beside those that every run has.

    >>> texts_of("self", "reference"), texts_of("none", "feedback")
    (('judge', 'right_again', 'hint'), ())
    """
    texts = {
        "verdict": ("right_again",),
        "self": ("judge", "right_again"),
        "critique": ("critique", "refine"),
    }
    return texts.get(feedback, ()) + (("hint",) if expert_sees == "reference" else ())
