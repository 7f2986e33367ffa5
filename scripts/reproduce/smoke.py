"""What `SMOKE=1` puts in the place of a large model and of an expert with a key.

    python scripts/reproduce/smoke.py --template llama-2 --output_dir log/tiny

Writes  --output_dir: a Llama of 0.1 million random weights that reads bytes, with the chat template
        of the model family; does nothing where it is complete. It learns nothing that matters.

`scripts/reproduce/smoke.py:reference` as a model's name is an expert that knows the answers.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 8192
"""Longest text in bytes."""


def reference(problem: dict[str, Any], messages: list[dict[str, str]]) -> str:
    """The answer of the data set, in a box."""
    from envs.grading.answers import last_box

    if "solution" in problem:
        return rf"The answer is \boxed{{{last_box(problem['solution'])}}}."
    return rf"The answer is \boxed{{{problem['answer'].rpartition('####')[2].strip()}}}."


def save(template: str, output_dir: Path) -> None:
    """Write the checkpoint beside its place, then rename it: it is whole or not there."""
    sys.path.insert(0, str(ROOT))
    from tests.support.tiny import save_tiny_model

    partial = output_dir.with_name(f"{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_tiny_model(partial, template=template, max_position_embeddings=CONTEXT)
    partial.replace(output_dir)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    families = ("llama-2", "llama-3", "mistral", "chatml")
    add("--template", choices=families, required=True, help="family of the chat template")
    add("--output_dir", type=Path, required=True, help="the checkpoint's folder")
    args = parser.parse_args()
    if not args.output_dir.exists():
        save(args.template, args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
