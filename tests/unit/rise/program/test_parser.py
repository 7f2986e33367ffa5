"""The one line that a mistyped argument gets.

python -m pytest tests/unit/rise/program/test_parser.py
"""

import pytest

import workflow_convert
import workflow_eval
import workflow_gen
from fastchat.utils import Parser


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--max_turnz", "3"], "unrecognized arguments: --max_turnz 3: did you mean --max_turns?"),
        (["--max_turnz=3"], "did you mean --max_turns?"),
        (["--max_turn", "3"], "did you mean --max_turns?"),
        (["--qqq"], "unrecognized arguments: --qqq (--help lists the flags)"),
        (["--max_turns", "many"], "invalid int value: 'many'"),
        (["--log-dir", "x"], "required: --log_dir; --log-dir is unknown, did you mean --log_dir?"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_nearest_flag(capsys, words, part):
    parser = Parser(prog="program", description="Two\nlines.")
    parser.add_argument("--max_turns", type=int)
    parser.add_argument("--log_dir", required="--log-dir" in words)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(words)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and part in error
    assert "Two\nlines." in parser.format_help()


@pytest.mark.parametrize("stage", [workflow_gen, workflow_convert, workflow_eval])
def test_every_stage_uses_it(capsys, stage):
    with pytest.raises(SystemExit) as exit_:
        stage.parse_args(["--see", "1"])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 1
