"""Recursive introspection: episodes, their records, weights and metrics; docs/architecture.md."""

import importlib.util
import sys

if importlib.util.find_spec("fastchat") is None and sys.argv[0].endswith((".py", "-m")):
    remedy = "source .venv/bin/activate (bash scripts/setup.sh makes it)"
    program = "rise" if sys.argv[0] == "-m" else sys.argv[0]
    print(f"{program}: error: {sys.executable} has no fastchat: {remedy}", file=sys.stderr)
    sys.exit(2)
