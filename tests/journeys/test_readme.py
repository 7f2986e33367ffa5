"""The README tells the truth: flags, links, examples and commands.

    python -m pytest tests/journeys/test_readme.py

Here every command line of every README is parsed by the program that it calls; those that can run
on this machine are run by tests/journeys/test_readme_commands.py.
"""

import argparse
import doctest
import re
import shlex
from functools import partial
from pathlib import Path

import pytest

import workflow_convert
import workflow_eval
import workflow_gen
from fastchat.model import apply_lora
from fastchat.serve import (
    controller,
    gradio_web_server,
    model_worker,
    openai_api_server,
    vllm_worker,
)
from fastchat.train import arguments
from rise import compare, iteration_arguments, merge, rescore, web_tab
from rise.report import __main__ as report
from tests.support.readme_commands import READMES, commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "workflow_gen.py": workflow_gen.parse_args,
    "workflow_convert.py": workflow_convert.parse_args,
    "workflow_eval.py": workflow_eval.parse_args,
    "fastchat.model.apply_lora": apply_lora.parse_args,
    "fastchat.serve.controller": controller.parse_args,
    "fastchat.serve.model_worker": model_worker.parse_args,
    "fastchat.serve.openai_api_server": openai_api_server.parse_args,
    "fastchat.serve.vllm_worker": vllm_worker.parse_args,
    "fastchat.serve.gradio_web_server": partial(gradio_web_server.parse_args, tabs=[web_tab]),
    "rise.compare": compare.parse_args,
    "rise.iterate": lambda words: iteration_arguments.make_parser("").parse_args(words),
    "rise.merge": merge.parse_args,
    "rise.report": report.parse_args,
    "rise.rescore": rescore.parse_args,
}


def words_of_commands():
    """The words of every command of every README, those joined by && apart."""
    for readme in READMES:
        for command in commands(readme):
            for part in command.text.split("&&"):
                yield shlex.split(part)


def flags_of(parse, monkeypatch):
    """Every option string that a command line takes."""
    seen = []

    def stop(parser, *args, **kwargs):
        seen.append(parser)
        raise InterruptedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(InterruptedError):
        parse([])
    actions = [
        action for action in seen[0]._actions if action.option_strings and action.dest != "help"
    ]
    return {max(action.option_strings, key=len) for action in actions}


@pytest.mark.parametrize("program", PARSERS)
def test_every_flag_is_explained(program, monkeypatch):
    missing = [
        flag for flag in flags_of(PARSERS[program], monkeypatch) if f"`{flag}`" not in README
    ]
    # BooleanOptionalAction: the longer form is --no-...
    assert [flag for flag in missing if not flag.startswith("--no-c")] == []


def test_every_command_is_parsed_by_its_program(tmp_path):
    checked = []
    for words in words_of_commands():
        words = [word for word in words if word not in ("python", "-m") and "KEYS=" not in word]
        program, *rest = words
        if program in PARSERS:
            PARSERS[program](rest)
        elif program == "deepspeed":
            script = rest.index("FastChat/fastchat/train/train_mem.py")
            deepspeed_config = {"deepspeed/zero3.json": str(ROOT / "deepspeed/zero3.json")}
            rest = [deepspeed_config.get(word, word) for word in rest[script + 1 :]]
            rest[rest.index("--output_dir") + 1] = str(tmp_path)
            parsed = arguments.parse(rest)
            assert parsed.data.lazy_preprocess is False
            if "--warmup_ratio" in rest:
                assert parsed.training.warmup_steps == 0.04
        elif program == "sbatch":
            assert any((ROOT / word).is_file() for word in rest)
        elif program in ("bash", "source"):
            assert (ROOT / rest[0]).is_file() or rest[0] == ".venv/bin/activate"
        elif program == "pip":
            folder, _, extra = rest[-1].partition("[")
            project = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
            assert f"\n{extra.rstrip(']') or 'name'} = " in project
        else:
            assert program in {"data/fetch.py", "data/arithmetic.py", "echo"}
        checked.append(program)
    assert {"workflow_gen.py", "workflow_convert.py", "workflow_eval.py", "deepspeed"} <= {*checked}


def test_links_lead_to_files_and_to_the_named_lines():
    links = re.findall(r"\[([^\]]+)\]\(([^)#\s]+)?(?:#([\w-]+))?\)", README)
    local = [link for link in links if not link[1].startswith("http")]
    assert len(local) > 10
    for text, path, anchor in local:
        if not path:
            heading = re.sub(r"[^a-z -]", "", anchor)
            titles = re.findall(r"^#+ (.*)", README, re.MULTILINE)
            assert heading in [re.sub(r"[^a-z -]", "", t.lower()).replace(" ", "-") for t in titles]
            continue
        assert (ROOT / path).exists(), path
        if anchor:
            line = (ROOT / path).read_text().splitlines()[int(anchor.removeprefix("L")) - 1]
            assert re.search(rf"(def|class) {text.strip('`')}\b", line), (text, path, anchor, line)


def test_the_worked_grades_are_right():
    failures, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert failures == 0
    assert tried == 12  # the import, ten examples, the shutdown
