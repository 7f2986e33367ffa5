"""How the chat in the terminal looks: plain lines, rich's Markdown, or for another program."""

import argparse
import contextlib
import sys
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from typing import Any

from fastchat.client.workers import Cluster
from fastchat.utils import visible

END_OF_MESSAGE = " __END_OF_A_MESSAGE_47582648__\n"
"""FastChat's mark between the messages of another program."""
MODEL = "ASSISTANT"


class Screen:
    """Plain lines."""

    head = f"{MODEL}: "
    """In front of an answer."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.is_cut = False
        """Whether the last answer ended at the limit of new tokens."""

    def _ended(self, reason: str | None) -> None:
        self.is_cut = reason == "length"

    def ask(self, role: str) -> str | None:
        """The next message; None at the end of the input."""
        lines = []
        with contextlib.suppress(EOFError):
            lines.append(input(f"{role}: "))
            while self.args.multiline:
                lines.append(input())
        return "\n".join(lines) if lines else None

    async def show(self, texts: AsyncGenerator[str, None]) -> str:
        """Show an answer as it grows; returns all of it."""
        print(self.head, end="", flush=True)
        text = ""
        async with contextlib.aclosing(texts):
            async for grown in texts:
                print(visible(grown[len(text) :]), end="", flush=True)
                text = grown
        print(flush=True)
        return text

    async def answer(self, body: dict[str, Any]) -> str:
        cluster = Cluster(self.args.controller_address)
        try:
            name, address = self.args.model_name or "", self.args.worker_address
            return await self.show(cluster.texts(name, body, address, self._ended))
        finally:
            await cluster.close()

    def say(self, text: str) -> None:
        """Show what neither side of the dialogue has just said."""
        print(visible(text), flush=True)


class Programmatic(Screen):
    """For a program that writes messages with a mark behind each, and reads marked lines."""

    head = f"[!OP:{MODEL}]: "

    def ask(self, role: str) -> str | None:
        text = ""
        while not text.endswith(END_OF_MESSAGE):
            if not (line := sys.stdin.readline()):
                return None
            text += line
        text = text.removesuffix(END_OF_MESSAGE)
        print(f"[!OP:{role}]: {text}", flush=True)
        return text


class Rich(Screen):
    """Markdown by rich, input by prompt_toolkit."""

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        from prompt_toolkit import PromptSession
        from rich.console import Console

        self._console = Console()
        self._session: Any = PromptSession(multiline=args.multiline, mouse_support=args.mouse)

    def ask(self, role: str) -> str | None:
        self._console.print(f"[bold]{role}:")
        try:
            return self._session.prompt()
        except EOFError:
            return None

    async def show(self, texts: AsyncGenerator[str, None]) -> str:
        from rich.live import Live
        from rich.markdown import Markdown

        self._console.print(f"[bold]{MODEL}:")
        text = ""
        with Live(console=self._console, refresh_per_second=4) as live:
            async with contextlib.aclosing(texts):
                async for text in texts:
                    # Markdown would join lines.
                    live.update(Markdown(visible(text).replace("\n", "  \n")))
        return text


SCREENS: dict[str, type[Screen]] = {"simple": Screen, "rich": Rich, "programmatic": Programmatic}


def screen_of(args: argparse.Namespace) -> Screen:
    """The screen of `--style`; the plain one where packages are missing."""
    missing = [name for name in ("rich", "prompt_toolkit") if find_spec(name) is None]
    if args.style == "rich" and missing:
        packages = f"{' and '.join(missing)} (pip install 'fschat[cli]')"
        print(f"--style rich needs {packages}: plain lines", file=sys.stderr)
        return Screen(args)
    return SCREENS[args.style](args)
