"""The RISE tab of FastChat's web pages: a problem, attempt after attempt, each with its verdict.

    python -m fastchat.serve.gradio_web_server --env gsm8k --data-path data/demo_gsm8k.jsonl
    python -m fastchat.serve.cli --model-path ./checkpoint --env gsm8k --problem 3

Loaded by the web pages and by the chat in the terminal through the entry-point group
"fastchat.web_tabs". What the models see is what they see in evaluation: the environment's prompt,
and after each attempt the feedback "incorrect", whatever was answered.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rise.episodes.episode import Message, visible

if TYPE_CHECKING:
    from envs.base import Env

TITLE = "RISE"
LISTED = 500
"""Problems of the file that can be picked."""
OWN = -1
"""Index of a problem that is typed in."""
MARKS = {
    "right": "✓ right",
    "wrong": "✗ wrong",
    "no_answer": "– no answer",
    "timeout": "not graded",
}


@dataclass
class Attempts:
    """What one model has answered so far, and what it was told."""

    texts: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def add_arguments(group: Any) -> None:
    group.add_argument("--env", default="gsm8k", help="environment of the problems (gsm8k)")
    group.add_argument(
        "--data-path",
        default="data/demo_gsm8k.jsonl",
        help="problems to pick from, JSON lines (data/demo_gsm8k.jsonl)",
    )
    group.add_argument(
        "--prompt-style", default="default", help="default | bare | FILE.json (default)"
    )


def check(args: argparse.Namespace) -> None:
    import envs

    args.problems = envs.make(args.env, args.data_path, prompt_style=args.prompt_style)


class Problem:
    """A problem of the file, for the chat in the terminal (`fastchat.serve.cli`)."""

    def __init__(self, args: argparse.Namespace, index: int):
        if not hasattr(args, "problems"):
            check(args)
        self._env, self._index = args.problems, index
        if not 0 <= index < len(self._env):
            last = len(self._env) - 1
            raise ValueError(f"--problem {index}: {args.data_path} has problems 0 to {last}")
        self.question: str = self._env.question(index)
        self.opening: list[Message] = self._env.opening(index)

    def verdict(self, answer: str) -> str:
        grade = self._env.grade(answer, self._index)
        return _in_words(grade.verdict, grade.answer)

    def told(self, answer: str) -> str:
        """What the model hears after an attempt: that it is wrong, whatever it is."""
        return self._env.feedback_on(answer, self._index, "wrong")


def add_tab(args: argparse.Namespace, chat: Any) -> None:
    import gradio as gr

    from fastchat.serve.gradio_web_server import model_choices, sampling_sliders, two_chatbots

    env: Env = args.problems
    listed = [(f"{i}: {env.question(i)[:90]}", i) for i in range(min(LISTED, len(env)))]
    with gr.Tab(TITLE):
        gr.Markdown(
            "A model tries a problem, hears that it is wrong, and tries again; each attempt has "
            "its verdict."
        )
        first, second = model_choices(chat)
        problem = gr.Dropdown([("a problem of my own", OWN), *listed], value=0, label="Problem")
        with gr.Group(visible=False) as own:
            question = gr.Textbox("", label="Question", lines=3, elem_id="own-question")
            reference = gr.Textbox(
                "", label="Right answer (may be left empty)", elem_id="own-answer"
            )
        with gr.Row():
            go = gr.Button("Try", variant="primary", elem_id="try")
            clear = gr.Button("Start over", elem_id="start-over")
        dialogues = two_chatbots(second)
        gr.Markdown(
            "After each attempt the model hears that it is wrong, whatever it answered, as in "
            "evaluation without an oracle."
        )
        window = gr.Slider(
            1, 8, 2, step=1, label="context window c: the question and the last c - 1 attempts"
        )
        sampling = sampling_sliders()
        state = gr.State([])

        async def attempt(a, b, index, asked, right, past, c, *settings) -> AsyncIterator:
            async for update in _attempt(
                env, chat, (a, b), (index, asked, right), past, c, settings
            ):
                yield update

        inputs = [first, second, problem, question, reference, state, window, *sampling]
        go.click(attempt, inputs, [state, *dialogues, go])
        fresh = [state, *dialogues, go]
        clear.click(_fresh, None, fresh)
        for control in (first, second, problem):
            control.change(_fresh, None, fresh)
        problem.change(lambda index: gr.Group(visible=index == OWN), problem, own)


async def _attempt(env, chat, models, problem, past, window, settings) -> AsyncIterator[tuple]:
    """One more attempt of every chosen model: (state, dialogue, dialogue, button) as they grow."""
    import gradio as gr

    from fastchat.serve.gradio_web_server import WebChatError, chosen

    names = chosen(*models)
    index, question, reference = problem
    if index == OWN and not question.strip():
        raise gr.Error("Type a question first.", print_exception=False)
    text = question if index == OWN else env.question(index)
    past = past or [Attempts() for _ in names]
    opening = env.style.opening(text)
    asked = [visible(opening, each.texts, each.told, int(window)) for each in past]
    temperature, top_p, longest = settings
    limits = {"temperature": temperature, "top_p": top_p, "max_tokens": int(longest)}
    again = gr.Button("Try again")
    try:
        texts: list[str] = []
        pairs = list(zip(names, asked, strict=True))
        async for texts in chat.replies(pairs, **limits):
            yield past, *_dialogues(text, past, texts), again
    except WebChatError as error:
        raise gr.Error(str(error), print_exception=False) from error
    for each, answer in zip(past, texts, strict=True):
        each.texts.append(answer)
        each.verdicts.append(await _verdict(env, index, answer, reference))
        each.told.append(env.style.wrong.replace("{question}", text))
    yield past, *_dialogues(text, past, []), again


async def _verdict(env: Env, index: int, answer: str, reference: str) -> str:
    """What the grader says of an answer, in words; own problems may have no right answer."""
    if index != OWN:
        grade = await env.grade_async(answer, index)
        verdict, read = grade.verdict, grade.answer
    else:
        read = env.judge(answer, "").answer
        if read is None:
            verdict = "no_answer"
        elif not reference.strip():
            return f"answer {read}, not graded"
        else:
            verdict = "right" if env.accepts(reference.strip(), read) else "wrong"
    return _in_words(verdict, read)


def _in_words(verdict: str, read: str | None) -> str:
    return MARKS[verdict] if read is None else f"{MARKS[verdict]}, answer {read}"


def _dialogues(question: str, past: list[Attempts], growing: list[str]) -> list[list[Message]]:
    shown: list[list[Message]] = [[], []]
    for i, each in enumerate(past):
        shown[i].append({"role": "user", "content": question})
        for turn, (text, verdict) in enumerate(zip(each.texts, each.verdicts, strict=True), 1):
            shown[i].append({"role": "assistant", "content": text})
            shown[i].append({"role": "user", "content": f"Turn {turn}: {verdict}"})
        if i < len(growing):
            shown[i].append({"role": "assistant", "content": growing[i]})
    return shown


def _fresh() -> tuple:
    import gradio as gr

    return [], [], [], gr.Button("Try")
