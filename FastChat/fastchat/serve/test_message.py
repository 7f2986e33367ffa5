"""Asks a served model one question, and shows the answer as it grows.

python -m fastchat.serve.test_message --model-name Llama-2-7b-chat-hf
python -m fastchat.serve.test_message --model-name tiny --message "2 + 2?" --max-new-tokens 64
"""

import argparse

from fastchat.serve.commands import add_asking, run
from fastchat.serve.screens import Screen
from fastchat.utils import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_asking(parser, temperature=0, tokens=32)
    parser.add_argument("--model-name", required=True, help="the name under which it is served")
    parser.add_argument(
        "--message", default="Tell me a story with more than 1000 words.", help="what it is asked"
    )
    return parser.parse_args(argv)


async def ask(args: argparse.Namespace) -> None:
    body = {
        "messages": [{"role": "user", "content": args.message}],
        "temperature": args.temperature,
        "max_new_tokens": args.max_new_tokens,
    }
    screen = Screen(args)
    screen.say(f"USER: {args.message}")
    await screen.answer(body)
    if screen.is_cut:
        screen.say(f"(cut at the limit of new tokens: --max-new-tokens {args.max_new_tokens})")


def main(argv: list[str] | None = None) -> None:
    run(ask(parse_args(argv)))


if __name__ == "__main__":
    main()
