"""Logs that are read piece by piece: the same episodes as from the whole, and in little memory.

python -m pytest tests/unit/rise/episodes/test_log.py
"""

import json
import tracemalloc

import pytest

from rise.episodes.episode import Episode
from rise.episodes.log import EpisodeLog
from rise.episodes.shorthand import sketch


def records(*problems: str) -> dict[str, dict]:
    return {str(episode.task_id): episode.to_dict() for episode in sketch(*problems)}


def episodes(path, text: str) -> list[Episode]:
    path.write_text(text, encoding="utf-8")
    return list(EpisodeLog(path).episodes())


@pytest.fixture
def odd():
    """Records with everything that a scanner may stumble over."""
    found = records("w7 r5", "r5", "- w8")
    texts = ['quote " backslash \\ brace } {', "x² ≤ ½ 🙂 \u2028", "\t{\n}" + "long " * 50]
    for record, text in zip(found.values(), texts, strict=True):
        record["query"] = text
    return found


@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_a_published_log_is_the_same_in_any_form(tmp_path, odd, style):
    expected = [Episode.from_dict(record) for record in odd.values()]
    assert episodes(tmp_path / "2_turns.json", json.dumps(odd, **style)) == expected
    if "indent" not in style:
        lines = [f"{json.dumps(key)}: {json.dumps(odd[key], **style)}" for key in odd]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        assert episodes(tmp_path / "2_turns.json", text) == expected


def test_an_empty_log_has_no_episode(tmp_path):
    assert episodes(tmp_path / "2_turns.json", " { } \n") == []
    assert episodes(tmp_path / "rows.jsonl", "") == []


def test_the_last_finished_row_of_a_problem_counts_and_order_is_by_problem(tmp_path):
    first, second, third = records("w7", "w8", "w9").values()
    again = first | {"query": "asked again"}
    failed = second | {"error": {"kind": "timeout", "message": "", "turn": 1}}
    lines = [third, first, second, failed, again]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    found = episodes(tmp_path / "rows.jsonl", text)
    assert [episode.task_id for episode in found] == [0, 1, 2]
    assert found[0].query == "asked again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not an object of episodes keyed by index"),
        ("", "is empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:x\n", "git lfs pull"),
        ("PK\x03\x04", "compressed, so unpack it"),
        ("[" * 100_000, "not valid JSON"),
        ('{"0": GOOD', "not valid JSON"),
        ('{"0": GOOD,\n"1": {"task_id": 1, oops}}', "line 2"),
        ('{"0": GOOD,\n\n"1": {"task_id": "x}', "line 3"),
        ('{"0": GOOD "1": GOOD}', "not valid JSON"),
        ('{"0": GOOD} {}', "not valid JSON"),
        ('{"0" GOOD}', "not valid JSON"),
        ('{\n"0": GOOD,\n', "not valid JSON"),
        ('{\n"0": GOOD,\n"1": {"task_id": 1, oops}\n}', "line 3"),
        ('{\n"0": GOOD,\n"1": {"task_id": 1}\n}', 'line 3: an episode is an object with a "turn_h'),
        ('{"0": 7}', 'key "0": this is no episode'),
        ('{"0": {"query": ""}}', 'key "0": this is no episode'),
        ('{"0": GOOD,\n"1": {"task_id": 1}}', 'an episode is an object with a "turn_h'),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, text, message):
    good = json.dumps(records("w7 r5")["0"])
    with pytest.raises(ValueError, match=message) as caught:
        episodes(tmp_path / "2_turns.json", text.replace("GOOD", good))
    assert str(tmp_path / "2_turns.json") in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("best_actions", 3),
        ("rewards", [1]),
        ("actions", {}),
        ("rewards", {"0": None, "1": [1]}),
        ("actions", {"0": [None], "1": ["5"]}),
        ("rewards", {"0": ["0"], "1": [1]}),
    ],
)
def test_a_record_of_another_shape_is_named_by_its_line(tmp_path, key, value):
    good, bad = records("w7 r5", "w7 r5").values()
    bad["turn_history"][key] = value
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: .*take it out of the log"):
        episodes(tmp_path / "rows.jsonl", json.dumps(good) + "\n" + json.dumps(bad) + "\n")


def test_a_file_that_git_lfs_has_not_fetched_is_named(tmp_path):
    with pytest.raises(ValueError, match="rows.jsonl is a pointer .*git lfs pull"):
        episodes(tmp_path / "rows.jsonl", "version https://git-lfs.github.com/spec/v1\noid x\n")


@pytest.mark.parametrize("name", ["rows.jsonl", "2_turns.json"])
def test_memory_does_not_grow_with_the_log(tmp_path, name):
    path = tmp_path / name
    template = records("w7 r5")["0"] | {"answer": "x" * 20_000}
    with open(path, "w") as file:
        file.write("" if name == "rows.jsonl" else "{\n")
        for task_id in range(1500):
            record = json.dumps(template | {"task_id": task_id})
            start = "" if name == "rows.jsonl" else f'"{task_id}": '
            end = "," if start and task_id < 1499 else ""
            file.write(f"{start}{record}{end}\n")
        file.write("" if name == "rows.jsonl" else "}")
    assert path.stat().st_size > 30e6
    tracemalloc.start()
    count = sum(1 for _ in EpisodeLog(path).episodes())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1500 and peak < 8e6
