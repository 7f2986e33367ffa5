"""The trainer's command in one process: refusals, resuming, what is saved.

python -m pytest tests/unit/fastchat/train/test_train.py
"""

import json
import shutil
import signal

import pytest
import torch
from transformers import AutoTokenizer

from fastchat.model.model_adapter import computes_bfloat16, load_model
from fastchat.train import signals
from fastchat.train.arguments import TrainingArguments
from fastchat.train.checkpoints import checkpoints, mark_complete, rotate
from fastchat.train.rwr_trainer import StopAtSignal
from fastchat.train.train import main
from tests.support.tiny import save_tiny_model
from tests.support.training_data import command, figures, record


def test_the_checkpoint_is_complete_and_carries_its_chat_template(case, finished):
    model = load_model(finished, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert model.num_parameters() == record(finished)["parameters"]
    assert model.config.use_cache
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(case[0]).chat_template
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    before = load_model(case[0], device="cpu").get_input_embeddings().weight
    assert not torch.equal(model.get_input_embeddings().weight, before)
    assert not list(finished.glob(".*")), "the lock is gone"


def test_the_record_says_what_was_done_and_what_users_of_the_hf_trainer_look_for_is_there(finished):
    written = record(finished)
    assert (written["status"], written["steps"]) == ("finished", 6)
    assert (written["data"]["rows"], written["data"]["examples"]) == (10, 10)
    assert written["data"]["dropped"] == 0
    assert len(written["data"]["sha256"]) == 64
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert len(figures(finished)) == len(figures(finished, "grad_norm")) == 6
    state = json.loads((finished / "trainer_state.json").read_text())
    assert state["global_step"] == 6 and len(state["log_history"]) == 7
    results = json.loads((finished / "train_results.json").read_text())
    assert results["train_samples"] == 10 and results["train_loss"] == pytest.approx(
        sum(figures(finished)) / 6
    )
    assert json.loads((finished / "all_results.json").read_text()) == results


def test_a_sample_the_length_and_the_next_command_are_printed(case, tmp_path, capsys):
    output = tmp_path / "my models"
    more = ["--max_steps", "1", "--model_max_length", "9999", "--bf16", "True"]
    assert main(command(case, output, *more)) == 0
    printed = capsys.readouterr().out
    assert "<|im_start|>assistant\n[TRAINED>>>It is \\boxed{1}.<|im_end|><<<TRAINED]" in printed
    assert "batching: prefix trees\nattention: prefix_tree" in printed
    assert printed.index("TRAINED") < printed.index("'loss'")
    assert "the model has 2048 positions" in printed
    assert ("--bf16 True is several times slower" in printed) != computes_bfloat16()
    assert f"next: python workflow_eval.py --model '{output}' " in printed


def test_other_settings_are_refused_naming_them(case, finished, capsys):
    other = ["--learning_rate", "5e-4", "--seed", "1", "--group_trajectories", "True"]
    assert main(command(case, finished, *other)) == 2
    error = capsys.readouterr().err
    assert "group_trajectories (was False, is True)" in error
    assert "learning_rate (was 0.001, is 0.0005)" in error
    assert "seed (was 42, is 1)" in error


def test_overwriting_trains_anew(case, finished, tmp_path):
    output = shutil.copytree(finished, tmp_path / "out")
    assert main(command(case, output, "--overwrite_output_dir", "--max_steps", "1")) == 0
    assert record(output)["steps"] == 1
    assert not (output / "checkpoint-4").exists()


@pytest.mark.parametrize("adapter_first", [False, True])
def test_overwriting_leaves_nothing_of_another_kind_of_model(case, tmp_path, adapter_first):
    output, kinds = tmp_path / "out", [[], ["--use_lora", "True"]]
    for more in reversed(kinds) if adapter_first else kinds:
        once = ["--overwrite_output_dir", "--max_steps", "1", *more]
        assert main(command(case, output, *once)) == 0
    names = {path.name for path in output.iterdir()}
    assert ("model.safetensors" in names) == ("config.json" in names) == adapter_first
    assert ("adapter_config.json" in names) == (not adapter_first)


def test_the_old_checkpoint_stays_until_the_new_one_is_complete(case, tmp_path, monkeypatch):
    marked, output = [], tmp_path / "out"

    def mark(directory, step, processes):
        marked.append(sorted(path.name for path in directory.parent.glob("checkpoint-*")))
        mark_complete(directory, step, processes)

    monkeypatch.setattr("fastchat.train.rwr_trainer.mark_complete", mark)
    assert main(command(case, output, "--save_steps", "2", "--save_total_limit", "1")) == 0
    assert marked[1] == ["checkpoint-2", "checkpoint-4"]
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-6"]


def test_rotation_spares_the_best_and_the_newest(tmp_path):
    for step in (2, 4, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    rotate(tmp_path, None, None)
    assert len(checkpoints(tmp_path)) == 4
    rotate(tmp_path, 2, str(tmp_path / "checkpoint-2"))
    assert {path.name for path in checkpoints(tmp_path)} == {"checkpoint-2", "checkpoint-20"}
    rotate(tmp_path, 1, str(tmp_path / "checkpoint-2"))
    assert len(checkpoints(tmp_path)) == 2


def test_a_refusal_deletes_nothing(case, finished, tmp_path):
    output = shutil.copytree(finished, tmp_path / "out")
    data = tmp_path / "bad.json"
    data.write_text("[{")
    assert main(command((case[0], data), output, "--overwrite_output_dir")) == 2
    assert (output / "checkpoint-4").exists() and record(output)["status"] == "finished"


def test_a_published_generation_config_can_be_saved_again(case, tmp_path):
    model = shutil.copytree(case[0], tmp_path / "model")
    path = model / "generation_config.json"
    settings = json.loads(path.read_text()) | {"temperature": 0.9, "top_p": 0.6, "pad_token_id": 7}
    path.write_text(json.dumps(settings | {"do_sample": False}))
    assert main(command((model, case[1]), tmp_path / "out", "--max_steps", "1")) == 0
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["do_sample"]) == (0.9, True)


def interrupted(finished, output, last=4):
    """A copy of a run as a killed process leaves it: checkpoints, but no end."""
    shutil.copytree(finished, output)
    written = record(output) | {"status": "running"}
    (output / "training.json").write_text(json.dumps(written))
    for directory in output.glob("checkpoint-*"):
        if int(directory.name.split("-")[1]) > last:
            shutil.rmtree(directory)
    return output


def test_resuming_repeats_the_same_losses(case, finished, tmp_path, capsys):
    output = interrupted(finished, tmp_path / "out")
    assert main(command(case, output)) == 0
    assert f"resuming from {output}/checkpoint-4" in capsys.readouterr().out
    assert figures(output) == figures(finished)
    assert figures(output, "grad_norm") == figures(finished, "grad_norm")


BEST = ["--load_best_model_at_end", "True", "--metric_for_best_model", "eval_loss"]
BEST += ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--save_total_limit", "1"]
BEST += ["--eval_data_path"]


@pytest.fixture(scope="module")
def best(case, tmp_path_factory):
    output = tmp_path_factory.mktemp("best") / "out"
    assert main(command(case, output, *BEST, str(case[1]))) == 0
    return output


def stopped(step, words, monkeypatch):
    """The exit code of a training that gets a signal in a step."""

    class Signalled(StopAtSignal):
        def on_log(self, args, state, control, **more):
            if state.global_step == step - 1:
                monkeypatch.setattr(signals.State, "number", signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr("fastchat.train.rwr_trainer.StopAtSignal", Signalled)
        return main(words)


@pytest.mark.parametrize("step", [2, 3, 6])  # within an epoch, at its end, at the last step
def test_a_signal_ends_with_a_checkpoint_and_the_same_losses_follow(
    case, best, tmp_path, capsys, monkeypatch, step
):
    output = tmp_path / "out"
    words = command(case, output, *BEST, str(case[1]))
    assert stopped(step, words, monkeypatch) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"train_mem.py: SIGUSR1: stopped after step {step} of 6, which is saved; the same command "
        "goes on from the last checkpoint, if any"
    )
    assert (output / f"checkpoint-{step}/complete.json").exists()
    monkeypatch.undo()
    assert main(words) == 0
    for key in ("loss", "grad_norm", "eval_loss", "learning_rate"):
        assert figures(output, key) == figures(best, key)
    models = [(path / "model.safetensors").read_bytes() for path in (best, output)]
    assert models[0] == models[1]
    assert len(list(output.glob("checkpoint-*"))) == len(list(best.glob("checkpoint-*")))


WORSE = ["best", "--metric_for_best_model", "eval_loss", "--greater_is_better", "True"]
WORSE += ["--eval_strategy", "steps", "--eval_steps", "1", "--eval_data_path"]


@pytest.mark.parametrize("strategy", ["best", "no"])
def test_a_signal_saves_though_the_strategy_would_not(
    case, finished, tmp_path, monkeypatch, strategy
):
    output = tmp_path / "out"
    more = [*WORSE, str(case[1])] if strategy == "best" else ["no"]
    words = command(case, output, "--save_strategy", *more)
    assert stopped(4, words, monkeypatch) == 143
    assert (output / "checkpoint-4/complete.json").exists()
    monkeypatch.undo()
    assert main(words) == 0
    assert figures(output) == figures(finished)
    assert (output / "checkpoint-4").exists() == (strategy == "best")


@pytest.mark.parametrize("damage", ["no mark", "short file"])
def test_a_torn_checkpoint_is_skipped_with_a_notice(
    case, finished, tmp_path, capsys, caplog, damage
):
    output = interrupted(finished, tmp_path / "out")
    torn = output / "checkpoint-4"
    if damage == "no mark":
        (torn / "complete.json").unlink()
    else:
        weights = torn / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    assert main(command(case, output)) == 0
    assert f"{torn} is incomplete" in caplog.text
    assert f"resuming from {output}/checkpoint-2" in capsys.readouterr().out
    assert figures(output) == figures(finished)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batching", "padded"], "attention: sdpa"),
        (["--tree_tokens", "100"], "attention: prefix_tree"),
    ],
)
def test_the_layout_of_batches_changes_no_loss(case, finished, tmp_path, capsys, more, said):
    assert main(command(case, tmp_path / "out", *more)) == 0
    assert said in capsys.readouterr().out
    assert figures(tmp_path / "out") == pytest.approx(figures(finished), rel=1e-4)


def test_the_data_seed_decides_the_order_alone(case, finished, tmp_path):
    assert main(command(case, tmp_path / "out", "--data_seed", "7", "--max_steps", "2")) == 0
    assert figures(tmp_path / "out")[0] != figures(finished)[0]


def test_evaluation_rows_are_reported(case, tmp_path):
    more = ["--eval_data_path", str(case[1]), "--evaluation_strategy", "steps"]
    more += ["--eval_steps", "2", "--max_steps", "4", "--per_device_eval_batch_size", "1"]
    assert main(command(case, tmp_path / "out", *more)) == 0
    losses = figures(tmp_path / "out", "eval_loss")
    assert len(losses) == 2 and losses[1] < losses[0]


def test_a_template_named_on_the_command_line_is_saved(case, tmp_path):
    model = save_tiny_model(tmp_path / "bare", template="chatml", installed=False)
    more = ["--chat-template", "chatml", "--max_steps", "1"]
    assert main(command((model, case[1]), tmp_path / "out", *more)) == 0
    saved = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert saved == AutoTokenizer.from_pretrained(case[0]).chat_template


def test_a_loss_that_is_not_finite_fails_and_names_the_rows(case, tmp_path, capsys):
    from transformers import AutoModelForCausalLM

    model = shutil.copytree(case[0], tmp_path / "broken")
    weights = AutoModelForCausalLM.from_pretrained(model)
    weights.lm_head.weight.data[5] = float("nan")
    weights.save_pretrained(model)
    assert main(command((model, case[1]), tmp_path / "out")) == 1
    assert "the loss of step 1 is not finite in these rows: 0-" in capsys.readouterr().err


@pytest.mark.parametrize("gpu", [True, False])
def test_on_a_gpu_tf32_is_set_so_that_torch_compiles_and_the_optimizer_is_fused(
    monkeypatch, tmp_path, gpu
):
    precisions = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setattr("transformers.utils.is_torch_tf32_available", lambda: gpu)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", tf32=True)
    assert args.tf32 is None and precisions == ["high"] * gpu
    assert args.optim == "adamw_torch" + "_fused" * gpu
