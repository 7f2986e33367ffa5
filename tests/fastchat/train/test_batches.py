"""The examples of an optimizer step do not depend on how it is split.

python -m pytest tests/fastchat/train/test_batches.py
"""

from itertools import chain

import pytest

from fastchat.train.batches import IGNORED, Collator, StepBatches
from fastchat.train.rwr_dataset import Example

LENGTHS = [(37 * i) % 101 + 3 for i in range(45)]


def steps(size, accumulation, processes, **changes):
    """The set of examples of every optimizer step, and the micro-batches of every process."""
    per_rank = [
        list(
            StepBatches(
                LENGTHS, size, accumulation, seed=3, processes=processes, rank=rank, **changes
            )
        )
        for rank in range(processes)
    ]
    merged = [list(chain(*batches)) for batches in zip(*per_rank, strict=True)]
    grouped = [
        sorted(chain(*merged[k : k + accumulation])) for k in range(0, len(merged), accumulation)
    ]
    return grouped, per_rank


@pytest.mark.parametrize("split", [(16, 1, 1), (1, 16, 1), (4, 2, 2), (2, 2, 4), (1, 2, 8)])
def test_steps_hold_the_same_examples_however_they_are_split(split):
    grouped, per_rank = steps(*split)
    assert grouped == steps(8, 2, 1)[0]
    assert sorted(chain(*grouped)) == list(range(len(LENGTHS)))
    assert len({len(batches) for batches in per_rank}) == 1
    assert all(len(batch) <= split[0] for batches in per_rank for batch in batches)


@pytest.mark.parametrize("split", [(16, 1, 1), (1, 16, 1), (4, 2, 2), (2, 2, 4)])
def test_the_announced_length_is_the_number_of_micro_batches(split):
    size, accumulation, processes = split
    batches = StepBatches(LENGTHS, size, accumulation, seed=0, processes=processes)
    assert len(list(batches)) == len(batches)
    assert batches.steps == 3


def test_epochs_and_seeds_differ_and_repeat():
    batches = StepBatches(LENGTHS, 4, 4, seed=3)
    other = StepBatches(LENGTHS, 4, 4, seed=4)
    assert batches.epoch_order(0) == batches.epoch_order(0)
    assert batches.epoch_order(0) != batches.epoch_order(1)
    assert batches.epoch_order(0) != other.epoch_order(0)


def test_group_by_length_makes_steps_of_similar_length():
    def spread(order):
        grouped, _ = steps(4, 1, 1, order=order)
        return sum(max(LENGTHS[i] for i in g) - min(LENGTHS[i] for i in g) for g in grouped)

    assert spread("group_by_length") < 0.8 * spread("random")
    assert steps(8, 1, 1, order="sequential")[0][0] == list(range(8))


def test_the_collator_pads_on_the_right_and_labels_the_answers_only():
    batch = Collator(pad_id=9)(
        [Example("a", [1, 2, 3, 4], 2, 0.5, 1.0), Example("b", [5, 6], 1, -2.0, None)]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 3, 4],
        [IGNORED, 6, IGNORED, IGNORED],
    ]
    assert batch["positions"].tolist() == [0, 1, 2]
    assert (batch["weights"], batch["rewards"], batch["rows"]) == (
        [0.5, -2.0],
        [1.0, None],
        ["a", "b"],
    )
    assert (batch["examples"], batch["tokens"]) == (2, 6)


def test_an_empty_micro_batch_can_be_run_and_trains_nothing():
    batch = Collator(pad_id=9)([])
    assert batch["input_ids"].shape == (1, 2)
    assert (batch["labels"] == IGNORED).all()
    assert (batch["examples"], batch["tokens"], batch["weights"]) == (0, 0, [0.0])
