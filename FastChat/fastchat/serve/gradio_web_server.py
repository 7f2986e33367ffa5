"""Web pages: chat with the served models, one or two side by side.

    python -m fastchat.serve.gradio_web_server
    python -m fastchat.serve.gradio_web_server --controller-url http://localhost:21001 --port 7860

Needs the extra "webui" (gradio). Installed packages add tabs of their own through the entry-point
group "fastchat.web_tabs": a module with `add_arguments(parser)`, `check(args)` and
`add_tab(args, chat)`. The pages load nothing from the network, and are served on this machine only
unless told otherwise; there is no login.
"""

import argparse
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster
from fastchat.constants import RequestError
from fastchat.conversation import Message
from fastchat.serve.commands import ELSEWHERE, add_address, add_controller, refusals
from fastchat.serve.http import together
from fastchat.serve.openai.errors import ApiError, from_worker
from fastchat.serve.openai.requests import held
from fastchat.utils import Parser, build_logger, listen, serve, url_of

logger = build_logger("gradio_web_server")

TABS = "fastchat.web_tabs"
NOBODY = "(none)"
_PORT = 7860
_SILENCE = 600.0
"""Seconds that a worker may send nothing."""


class WebChatError(Exception):
    """There is no answer; the message says why, in words for the page."""


class WebChat:
    """Answers of the models that a controller serves, as they grow."""

    def __init__(self, controller: str):
        self._cluster = Cluster(controller, _SILENCE)

    async def models(self) -> list[str]:
        try:
            return await self._cluster.models()
        except PeerError:
            return []

    async def reply(
        self, model: str, messages: Sequence[Message], max_tokens: int, **sampling: float
    ) -> AsyncGenerator[str, None]:
        """The answer to a dialogue: its text so far, again and again."""
        body = {"messages": list(messages), "max_new_tokens": max_tokens, **sampling}
        try:
            async with held(self._cluster, model) as worker:
                texts = self._cluster.texts(model, body, worker.address)
                async with contextlib.aclosing(texts):
                    async for text in texts:
                        yield text
        except RequestError as error:
            raise WebChatError(str(from_worker(error))) from error
        except ApiError as error:
            raise WebChatError(str(error)) from error

    async def replies(
        self, asked: Sequence[tuple[str, Sequence[Message]]], max_tokens: int, **sampling: float
    ) -> AsyncGenerator[list[str], None]:
        """All texts so far, again and again, of several models with a dialogue each.

        WebChatError if one of them gives no answer, once the others are complete.
        """
        texts, failures = ["" for _ in asked], list[WebChatError]()

        async def reply(model: str, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
            try:
                async for text in self.reply(model, messages, max_tokens, **sampling):
                    yield text
            except WebChatError as error:
                failures.append(error)

        async with contextlib.aclosing(together([reply(*each) for each in asked])) as news:
            async for index, text in news:
                texts[index] = text
                yield list(texts)
        for failure in failures:
            raise failure


def build(args: argparse.Namespace, tabs: list[ModuleType]) -> Any:
    import gradio as gr

    chat = WebChat(args.controller_url)
    with gr.Blocks(title="RISE", analytics_enabled=False) as blocks:
        for tab in tabs:
            tab.add_tab(args, chat)
        with gr.Tab("Chat"):
            _add_chat(chat)
    return blocks


def model_choices(chat: WebChat) -> tuple[Any, Any]:
    """Two drop-down lists of the served models, the second one optional; filled at each visit."""
    import gradio as gr

    with gr.Row():
        first = gr.Dropdown([], label="Model", interactive=True)
        second = gr.Dropdown([NOBODY], value=NOBODY, label="Beside it", interactive=True)

    async def fill() -> tuple[Any, Any]:
        models = await chat.models()
        if not models:
            gr.Warning("The controller serves no model, or does not answer.")
        return (
            gr.Dropdown(models, value=models[0] if models else None),
            gr.Dropdown([NOBODY, *models], value=NOBODY),
        )

    # gradio runs this whenever somebody opens the page.
    page = gr.context.Context.root_block
    assert page is not None, "called while the page is built"
    page.load(fill, None, [first, second])
    return first, second


def chosen(first: str | None, second: str | None) -> list[str]:
    """The models of the two lists; gr.Error if none is chosen."""
    import gradio as gr

    if not first:
        raise gr.Error("Choose a model first.", print_exception=False)
    return [first] if second in (None, NOBODY) else [first, second]


def two_chatbots(second: Any) -> list[Any]:
    """Two dialogues side by side; the other one is there while `second` names a model."""
    import gradio as gr

    formulas: list[dict[str, str | bool]] = [
        {"left": left, "right": right, "display": left in ("$$", "\\[")}
        for left, right in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))
    ]
    with gr.Row():
        dialogues = [
            gr.Chatbot(
                label=label,
                latex_delimiters=formulas,
                elem_id=f"dialogue-{letter}",
                height=520,
                visible=letter == "a",
            )
            for label, letter in (("Model", "a"), ("Beside it", "b"))
        ]
    second.change(lambda name: gr.Chatbot(visible=name != NOBODY), second, dialogues[1])
    return dialogues


def sampling_sliders() -> list[Any]:
    import gradio as gr

    with gr.Accordion("Sampling", open=False):
        return [
            gr.Slider(0, 2, 1.0, step=0.05, label="temperature (0 is greedy)"),
            gr.Slider(0.05, 1, 1.0, step=0.05, label="top_p"),
            gr.Slider(1, 4096, 512, step=1, label="new tokens at most", elem_id="max-tokens"),
        ]


def _add_chat(chat: WebChat) -> None:
    import gradio as gr

    gr.Markdown("Talk to a model that the controller serves, or to two side by side.")
    first, second = model_choices(chat)
    dialogues = two_chatbots(second)
    text = gr.Textbox(label="Message", submit_btn=True, elem_id="chat-message")
    clear = gr.Button("Start over")
    sampling = sampling_sliders()

    async def send(
        message: str, a: str, b: str, left: list, right: list, temperature, top_p, longest
    ) -> AsyncIterator[tuple[str, list, list]]:
        models = chosen(a, b)
        asked = [
            [*_plain(dialogue), {"role": "user", "content": message}] for dialogue in (left, right)
        ]
        settings = {"temperature": temperature, "top_p": top_p, "max_tokens": int(longest)}
        shown = [asked[i] if i < len(models) else [] for i in range(2)]
        yield "", shown[0], shown[1]
        try:
            pairs = list(zip(models, asked, strict=False))
            async for texts in chat.replies(pairs, **settings):
                said = [[{"role": "assistant", "content": each}] for each in texts]
                left, right = (shown[i] + said[i] if i < len(models) else [] for i in range(2))
                yield "", left, right
        except WebChatError as error:
            raise gr.Error(str(error), print_exception=False) from error

    inputs = [text, first, second, *dialogues, *sampling]
    text.submit(send, inputs, [text, *dialogues])
    clear.click(lambda: ([], []), None, dialogues)


def _plain(dialogue: list[dict[str, Any]]) -> list[Message]:
    """A chatbot's history as messages; gradio hands texts back in parts."""

    def text(content: Any) -> str:
        if isinstance(content, str):
            return content
        return "".join(part.get("text", "") for part in content)

    return [{"role": each["role"], "content": text(each["content"])} for each in dialogue]


def parse_args(
    argv: list[str] | None = None, tabs: list[ModuleType] | None = None
) -> argparse.Namespace:
    parser = Parser(ELSEWHERE, prog="gradio_web_server", description=__doc__)
    add_address(parser, _PORT)
    add_controller(parser, "--controller-url")
    for tab in tabs or []:
        tab.add_arguments(parser.add_argument_group(tab.TITLE))
    return parser.read(argv)


def main(argv: list[str] | None = None) -> None:
    tabs = [found.load() for found in entry_points(group=TABS)]
    args = parse_args(argv, tabs)
    with refusals(args):
        for tab in tabs:
            tab.check(args)
        sock = listen(args.host, args.port)
    try:
        import gradio as gr
    except ImportError:
        args.error('gradio is not installed: pip install "fschat[webui]"')
    from fastapi import FastAPI

    # The default theme fetches fonts from the network.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    blocks = build(args, tabs)
    app = gr.mount_gradio_app(FastAPI(), blocks, path="/", theme=theme, ssr_mode=False)
    logger.info("open %s in a browser", url_of(args.host, sock))
    serve(app, sock)


if __name__ == "__main__":
    main()
