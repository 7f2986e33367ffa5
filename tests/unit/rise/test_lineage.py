"""What something was made of: the records are followed, and what has changed since is said.

python -m pytest tests/unit/rise/test_lineage.py
"""

import hashlib
import json
import re

import pytest

import workflow_convert
from rise.lineage import main
from rise.policies.names import fingerprint
from tests.support.run_dirs import write_run


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """Base -> gen -> data.json -> model -> eval, with the records that the stages write."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / name / "model.safetensors").write_text(name)
    (tmp_path / "experts.py").write_text("")
    base = {"models": ["base", "experts.py:teacher"], "fingerprints": [fingerprint("base"), None]}
    write_run(tmp_path / "gen", "w7 r5", stage="gen", git_commit="1" * 40, **base)
    assert workflow_convert.main(["--filepath", "gen", "--output", "data.json"]) == 0
    record = {
        "settings": {"model_name_or_path": "base", "model_fingerprint": fingerprint("base")}
        | {"learning_rate": 1e-5, "seed": 0},
        "data": {"path": "data.json", "sha256": sha256("data.json")},
        "steps": 3,
        "git_commit": "2" * 40,
    }
    (tmp_path / "model/training.json").write_text(json.dumps(record))
    trained = {"models": ["model"] * 2, "fingerprints": [fingerprint("model")] * 2}
    write_run(tmp_path / "eval", "w7 r5", **trained)
    return tmp_path


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def shown(capsys, *words):
    assert main(list(words)) == 0
    return re.sub(r"\([0-9a-f]{8}", "(#", capsys.readouterr().out)


def test_the_chain_is_followed_to_its_beginning(chain, capsys, monkeypatch):
    report = json.loads((chain / "data.json.report.json").read_text())
    assert report["sha256"] == sha256("data.json") and report["command"]
    capsys.readouterr()
    rows = "rows, criteria all, weights exp, tau 0.4"
    expected = rf"""eval \(#\): eval, 1 problems of gsm8k, seed 0
  model model \(#\): trained, 3 steps at 1e-05, seed 0, commit 22222222
    model base \(#\)
    data data.json \(#\): 2 {rows}(, commit \w+)?
      log gen \(#\): gen, 1 problems of gsm8k, seed 0, commit 11111111
        model base \(#\)
        model experts.py:teacher \(#\)
"""
    found = shown(capsys, "eval")
    assert re.fullmatch(expected, found), found
    # From elsewhere too: the records' paths are those of the directory in which the stages ran.
    (chain / "below").mkdir()
    monkeypatch.chdir(chain / "below")
    assert shown(capsys, "../eval").partition("\n")[2] == found.partition("\n")[2]


def test_what_was_replaced_or_deleted_is_said(chain, capsys):
    (chain / "data.json").write_text("[]")
    (chain / "base" / "model.safetensors").unlink()
    (chain / "gen" / "rows.jsonl").unlink()
    found = shown(capsys, "model")
    assert "data data.json (# CHANGED)" in found and "model base (# CHANGED)" in found
    (chain / "data.json").unlink()
    assert "data data.json (# missing): 2 rows" in shown(capsys, "eval")
    assert main([str(chain)]) == 2
    assert "has no record: give a run directory" in capsys.readouterr().err


def test_a_published_log_is_followed_as_its_run_is(chain, capsys):
    log = chain / "gen" / "2_turns.json"
    log.write_text("{}\n")
    line, *made_of = shown(capsys, str(log)).splitlines()
    assert "gen, 1 problems of gsm8k" in line and len(made_of) >= 2
