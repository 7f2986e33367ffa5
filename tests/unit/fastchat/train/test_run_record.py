"""What counts as the same training run: the files of the model, not only its path.

python -m pytest tests/unit/fastchat/train/test_run_record.py
"""

import json
import shutil
from pathlib import Path

import pytest

from fastchat.conversation import BUILT_IN
from fastchat.model.files import SAMPLED_BYTES, fingerprint
from fastchat.train.run_record import evaluation
from fastchat.train.train import main
from tests.support.tiny import save_tiny_model
from tests.support.training_data import command, figures, make_case, rows, write_rows


def test_other_weights_and_templates_under_the_same_paths_are_refused(tmp_path, capsys):
    case, file = make_case(tmp_path), tmp_path / "chat.jinja"
    file.write_text(BUILT_IN["chatml"])
    words = command(case, tmp_path / "out", "--max_steps", "1", "--chat_template", str(file))
    assert main(words) == 0
    for path, recorded in ((case[0] / "model.safetensors", "model_fingerprint"), (file, "chat_t")):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        capsys.readouterr()
        assert main(words) == 2
        assert recorded in capsys.readouterr().err
        path.write_bytes(content)
    assert main(words) == 0
    other = write_rows(tmp_path / "other.json", rows(3))
    assert main([*words, "--data_path", str(other)]) == 2
    assert f"settings: data_path (was {case[1]}, is {other}): name" in capsys.readouterr().err
    other.write_text('[{"instruction": "q", "output": "a"}]')
    assert main([*words, "--data_path", str(other)]) == 2
    assert f"--data_path {other}, row 0: a row must be" in capsys.readouterr().err


def test_another_adapter_under_the_same_path_is_refused(tmp_path, capsys):
    case, adapter, output = make_case(tmp_path), tmp_path / "adapter", tmp_path / "out"
    lora = ("--max_steps", "1", "--use_lora", "True")
    assert main(command(case, adapter, *lora)) == 0
    more = (*lora, "--lora_weight_path", str(adapter))
    assert main(command(case, output, *more)) == 0
    assert main(command(case, adapter, *lora, "--overwrite_output_dir", rate="1e-2")) == 0
    capsys.readouterr()
    assert main(command(case, output, *more)) == 2
    assert "adapter_fingerprint (the content has changed)" in capsys.readouterr().err


def test_a_run_that_saved_nothing_does_not_bind_the_next_one(tmp_path, capsys):
    case, output = make_case(tmp_path), tmp_path / "out"
    assert main(command(case, output, "--max_steps", "1")) == 0
    record = json.loads((output / "training.json").read_text())
    (output / "training.json").write_text(json.dumps(record | {"status": "running"}))
    other = command(case, output, "--max_steps", "1", rate="1e-2")
    assert main(other) == 2, "there is a checkpoint of the other run"
    for path in output.glob("checkpoint-*"):
        shutil.rmtree(path)
    assert main(other) == 2, "there are weights of the other run"
    (output / "model.safetensors").unlink()
    capsys.readouterr()
    assert main(other) == 0
    assert "ended before it saved anything" in capsys.readouterr().out
    assert json.loads((output / "training.json").read_text())["settings"]["learning_rate"] == 1e-2


def test_every_file_of_a_model_counts_and_a_name_of_the_hub_has_none(tmp_path):
    model = save_tiny_model(tmp_path / "model")
    before = fingerprint(str(model))
    (model / "training.json").write_text("{}")
    assert fingerprint(str(model)) == before
    for name in ("config.json", "tokenizer.json", "more.safetensors"):
        with (model / name).open("ab") as file:
            file.write(b" " * (SAMPLED_BYTES + 1))
        assert fingerprint(str(model)) != before
        before = fingerprint(str(model))
    assert fingerprint("hf:ORG/NAME") is None
    (tmp_path / "package").mkdir()
    assert fingerprint(tmp_path / "package") is None


@pytest.mark.parametrize(
    ("env", "styles", "words"),
    [
        (None, {"log/a": "bare", "log/b": "bare"}, "data/gsm8k/test.jsonl --env gsm8k {} bare"),
        ("math", {"log/a": "default"}, "data/math/test.jsonl --env math --max_turns"),
        ("svamp", {"log/a": "my style.json"}, "TEST.jsonl --env svamp {} 'my style.json'"),
        (None, {"log/a": "bare", "log/b": "default"}, "--env gsm8k --max_turns"),
        (None, {"log/a": "as logged, bare where that has none"}, "--env gsm8k --max_turns"),
    ],
)
def test_the_next_command_asks_as_the_data_was_asked(tmp_path, env, styles, words):
    data = tmp_path / "data.json"
    assert "--env gsm8k --max_turns 5" in evaluation(str(data), tmp_path / "rise")
    report = {"settings": {"env": env}, "prompt_styles": styles}
    Path(f"{data}.report.json").write_text(json.dumps(report))
    said = evaluation(str(data), tmp_path / "rise")
    assert words.format("--prompt_style") in said
    assert said.endswith("--num_of_samples 1 1 1 1 1 --context_window 2 --log_dir log/eval/rise")


def test_other_data_or_rules_for_the_choice_of_the_best_checkpoint_are_refused(tmp_path, capsys):
    case, output = make_case(tmp_path), tmp_path / "out"
    held_out = write_rows(tmp_path / "eval.json", rows(3))
    words = command(case, output, "--max_steps", "2", "--eval_data_path", str(held_out))
    words += ["--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1"]
    best = ["--load_best_model_at_end", "True"]
    assert main([*words, *best]) == 0
    assert main([*words, *best]) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    write_rows(held_out, rows(4))
    assert main([*words, *best, "--eval_steps", "2", "--save_steps", "2"]) == 2
    said = capsys.readouterr().err
    assert "eval_data_sha256 (the content has changed)" in said
    assert "eval_steps (was 1.0, is 2)" in said and "save_steps (was 1.0, is 2)" in said
    assert main(words) == 2
    assert "load_best_model_at_end (was True, is False)" in capsys.readouterr().err


def test_a_record_from_before_fingerprints_and_the_best_checkpoint_counted_is_accepted(
    tmp_path, capsys
):
    case, output = make_case(tmp_path), tmp_path / "out"
    assert main(command(case, output, "--max_steps", "1")) == 0
    record = json.loads((output / "training.json").read_text())
    del record["settings"]["model_fingerprint"], record["settings"]["load_best_model_at_end"]
    (output / "training.json").write_text(json.dumps(record))
    more = ["--eval_data_path", str(case[1]), "--eval_strategy", "steps", "--eval_steps", "2"]
    assert main(command(case, output, "--max_steps", "1", *more, "--load_best_model_at_end")) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "model.safetensors is missing"),
        ("tokenizer.json", "tokenizer.json is missing"),
        ("unrecorded", "holds 0 of its "),
        ("torn", "its weights cannot be read ("),
    ],
)
def test_what_a_finished_run_has_lost_is_made_again(
    case, finished, tmp_path, capsys, name, said, checkpoints
):
    output = shutil.copytree(finished, tmp_path / "out")
    weights = output / "model.safetensors"
    before = weights.read_bytes()
    if name == "torn":
        weights.write_bytes(before[:9])
    else:
        (weights if name == "unrecorded" else output / name).unlink()
    if name == "unrecorded":
        record = json.loads((output / "training.json").read_text())
        del record["files"]
        (output / "training.json").write_text(json.dumps(record))
    for directory in () if checkpoints else output.glob("checkpoint-*"):
        shutil.rmtree(directory)
    assert main(command(case, output)) == 0
    printed = capsys.readouterr().out
    assert f"{output} was finished, but {said}" in printed
    assert (f"resuming from {output}/checkpoint-6" in printed) == checkpoints
    assert weights.read_bytes() == before
    assert figures(output) == figures(finished)
    assert main(command(case, output)) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_a_finished_run_is_left_alone_whatever_was_added(case, finished, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "out")
    before = (output / "training.json").read_bytes()
    (output / "notes.md").write_text("a model card")
    shutil.copy(output / "model.safetensors", output / "copy.safetensors")
    assert main(command(case, output)) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert (output / "training.json").read_bytes() == before
