"""API keys: where they come from, and how they are kept out of every message.

A key is read from the environment, else from `keys.cfg` in the current directory, one per line:

    OPENAI_API_KEY: '<key>'

The quotes may be missing, `=` may stand for the colon, as in a shell (`export`) or in JSON, and `#`
or `;` begins a comment, also behind a key. The OpenAI API (or what OPENAI_BASE_URL puts in its
place) gets OPENAI_API_KEY; servers given as NAME@URL never see it, they get RISE_SERVER_KEY, if
there is one.
"""

import os
import re
from pathlib import Path

OPENAI_KEY = "OPENAI_API_KEY"
SERVER_KEY = "RISE_SERVER_KEY"
KEYS_FILE = Path("keys.cfg")
NO_KEY = "none"
"""What a server is sent that needs no key: the client insists on one."""

LINE = re.compile(
    r"\s*(export\s+)?(['\"]?)(?P<name>\w+)\2\s*[:=]\s*"
    r"(?P<quote>['\"]?)(?P<key>[^\s'\"<>,]+)(?P=quote)\s*,?\s*([#;].*)?"
)
SHORTEST = 4
"""Characters below which a key is not looked for in messages: it would be found in any word."""
_remembered: set[str] = set()


def find_key(name: str) -> str | None:
    """The key of this name from the environment or keys.cfg; no error ever holds what was read."""
    key = os.environ.get(name, "").strip() or _from_file(name)
    if key is None:
        return None
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError(
            f"{name} holds white space or other characters that no key has: set it anew"
        )
    remember(key)
    return key


def remember(key: str) -> None:
    if len(key) >= SHORTEST:
        _remembered.add(key)


def redact(text: str) -> str:
    """The text without any key that this process knows or that looks like one of OpenAI's.

    >>> redact("Incorrect API key provided: sk-proj-12345.")
    'Incorrect API key provided: sk-...'
    """
    present = (os.environ.get(name, "").strip() for name in (OPENAI_KEY, SERVER_KEY))
    known = _remembered.union(key for key in present if len(key) >= SHORTEST)
    for key in sorted(known, key=len, reverse=True):
        text = text.replace(key, "sk-..." if key.startswith("sk-") else "<key>")
    return re.sub(r"\bsk-\w[\w.*-]*", "sk-...", text)


def _from_file(name: str) -> str | None:
    if not KEYS_FILE.is_file():
        return None
    try:
        lines = KEYS_FILE.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{KEYS_FILE} is not UTF-8 text: save it as plain text") from error
    damaged = []
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if match and match["name"] == name:
            return match["key"]
        if match is None and line.strip() and not re.match(r"\s*[#;\[]", line):
            damaged.append(number)
    if damaged:
        raise ValueError(
            f"line {damaged[0]} of {KEYS_FILE} cannot be read, and no other line has {name}: a "
            f"line is {name}: '<key>', with your key in the place of <key>"
        )
    return None
