"""The command line, cores, threads and sizes on it, JSON files.

python -m pytest tests/unit/fastchat/test_utils.py
"""

import argparse
import json

import pytest

import workflow_convert
import workflow_eval
import workflow_gen
from fastchat import utils


def test_processes_share_the_cores_and_omp_num_threads_overrides(monkeypatch):
    monkeypatch.setattr(utils, "own_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [utils.threads_of(count) for count in (1, 3, 8, 9)] == [8, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert utils.threads_of(8) == 3


def test_sizes_are_read_and_other_texts_refused():
    for text in ("4", "GiB", "-1G", "1GiBs"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no size: give one such as 4GiB"):
            utils.byte_count(text)


def test_a_number_that_json_does_not_have_is_null(tmp_path):
    odd = {"a": [float("nan"), -float("inf"), 1.5], 2: "x"}
    written = utils.write_json(tmp_path / "odd.json", odd).read_text()
    expected = {"a": [None, None, 1.5], "2": "x"}
    assert json.loads(written, parse_constant=pytest.fail) == expected


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
    parser = utils.Parser(prog="program", description="Two\nlines.")
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
