"""Iterations: what is refused before anything begins.

python -m pytest tests/journeys/test_iterate_refusals.py
"""

import doctest
import shlex
from pathlib import Path

import pytest

from rise import iterate, iteration_owned
from rise.iteration_plan import plan
from rise.iteration_sources import unusable
from tests.support.iterations import COMMAND, make_folder, planned


@pytest.fixture
def place(tmp_path):
    return lambda name: make_folder(tmp_path / name)


def test_everything_that_is_wrong_is_said_at_once(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    wrong = ["--iterations", "0", "--boost", "no.json", "--launcher", "nothing-like-it", "--seed=1"]
    assert iterate.main([*wrong, "--model", "experts.py:student", "--out", "out"]) == 2
    message = capsys.readouterr().err
    for part in ("--env is missing", "--iterations is 0", "no.json", "nothing-like-it"):
        assert part in message
    assert "experts.py:student cannot be trained" in message


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_arguments_that_a_stage_refuses_are_found_at_the_start(place, monkeypatch, capsys, more):
    monkeypatch.chdir(place("here"))
    assert iterate.main([*shlex.split(COMMAND), "--eval_args=--limt 3", *more]) == 2
    message = capsys.readouterr().err
    assert "nothing was begun" in message and "unrecognized arguments: --limt" in message
    assert not Path("out/eval").exists()


def test_a_temperature_that_the_expert_cannot_have_is_found_at_the_start(
    place, monkeypatch, capsys
):
    monkeypatch.chdir(place("here"))
    words = [*shlex.split(COMMAND), "--expert", "o3-mini", "--dry-run"]
    assert iterate.main([*words, "--gen_args=--prompt_style bare --temperature 1.0 0.7"]) == 2
    said = capsys.readouterr().err
    assert "--temperature 0.7: o3-mini takes no other than 1" in said


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_arguments_that_contradict_each_other_are_found_at_the_start(
    place, monkeypatch, capsys, more
):
    monkeypatch.chdir(place("here"))
    words = ["--boost", "expert", "--gen_args=--temperature 1.0 0.7 --correct_to_correct"]
    words += ["--eval_args=--revise_if_wrong --prompt_style none.json --limit 0"]
    words += ["--convert_args=--to pair_sft --match_tokens out/later.json --only_success"]
    words += ["--train_args=--lora_r 4 --tree_tokens 0"]
    assert iterate.main([*shlex.split(COMMAND), *words, *more]) == 2
    said = capsys.readouterr().err
    for part in (
        "workflow_gen.py: error: --temperature has 2 values for --max_turns 1",
        "--correct_to_correct needs --max_turns 2 or more (boost/gen)",
        "--revise_if_wrong needs --feedback self or critique: a model's own check (base/eval, ",
        "--limit is 0: ",
        "none.json",
        "--only_success says nothing about pairs: leave it out with --to pair_sft (iteration1/conv",
        "--lora_r does nothing without --use_lora True (boost/train, iteration1/train)",
        "--tree_tokens is 0: it must be at least 1 (boost/train, iteration1/train)",
    ):
        assert part in said, said
    assert "later.json" not in said and "data_path" not in said
    assert not Path("out/eval").exists()


@pytest.mark.parametrize("dry", [True, False])
def test_models_and_problems_that_cannot_be_used_are_found_at_the_start(
    place, monkeypatch, capsys, dry
):
    monkeypatch.chdir(place("here"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Path("data").mkdir()
    Path("expert.py").write_text("def one(problem):\n    return ''\n")
    Path("rows.jsonl").write_text('{"query": "1+1?"}\n')
    Path("text.jsonl").write_text("not JSON\n")
    more = ["--dry-run"] if dry else []
    words = ["--model", "data", "--expert", "expert.py:one", "--train_data", "rows.jsonl"]
    words += ["--test_data", "text.jsonl", "--eval_args=--limit 0"]
    assert iterate.main([*shlex.split(COMMAND), *words, *more]) == 2
    said = capsys.readouterr().err
    for part in ("data is a directory without config.json", "expert.py:one is called as one(pr"):
        assert part in said, said
    assert "rows.jsonl" in said and "text.jsonl" in said and "--limit is 0" in said
    # A dry run shows what is planned before the key is there.
    code = iterate.main([*shlex.split(COMMAND), "--expert", "gpt-3.5-turbo", *more])
    shown = capsys.readouterr()
    assert code == (0 if dry else 2)
    assert "OPENAI_API_KEY" in (shown.out if dry else shown.err)
    assert not Path("out/eval").exists()


def test_what_is_done_needs_its_expert_no_longer(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    args = iterate.parse_args([*shlex.split(COMMAND), "--expert", "gpt-3.5-turbo"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stages = plan(args)
    assert "OPENAI_API_KEY" in "".join(unusable(args, stages))
    assert unusable(args, [stage for stage in stages if stage.step != "gen"]) == []


def test_what_iterate_sets_itself_cannot_be_passed_on(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    words = ["--gen_args=--log_dir foo --models a b --num_of_samples 1 4 --max_turns=3 --seed 1"]
    words += [
        "--convert_args=--filepath a --output b --format messages",
        "--eval_args=--model x --data_path y",
    ]
    words += ["--train_args=--model_name_or_path a --data_path b --output_dir c --seed 3"]
    assert iterate.main([*shlex.split(COMMAND), *words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    for part in (
        "--gen_args has --log_dir, which rise.iterate sets: give its --out instead",
        "--gen_args has --models, which rise.iterate sets: give its --model and --expert instead",
        "--gen_args has --num_of_samples, which rise.iterate sets: give its --expert_samples",
        "--gen_args has --max_turns, which rise.iterate sets: it generates an attempt and",
        "--convert_args has --filepath, which rise.iterate sets: give its --pool instead",
        "--train_args has --output_dir, which rise.iterate sets: give its --out instead",
        "--eval_args has --data_path, which rise.iterate sets: give its --test_data instead",
    ):
        assert part in said, said
    assert len(said.splitlines()) == 5 + 3 + 2 + 4
    assert planned("--eval_args=--max_turns 2 --num_of_samples 1", "--gen_args=--limit 3")
    assert doctest.testmod(iteration_owned) == (0, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train_from", "last", "--iterations", "2"], "give --train_from base"),
        (["--boost", "expert"], "leave out --boost expert"),
    ],
)
def test_an_adapter_is_not_trained_further(words, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    command = [*shlex.split(COMMAND), *words, "--dry-run"]
    assert iterate.main([*command, "--train_args=--q_lora True"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(
            f"are no models to train further: {said}"
            + (", or give the boosted model as --model" if "--boost" in words else "")
        )
    )
    assert iterate.main([*command, "--train_args=--use_lora False"]) == 0
