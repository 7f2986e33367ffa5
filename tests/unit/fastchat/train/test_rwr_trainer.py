"""The loss and its gradient against a naive reference, whatever the split; statistics; guards.

python -m pytest tests/unit/fastchat/train/test_rwr_trainer.py
"""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.train.data.batches import Collator
from fastchat.train.data.rwr_dataset import Example
from fastchat.train.rwr_trainer import TrainingError, action_nll, rwr_loss
from tests.support.tiny import save_tiny_model
from tests.support.training_data import make_case, rows, write_rows
from tests.support.training_steps import (
    assert_same_step,
    first_step,
    make_trainer,
    naive_step,
    windowed,
)

WEIGHTS = [math.exp(1 / 0.4), 1.0, math.exp(-1 / 0.4), -3.0, 0.0]
"""Right, wrong and unanswered under exp; worse than average and average under centered."""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    directory = tmp_path_factory.mktemp("case")
    model, data = make_case(directory)
    content = rows(10)
    for index, row in enumerate(content):
        row["weight"] = row["conversations"][-1]["loss"] = WEIGHTS[index % len(WEIGHTS)]
    return model, write_rows(data, content), directory


@pytest.fixture(scope="module")
def definition(case):
    """Loss and gradients of all rows of the case."""
    return naive_step(case, list(make_trainer(case).train_dataset))


def test_cudnn_which_plans_for_every_shape_computes_no_attention(case):
    torch.backends.cuda.enable_cudnn_sdp(True)
    make_trainer(case)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(
    ("size", "accumulation", "checkpointing"),
    [(10, 1, False), (1, 10, False), (4, 3, False), (3, 4, True)],
)
@pytest.mark.parametrize(
    "layout",
    [{"batching": "padded"}, {}, {"tree_tokens": 200}],
    ids=["padded", "one tree", "several trees"],
)
def test_loss_and_gradient_equal_the_definition(
    case, definition, layout, size, accumulation, checkpointing
):
    trainer = make_trainer(
        case,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=checkpointing,
        **layout,
    )
    assert_same_step(first_step(trainer), definition)


def test_trees_compute_fewer_tokens_and_logits_at_trained_positions_only(case):
    trainer = make_trainer(case, per_device_train_batch_size=10)
    (batch,) = next(iter(trainer.get_train_dataloader()))["passes"]
    assert batch["input_ids"].numel() < 0.9 * batch["tokens"]
    trained = {(e.row, t) for e in trainer.train_dataset for t in e.input_ids[e.action_start :]}
    assert batch["positions"].numel() <= len(batch["targets"])
    assert len(batch["targets"]) >= len(trained)
    seen = []
    trainer.model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    trainer._tree_checked = True
    trainer.training_step(trainer.model, {"passes": [batch], "examples": 10}, 10)
    assert seen[0][1] == batch["positions"].numel()


@pytest.mark.parametrize("tree_tokens", [1, 9, 10_000])
def test_duplicates_prefixes_and_strangers_are_exact_on_trees(case, tree_tokens):
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 10], [5, 6, 7, 8], [5, 6, 7], [30, 31, 32, 33]]
    starts, weights = [3, 2, 2, 1, 1], [12.0, -3.0, 1.0, 0.0, 0.08]
    examples = [
        Example(str(index), ids, start, weight, None)
        for index, (ids, start, weight) in enumerate(zip(rows, starts, weights, strict=True))
    ]
    trainer = make_trainer(case, per_device_train_batch_size=5, tree_tokens=tree_tokens)
    trainer.train_dataset._examples[:] = examples
    trainer.train_dataset.lengths[:] = map(len, rows)
    assert_same_step(first_step(trainer), naive_step(case, examples))


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma3"])
def test_sliding_windows_are_exact_on_trees(case, tmp_path, family):
    torch.manual_seed(0)
    config = windowed(family)
    assert config.sliding_window == 16
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    other = (tmp_path, *case[1:])
    trainer = make_trainer(other, per_device_train_batch_size=10)
    assert trainer.trees and min(trainer.train_dataset.lengths) > 16
    assert_same_step(first_step(trainer), naive_step(other, list(trainer.train_dataset)))


@pytest.mark.parametrize("batching", ["padded", "tree"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma"])
def test_other_families_are_exact(case, tmp_path, family, batching):
    other = (save_tiny_model(tmp_path / family, family), *case[1:])
    trainer = make_trainer(other, per_device_train_batch_size=10, batching=batching)
    assert trainer.trees == (batching == "tree")
    assert_same_step(first_step(trainer), naive_step(other, list(trainer.train_dataset)))


def test_weight_one_is_the_supervised_loss_of_transformers(case, tmp_path):
    data = write_rows(tmp_path / "ones.json", rows(4, weight=1.0))
    trainer = make_trainer(case, dtype=torch.float32, data=data, per_device_train_batch_size=4)
    loss, _ = first_step(trainer)
    collate = Collator(0)
    singles = [collate([trainer.train_dataset[i]]) for i in range(4)]
    with torch.no_grad():
        expected = [
            trainer.model(input_ids=one["input_ids"], labels=one["labels"]).loss.item()
            for one in singles
        ]
    assert loss == pytest.approx(sum(expected) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("split", "layout"),
    [((1, 4), {}), ((2, 2), {"batching": "padded"}), ((1, 4), {"tree_tokens": 150})],
)
def test_logged_losses_do_not_depend_on_accumulation_and_layout(case, split, layout):
    def log(size, accumulation, **layout):
        trainer = make_trainer(
            case,
            **layout,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-3,
            num_train_epochs=2,
        )
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    whole, parts = log(4, 1), log(*split, **layout)
    assert len(whole) == 6  # 10 rows in steps of 4: the third step of an epoch has 2
    for key in ("loss", "grad_norm", "nll", "effective_samples", "learning_rate"):
        assert [e[key] for e in parts] == pytest.approx([e[key] for e in whole], rel=1e-6)


def test_every_epoch_takes_the_rows_in_another_order(case):
    trainer = make_trainer(
        case, per_device_train_batch_size=5, learning_rate=0.0, num_train_epochs=2
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[:2]) == pytest.approx(sum(losses[2:]))
    assert losses[0] != pytest.approx(losses[2])


def test_hand_worked_loss():
    # Two examples over three tokens; p of the targets: 1/2 and 1/4 for the first, 1/8 once.
    p = [[[0.5, 0.3, 0.2], [0.25, 0.5, 0.25]], [[0.125, 0.5, 0.375], [1 / 3] * 3]]
    logits = torch.tensor(p, dtype=torch.float64).log()
    targets = torch.tensor([[0, 0], [0, -100]])
    nll = action_nll(logits, targets)
    assert nll.tolist() == pytest.approx([1.5 * math.log(2), 3 * math.log(2)])
    loss = rwr_loss(nll, torch.tensor([2.0, -0.5]), 4)
    assert loss.item() == pytest.approx((2 * 1.5 - 0.5 * 3) * math.log(2) / 4)


def test_the_log_splits_nll_by_reward_and_weighs_the_weights(case):
    trainer = make_trainer(case, per_device_train_batch_size=10, max_steps=1)
    trainer.train()
    entry = trainer.state.log_history[0]
    examples = [trainer.train_dataset[i] for i in range(10)]
    model = AutoModelForCausalLM.from_pretrained(case[0], dtype=torch.float64)
    nll = []
    for example in examples:
        batch = Collator(0)([example])
        nll.append(model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.item())
    for name, reward in (("nll_right", 1), ("nll_wrong", 0), ("nll_no_answer", -1)):
        own = [value for value, e in zip(nll, examples, strict=True) if e.reward == reward]
        assert entry[name] == pytest.approx(sum(own) / len(own), rel=1e-5)
    assert entry["nll"] == pytest.approx(sum(nll) / 10, rel=1e-5)
    total = 2 * sum(abs(w) for w in WEIGHTS)
    assert entry["effective_samples"] == pytest.approx(total**2 / (2 * sum(w**2 for w in WEIGHTS)))
    assert entry["tokens_per_second"] > 0


def test_the_evaluation_loss_is_the_mean_over_examples(case):
    trainer = make_trainer(case, per_device_eval_batch_size=4)
    trainer.eval_dataset = trainer.train_dataset
    expected, _ = naive_step(case, [trainer.train_dataset[i] for i in range(10)])
    code = []
    trainer.model.register_forward_pre_hook(lambda *_: code.append(trainer._attention))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)
    # Padded rows have plain attention, and training goes on with that of trees.
    assert {*code} == {"sdpa"} and trainer.trees


def test_a_model_that_goes_wrong_on_trees_stops_before_the_first_step(case, monkeypatch):
    monkeypatch.setattr("fastchat.train.rwr_trainer.tree_error", lambda *_: 0.7)
    trainer = make_trainer(case, per_device_train_batch_size=5)
    with pytest.raises(TrainingError, match="differ .* by 0.7 .* pass --batching padded"):
        trainer.train()
    assert trainer.state.global_step == 0
