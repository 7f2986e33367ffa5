"""Chat with a model in the terminal: a served one, or a checkpoint that is served for the chat.

    python -m fastchat.serve.cli --model-path meta-llama/Llama-2-7b-chat-hf
    python -m fastchat.serve.cli --model-name Llama-2-7b-chat-hf --controller-address http://gpu1:21001
    python -m fastchat.serve.cli --model-path ./checkpoint --env gsm8k --problem 3

An empty line ends it. !!reset begins anew, !!regen answers again, !!remove takes the last question
and answer back, !!save FILE and !!load FILE keep the dialogue (what stock FastChat has saved is
loaded too). With a problem loaded (--problem, or /problem N) every answer gets its verdict, and
/retry says that it is wrong, whatever it was, as RISE's evaluation does: the model sees the problem
and its last attempt. Flags that are not listed go to the model worker of --model-path: --device,
--dtype, --load-8bit, ...
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fastchat.client.http import PeerError
from fastchat.client.process import Child, ServerEnded, asked, free_ports, stop, wait_until
from fastchat.conversation import Message
from fastchat.model.model_adapter import resolve
from fastchat.protocol.worker_protocol import ChatMessage
from fastchat.serve import model_worker
from fastchat.serve.commands import ELSEWHERE, add_asking, refusals
from fastchat.serve.screens import SCREENS, Screen, screen_of
from fastchat.utils import Parser, json_or_none, write_json

TABS = "fastchat.web_tabs"
"""Entry points of packages that know problems, as for the web pages: modules with `add_arguments`,
`check` and `Problem`."""
_START_SECONDS = 1800.0


def parse_args(
    argv: list[str] | None = None, tabs: list[ModuleType] | None = None
) -> argparse.Namespace:
    parser = Parser(ELSEWHERE, prog="cli", description=__doc__)
    add = parser.add_argument
    add(
        "--model-path",
        "--model",
        help="checkpoint, adapter or ORG/NAME; a worker is started for it",
    )
    add("--model-name", help="the name of a served model, instead")
    add_asking(parser, temperature=0.7, tokens=512)
    add("--conv-system-msg", help="system message (none)")
    add("--repetition_penalty", type=float, default=1.0, help="above 1 repeats less (1)")
    add("--no-history", action="store_true", help="each message stands alone")
    add(
        "--style",
        choices=list(SCREENS),
        default="simple",
        help="rich needs the packages of the extra cli; programmatic reads messages that end with "
        "FastChat's mark (simple)",
    )
    add(
        "--multiline",
        action="store_true",
        help="a message has several lines: Ctrl-D ends it, with --style rich Esc and Enter",
    )
    add("--mouse", action="store_true", help="the mouse moves the cursor (rich)")
    for tab in tabs or []:
        group = parser.add_argument_group(tab.TITLE)
        tab.add_arguments(group)
        group.add_argument("--problem", type=int, help="number of the problem to begin with (none)")
    args, rest = parser.parse_known_args(argv)
    args.worker_args = rest
    if bool(args.model_path) == bool(args.model_name or args.worker_address):
        parser.error("give --model-path of a checkpoint, or --model-name of a served model")
    if rest and not args.model_path:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.model_path:
        words = ["--model-path", args.model_path, *rest]
        model_worker.parse_args(words, parser._option_string_actions)
    args.error = parser.error
    return args


@contextlib.contextmanager
def served(args: argparse.Namespace) -> Iterator[None]:
    """Where a checkpoint is to be served: its worker, whose address `args` gets.

    ServerEnded if it does not start; arguments that it refuses end this program as they end it.
    """
    if not args.model_path:
        yield
        return
    resolve(args.model_path)  # a name that is none is found before a process is started
    [port] = free_ports(1)
    args.worker_address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "fastchat.serve.model_worker", "--no-register"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--model-path", args.model_path]
    with tempfile.TemporaryDirectory(prefix="fastchat-cli-") as folder:
        child = Child("the model worker", command + args.worker_args, Path(folder, "log"))
        status = f"{args.worker_address}/worker_get_status"
        try:
            wait_until(lambda: asked(status, b"{}") is not None, [child], _START_SECONDS)
            yield
        except ServerEnded:
            if refusal := child.refusal():
                args.error(refusal)
            raise
        finally:
            stop([child])


class Chat:
    """A dialogue with one model, on a screen."""

    def __init__(self, args: argparse.Namespace, screen: Screen, tab: ModuleType | None):
        self.args = args
        self.screen = screen
        self.tab = tab
        self.problem: Any = None
        self.system: str | None = args.conv_system_msg
        self.messages: list[Message] = []
        """What was said and is shown; what the model sees of it, `seen` says."""

    def run(self) -> None:
        """Until an empty line, or the end of the input."""
        if getattr(self.args, "problem", None) is not None:
            self.load_problem(str(self.args.problem))
        while text := (self.screen.ask("USER") or "").strip():
            word, _, rest = text.partition(" ")
            word = word.replace("!!", "/", 1)
            if word == "/exit":
                return
            if word in COMMANDS:
                try:
                    COMMANDS[word](self, rest.strip())
                except (OSError, ValueError) as error:  # the dialogue is kept
                    self.screen.say(str(error))
            elif text.startswith("!!"):
                known = ", ".join(COMMANDS).replace("/", "!!")
                self.screen.say(f"{text.split()[0]} is none of !!exit, {known}")
            else:
                self.messages.append({"role": "user", "content": text})
                self.ask()

    def seen(self) -> list[Message]:
        """What the model sees: of attempts at a problem the last one, as in RISE's evaluation."""
        if self.problem is not None:
            start = len(self.problem.opening)
            return [*self.problem.opening, *self.messages[start:][-2:]]
        return self.messages[-1:] if self.args.no_history else self.messages

    def ask(self) -> None:
        """Show the model's answer, and keep it; one that fails takes its question."""
        start: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "messages": [*start, *self.seen()],
            "temperature": self.args.temperature,
            "max_new_tokens": self.args.max_new_tokens,
        }
        if self.args.repetition_penalty != 1:
            body["repetition_penalty"] = self.args.repetition_penalty
        try:
            answer = asyncio.run(self.screen.answer(body))
        except (PeerError, KeyboardInterrupt) as error:
            self.take_back(1)
            self.screen.say(f"no answer: {error or 'interrupted'}")
            return
        self.messages.append({"role": "assistant", "content": answer})
        if self.problem is not None:
            own = self.messages[len(self.problem.opening) :]
            attempt = sum(message["role"] == "assistant" for message in own)
            self.screen.say(f"attempt {attempt}: {self.problem.verdict(answer)}")

    def load_problem(self, number: str) -> None:
        if self.tab is None or not number.isdecimal():
            raise ValueError("say which problem, /problem 3; the file is that of --data-path")
        self.problem = self.tab.Problem(self.args, int(number))
        self.messages = list(self.problem.opening)
        self.screen.say(f"problem {number}: {self.problem.question}")
        self.ask()

    def retry(self, _: str) -> None:
        """Say that the last attempt is wrong; the model sees the problem, the attempt and that."""
        if self.problem is None:
            raise ValueError("/retry needs an attempt at a problem: --problem 3, or /problem 3")
        told: Message = {"role": "user", "content": self.problem.told(self.messages[-1]["content"])}
        self.screen.say(f"USER: {told['content']}")
        self.messages.append(told)
        self.ask()

    def reset(self, _: str) -> None:
        self.messages, self.problem = [], None
        self.system = self.args.conv_system_msg
        self.screen.say("a new dialogue")

    def take_back(self, count: int) -> None:
        """Forget the last messages; a problem that is asked no more is over."""
        del self.messages[-count:]
        if self.problem is not None and len(self.messages) < len(self.problem.opening):
            self.messages, self.problem = [], None

    def remove(self, _: str) -> None:
        self.take_back(2)
        self.screen.say(f"{len(self.messages)} messages are left")

    def regenerate(self, _: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise ValueError("there is no answer to be given again")
        del self.messages[-1]
        self.ask()

    def save(self, name: str) -> None:
        path = _file(name)
        write_json(path, {"system_message": self.system, "messages": self.messages})
        self.screen.say(f"saved {path}")

    def load(self, name: str) -> None:
        path = Path(name) if Path(name).is_file() else _file(name)
        try:
            kept = json_or_none(path)
            messages = _dialogue(kept)
            system = kept.get("system_message", self.system) or ""
            self.system = ChatMessage(role="system", content=system).content
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no dialogue that !!save has written") from error
        self.messages, self.problem = messages, None
        for message in messages:
            self.screen.say(f"{message['role'].upper()}: {message['content']}")


def _file(name: str) -> Path:
    return Path(f"{name.removesuffix('.json') or 'chat'}.json")


def _dialogue(kept: dict[str, Any]) -> list[Message]:
    """The messages of a file that !!save wrote, here or in stock FastChat.

    There a message is a pair: one of two `roles`, which its template names, and the text.
    """
    messages = kept["messages"]
    if "roles" in kept:
        names = dict(zip(kept["roles"], ("user", "assistant"), strict=True))
        messages = [{"role": names[role], "content": text} for role, text in messages]
    return [ChatMessage(**one).model_dump() for one in messages]


COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "/problem": Chat.load_problem,
    "/retry": Chat.retry,
    "/reset": Chat.reset,
    "/remove": Chat.remove,
    "/regen": Chat.regenerate,
    "/save": Chat.save,
    "/load": Chat.load,
}


def main(argv: list[str] | None = None) -> None:
    tabs = [found.load() for found in entry_points(group=TABS)]
    args = parse_args(argv, tabs)
    tab = next((each for each in tabs if hasattr(each, "Problem")), None)
    with refusals(args):
        if tab is not None and args.problem is not None:
            tab.Problem(args, args.problem)  # what is wrong there is found before a model is loaded
        with served(args):
            Chat(args, screen_of(args), tab).run()


if __name__ == "__main__":
    main()
