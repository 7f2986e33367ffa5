"""--check: what contradicts itself is said before an earlier stage has made anything.

python -m pytest tests/unit/test_check.py
"""

import pytest

import workflow_convert
from fastchat.utils import GO_TOGETHER
from tests.support.run_dirs import write_run
from tests.support.stages import call, files_in, run_main, write_inputs


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path, problems=3)
    return tmp_path


def gen(place, *words, models=("out/later/model", "experts.py:teacher"), code=0):
    own = ["--log_dir", "out/gen", "--max_turns", 2, "--models", *models]
    return call(place, "workflow_gen.py", *own, *words, "--check", code=code)


def evaluate(place, *words, model="out/later/model", code=0):
    own = ("--log_dir", "out/eval", "--model", model)
    return call(place, "workflow_eval.py", *own, *words, "--check", code=code)


def convert(*words, code=0):
    return run_main(workflow_convert.main, "workflow_convert.py", *words, "--check", code=code)


def train(case, output, *words, code=0, **missing):
    from fastchat.train.train import main
    from tests.support.training_data import command

    argv = command(case, output, *words, "--check")
    for flag, value in missing.items():
        argv[argv.index(f"--{flag}") + 1] = str(value)
    return run_main(main, "train_mem.py", *argv, code=code)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    from tests.support.training_data import make_case

    return make_case(tmp_path_factory.mktemp("case"))


def test_what_an_earlier_stage_makes_may_be_missing_and_nothing_is_written(place, case):
    (place / "out/later/model/checkpoint-4").mkdir(parents=True)
    (place / "out/later/model/training.json").write_text('{"status": "running"}')
    before = files_in(place)
    missing = {"model_name_or_path": place / "no/such/model", "data_path": place / "no.json"}
    for done in (
        gen(place),
        gen(place, models=("out/nothing/model",)),
        evaluate(place),
        convert("--filepath", place / "out/gen", "--output", place / "d", "--match_tokens", "no"),
        train(case, place / "trained", **missing),
        train(case, place / "trained", model_name_or_path=place / "out/later/model"),
    ):
        assert done.stdout == f"{GO_TOGETHER}\n"
    assert files_in(place) == before


def test_everything_that_is_wrong_is_said_and_a_run_of_other_settings_found(place):
    write_run(place / "out/eval", "w7 r5", stage="eval")
    wrong = evaluate(place, "--max_turns", 2, model="experts.py:teacher", code=2)
    assert "holds a run of another configuration" in wrong.stderr
    wrong = gen(place, "--limit", 0, models=("out/later/model", "gpt-3.5-turbo"), code=2)
    assert "OPENAI_API_KEY" in wrong.stderr and "--limit is 0" in wrong.stderr


def test_conversion_says_what_does_nothing_and_reads_the_logs_that_are_there(place):
    log = write_run(place / "eval", "w7 r5", stage="eval")
    paths = ["--filepath", log, place / "later", "--output", place / "rows.json"]
    words = ("--to", "pair_sft", "--only_success", "--env", "no.py:Env")
    wrong = convert(*paths, *words, code=2)
    assert "is an evaluation" in wrong.stderr and "no.py" in wrong.stderr
    assert "--only_success says nothing about pairs: leave it out" in wrong.stderr


def test_the_trainer_finds_flags_tokens_and_templates(case, place):
    wrong = train(case, place / "trained", "--lora_r", "4", "--tree_tokens", "0", code=2)
    assert "--lora_r does nothing without --use_lora" in wrong.stderr
    assert "--tree_tokens is 0: it must be at least 1" in wrong.stderr
    wrong = train(case, place / "trained", "--lerning_rate", "1e-5", code=2)
    assert "did you mean --learning_rate?" in wrong.stderr
    wrong = train(case, place / "trained", "--chat_template", "no.jinja", code=2)
    assert "no.jinja" in wrong.stderr
    assert not list(place.glob("tr*"))
