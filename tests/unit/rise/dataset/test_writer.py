"""The files of a conversion: the old ones stay until the new ones are made.

python -m pytest tests/unit/rise/dataset/test_writer.py
"""

import json

import pytest

from rise.dataset.writer import write_dataset
from rise.episodes.shorthand import sketch
from tests.support.conversion import convert_and_draw, write_run


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("problems", "flags"),
    [
        # The weights of the two right answers at turn 2 differ by their rounding alone.
        (
            ["w7,w8 r5,r5,w9", "w7,w8,w9,w1,w2,w3 r5,r5,r5,r5"],
            ["--criteria", "success", "--weighting", "centered"],
        ),
        (["w7 r5", "w7 r5"], ["--criteria", "success", "--temperature", "0.02"]),
        (["w7 r5", "- r5"], ["--temperature", "0.002"]),
        (["w7 r5", "- r5"], ["--temperature", "0.002", "--weighting", "centered"]),
    ],
)
def test_weights_that_are_nearly_equal_or_large_are_written_and_drawn(tmp_path, problems, flags):
    write_run(tmp_path / "run", sketch(*problems))
    output = tmp_path / "made" / "data.json"
    run = ("--filepath", tmp_path / "run", "--output", output)
    assert convert_and_draw(*run, *flags) == 0
    report = json.loads((output.parent / "data.json.report.json").read_text())
    assert len(json.loads(output.read_text())) == report["rows"] > 1
    assert 1 < report["weights"]["effective_sample_size"] < report["rows"] + 1e-9
    assert report["weights"]["min"] <= report["weights"]["mean"] <= report["weights"]["max"]
    assert (output.parent / "data.json_hist.png").stat().st_size > 1000
    assert len(contents(output.parent)) == 3


def rows(*, then: BaseException | None = None):
    yield b'{"new": 1}'
    if then:
        raise then


@pytest.mark.parametrize("where", ["rows", "report", "picture"])
def test_what_fails_leaves_the_old_files_as_they_were(tmp_path, monkeypatch, where):
    output = tmp_path / "data.json"
    write_dataset(output, rows(), {"settings": {"old": True}}, [1.0, 2.0])
    before = contents(tmp_path)
    assert len(before) == 3
    if where == "picture":
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    new = rows(then=OSError(28, "No space left on device") if where == "rows" else None)
    report = {"settings": object() if where == "report" else {}}
    with pytest.raises((OSError, TypeError)):
        write_dataset(output, new, report, [3.0, 4.0])
    assert contents(tmp_path) == before


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_picture_that_cannot_be_drawn_costs_no_row(tmp_path, caplog):
    output = tmp_path / "data.json"
    write_dataset(output, rows(), {"settings": {"old": True}}, [1.0, 2.0])
    written = write_dataset(output, rows(), {"settings": {}}, [1.7e308, 1.7e308])
    assert json.loads(output.read_text()) == [{"new": 1}]
    assert "the weights, 1.7e+308 to 1.7e+308, cannot be drawn" in caplog.text
    # A picture of the old rows must not stand beside the new ones.
    assert sorted(written) == sorted(tmp_path.iterdir()) and len(written) == 2
