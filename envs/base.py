"""What every environment is: problems from a file, texts for the model, a grade for a response.

An environment is a ``gymnasium.Env`` whose observations and actions are texts. One episode is one
problem: the model answers, hears whether it was right, and answers again. A new environment names
its fields and says how to find, read and compare answers; see ``docs/grading.md``.
"""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from envs.grading import checker
from envs.grading.answers import MAX_ANSWER, Verdict, last_box
from envs.grading.questions import Question
from envs.problem_file import CACHED, ProblemFile
from envs.prompts import PromptStyle, load_style

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""


@dataclass(frozen=True)
class Grade:
    """What one response is worth."""

    verdict: Verdict
    answer: str | None
    """The extracted answer, at most 1000 characters of it; None when there is none."""
    reward: int


FORMS = {("question", "answer"): "gsm8k", ("problem", "solution"): "MATH"}
"""Keys of the rows of a known data set -> the environment that reads them."""
OF_STAGES = {
    b'"conversations"': "training data, as workflow_convert.py writes it,",
    b'"turn_history"': "the log of a run",
}
"""Keys in a file that a later stage reads, and what it is."""
LINES_OF_LIST = (
    'python -c "import json, sys; [print(json.dumps(row)) for row in json.load(sys.stdin)]" '
    "< LIST.json > LINES.jsonl"
)


class TextSpace(gymnasium.Space[str]):
    """All texts, of any length and in any script."""

    def __init__(self):
        super().__init__(shape=None, dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return f"\\boxed{{{self.np_random.integers(100)}}}"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace)

    def __repr__(self) -> str:
        return "TextSpace()"


class Env(gymnasium.Env[str, str], ABC):
    """Problems with checkable answers, as an environment of several attempts.

    ``data_path`` is JSON lines, checked as a whole here. ``feedback``: ``oracle`` ends an episode
    at its first right answer; ``none`` says "wrong" after every attempt, as evaluation without an
    oracle does.
    """

    name: ClassVar[str]
    rewards: ClassVar[dict[Verdict, int]]
    question_key: ClassVar[str]
    answer_key: ClassVar[str]
    example_line: ClassVar[str]
    """A good line of the problem file, shown with every complaint about a bad one."""
    needs_checker: ClassVar[bool] = False
    """Whether grading may need the grading processes; they are then started early."""
    prompts: ClassVar[PromptStyle | None] = None
    """The texts of the style ``default``; None takes those that ``prompts.py`` has for ``name``."""
    fetched: ClassVar[bool] = False
    """Whether ``data/fetch.py`` downloads problem files under this name."""

    def __init__(
        self,
        data_path: str | Path,
        prompt_style: str = "default",
        max_turns: int = 5,
        feedback: str = "oracle",
    ):
        if max_turns < 1:
            raise ValueError(f"max_turns is {max_turns}; an episode needs at least 1")
        if feedback not in ("oracle", "none"):
            raise ValueError(f"feedback is {feedback!r}; use 'oracle' or 'none'")
        self.style: PromptStyle = self.load_style(str(prompt_style))
        self.problems: ProblemFile = self._open(Path(data_path))
        self.max_turns = max_turns
        self.feedback_mode = feedback
        self.observation_space = TextSpace()
        self.action_space = TextSpace()
        self._index: int | None = None
        self._turn = 0
        if self.needs_checker:
            checker.start()

    # --- what an environment defines -----------------------------------------------------------

    @classmethod
    @abstractmethod
    def target(cls, reference: str) -> Any:
        """Return what answers are compared with; raises ValueError when there is none."""

    @classmethod
    @abstractmethod
    def answer_as_target(cls, answer: str) -> Any:
        """Return an extracted answer in the form of ``target``; None when it cannot be one."""

    @classmethod
    @abstractmethod
    def compare(cls, answer: str, target: Any) -> Verdict | Question:
        """Return the verdict on an extracted answer, or the question left for math-verify."""

    @classmethod
    def prepare(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row whose question and answer are texts; ValueError for a bad one."""
        return row

    # --- problems and texts --------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.problems)

    def question(self, index: int) -> str:
        return self.problems[index][self.question_key]

    def reference(self, index: int) -> str:
        """Return the data set's own answer text, which ends in or contains the answer."""
        return self.problems[index][self.answer_key]

    @classmethod
    def load_style(cls, style: str) -> PromptStyle:
        return load_style(cls.name, style, cls.prompts)

    def opening(self, index: int) -> list[Message]:
        return self.style.opening(self.question(index))

    def feedback(self, index: int, verdict: Verdict) -> str:
        """Return the user message after an attempt; a timeout is told as wrong."""
        return self.text(verdict if verdict in ("right", "no_answer") else "wrong", index)

    def feedback_on(self, attempt: str, index: int, verdict: Verdict) -> str:
        """Return ``feedback``, which may take an ``attempt`` (the response) as a third argument."""
        if "attempt" in inspect.signature(self.feedback).parameters:
            told: Callable[..., str] = self.feedback
            return told(index, verdict, attempt=attempt)
        return self.feedback(index, verdict)

    def text(self, name: str, index: int, **values: str) -> str:
        return self.style.fill(name, question=self.question(index), **values)

    # --- grading -------------------------------------------------------------------------------

    def grade(self, response: str, index: int) -> Grade:
        """Judge a response to problem ``index``; may wait seconds for math-verify."""
        return self.judge(response, self.reference(index))

    async def grade_async(self, response: str, index: int) -> Grade:
        answer, outcome = self._examine(response, self.reference(index))
        if isinstance(outcome, Question):
            outcome = await checker.check_async(outcome)
        return self._graded(answer, outcome)

    @classmethod
    def judge(cls, response: str, reference: str) -> Grade:
        """Judge a response against a reference text; neither can raise, hang or run code."""
        answer, outcome = cls._examine(response, reference)
        return cls._graded(answer, _settled(outcome))

    @classmethod
    def same_answer(cls, a: str, b: str) -> bool:
        """Whether two extracted answers count as one in a vote; that is not transitive."""
        return cls.accepts(a, b) or cls.accepts(b, a)

    @classmethod
    def accepts(cls, right: str, answer: str) -> bool:
        """Whether an extracted answer is right where the right one is the bare text ``right``."""
        if answer == right:
            return True
        target = cls.answer_as_target(right)
        return target is not None and _settled(cls.compare(answer, target)) == "right"

    @classmethod
    def _examine(cls, response: str, reference: str) -> tuple[str | None, Verdict | Question]:
        answer = last_box(response)
        if answer is None:
            return None, "no_answer"
        try:
            target = _target(cls, reference)
        except ValueError:
            # nothing is right where the reference says nothing
            return answer, "wrong"
        return answer, cls.compare(answer, target)

    @classmethod
    def _graded(cls, answer: str | None, verdict: Verdict) -> Grade:
        found = None if answer is None or verdict == "no_answer" else answer[:MAX_ANSWER]
        return Grade(verdict, found, cls.rewards[verdict])

    # --- gymnasium -----------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin with problem ``options["index"]`` or a random one; ``info`` has ``messages``."""
        super().reset(seed=seed)
        index = (options or {}).get("index")
        if index is None:
            index = int(self.np_random.integers(len(self)))
        if not 0 <= index < len(self):
            raise ValueError(f"index {index} is outside the problems 0 to {len(self) - 1}")
        if self.needs_checker:
            checker.wait_until_ready()
        self._index, self._turn = index, 0
        opening = self.opening(index)
        return opening[-1]["content"], {"index": index, "messages": opening}

    def step(self, action: str) -> tuple[str, int, bool, bool, dict[str, Any]]:
        """Grade one attempt; ``info`` has its ``verdict`` and the extracted ``answer``."""
        if self._index is None:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() before step()")
        grade = self.grade(action, self._index)
        self._turn += 1
        oracle = self.feedback_mode == "oracle"
        terminated = oracle and grade.verdict == "right"
        truncated = not terminated and self._turn >= self.max_turns
        told = grade.verdict if oracle else "wrong"
        observation = self.feedback_on(action, self._index, told)
        if terminated or truncated:
            self._index = None
        info = {"verdict": grade.verdict, "answer": grade.answer}
        return observation, grade.reward, terminated, truncated, info

    # --- the problem file ----------------------------------------------------------------------

    def _open(self, path: Path) -> ProblemFile:
        if not path.is_file():
            how = f"; `python data/fetch.py {self.name}` downloads {self.name}"
            how = how if self.fetched else ""
            raise ValueError(f"no problem file {path}: give a file of JSON lines{how}")
        try:
            return ProblemFile(path, self._parse, self._check_row, self.example_line)
        except ValueError as error:
            with open(path, "rb") as file:
                start = file.read(1 << 16)
            if what := next((what for key, what in OF_STAGES.items() if key in start), None):
                raise ValueError(
                    f"{path} holds {what} and no problems: give the file of problems that the run "
                    f"before it was given. A good line: {self.example_line}"
                ) from error
            raise

    @classmethod
    def _parse(cls, line: bytes) -> dict[str, Any]:
        if line.startswith(b"version https://git-lfs"):
            raise ValueError("a pointer of Git LFS, not the file: `git lfs pull` fetches it")
        is_list = line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        hint = f"; where the file is one list, `{LINES_OF_LIST}` makes lines of it" * is_list
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            packed = line.startswith((b"\x1f\x8b", b"BZh", b"\xfd7z", b"\x28\xb5", b"PK"))
            hint = "; the file is compressed: unpack it" if packed else "; save it as UTF-8"
            raise ValueError(f"not UTF-8 ({error.reason}){hint}") from error
        except (ValueError, RecursionError) as error:
            if line.strip() == b"{":
                hint = "; one object over many lines holds no problems"
            raise ValueError(f"not JSON ({error}){hint}") from error
        if not isinstance(row, dict):
            raise ValueError(f"a JSON {type(row).__name__}, not an object{hint}")
        keys = (cls.question_key, cls.answer_key)
        for key in keys:
            if key not in row:
                known = (env for form, env in FORMS.items() if row.keys() >= {*form} != {*keys})
                hint = next((f"; rows with these are read by --env {env}" for env in known), "")
                raise ValueError(f"the key {key!r} is missing, found {sorted(row)}{hint}")
        row = cls.prepare(row)
        for key in keys:
            if not isinstance(row[key], str) or not row[key].strip():
                raise ValueError(f"{key!r} must be a text that is not empty")
        return row

    @classmethod
    def _check_row(cls, row: dict[str, Any]) -> None:
        cls.target(row[cls.answer_key])


@lru_cache(CACHED)
def _target(kind: type[Env], reference: str) -> Any:
    return kind.target(reference)


def _settled(outcome: Verdict | Question) -> Verdict:
    return checker.check(outcome) if isinstance(outcome, Question) else outcome
