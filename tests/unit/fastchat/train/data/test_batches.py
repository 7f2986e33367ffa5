"""The examples of an optimizer step do not depend on how it is split.

python -m pytest tests/unit/fastchat/train/data/test_batches.py
"""

from itertools import chain

import pytest

from fastchat.train.data.batches import IGNORED, Collator, StepBatches, TreeCollator, keep_together
from fastchat.train.data.rwr_dataset import Example
from fastchat.train.prefix_tree.trie import PrefixOrder

LENGTHS = [(37 * i) % 101 + 3 for i in range(45)]
ROWS = [[1, 2, i % 3, i % 5, *range(length - 4)] for i, length in enumerate(LENGTHS)]
PREFIXES = PrefixOrder(ROWS)
TREES = {"prefixes": PREFIXES, "tree_tokens": 300}


def steps(size, accumulation, processes, **changes):
    """The examples of every optimizer step, and the micro-batches of every process."""
    per_rank = [
        list(
            StepBatches(
                LENGTHS, size, accumulation, seed=3, processes=processes, rank=rank, **changes
            )
        )
        for rank in range(processes)
    ]
    merged = [
        list(chain(*(chain(*passes) for passes in batches)))
        for batches in zip(*per_rank, strict=True)
    ]
    grouped = [
        sorted(chain(*merged[k : k + accumulation])) for k in range(0, len(merged), accumulation)
    ]
    return grouped, per_rank


@pytest.mark.parametrize("layout", [{}, TREES], ids=["padded", "trees"])
@pytest.mark.parametrize("split", [(16, 1, 1), (1, 16, 1), (4, 2, 2), (2, 2, 4), (1, 2, 8)])
def test_steps_hold_the_same_examples_however_they_are_split(split, layout):
    grouped, per_rank = steps(*split, **layout)
    assert grouped == steps(8, 2, 1)[0]
    assert sorted(chain(*grouped)) == list(range(len(LENGTHS)))
    passes = [[len(passes) for passes in batches] for batches in per_rank]
    assert all(counts == passes[0] for counts in passes)


def test_a_padded_micro_batch_is_one_pass_of_at_most_its_size():
    _, per_rank = steps(4, 2, 2)
    assert all(len(passes) == 1 for batches in per_rank for passes in batches)
    assert all(len(passes[0]) <= 4 for batches in per_rank for passes in batches)


def test_the_trees_of_a_step_keep_to_their_budget_in_its_last_micro_batch():
    _, (batches,) = steps(4, 4, 1, **TREES)
    assert [bool(passes) for passes in batches] == [False, False, False, True] * 3
    for examples in chain(*batches):
        _, shared = PREFIXES.arrange(examples)
        assert sum(LENGTHS[i] for i in examples) - sum(shared) <= 300
    assert sum(map(len, batches)) < 20


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


def test_trajectories_stay_in_one_step_and_every_row_is_taken_once():
    trajectories = [i // 5 for i in range(45)]
    grouped, _ = steps(4, 3, 1, trajectories=trajectories)
    assert [len(step) for step in grouped] == [12, 12, 12, 9]
    assert sorted(chain(*grouped)) == list(range(45))
    # Of steps of 12 rows, two trajectories of 5 fill 10, and a third is cut for the rest.
    cut = [t for t in range(9) if sum(t in {trajectories[i] for i in s} for s in grouped) > 1]
    mixed, _ = steps(4, 3, 1)
    apart = [t for t in range(9) if sum(t in {trajectories[i] for i in s} for s in mixed) > 1]
    assert len(cut) <= 3 < len(apart)


def test_a_trajectory_that_does_not_fit_waits_for_the_next_step():
    groups = [0, 0, 0, 1, 1, 2]
    assert keep_together([0, 3, 1, 4, 5, 2], groups, 4) == [0, 1, 2, 5, 3, 4]
    assert keep_together([3, 0, 1, 2, 4, 5], groups, 2) == [3, 4, 0, 1, 2, 5]


def test_the_collator_pads_on_the_right_and_labels_the_answers_only():
    batch = Collator(pad_id=9)(
        [Example("a", [1, 2, 3, 4], 2, 0.5, 1.0), Example("b", [5, 6], 1, -2.0, None)]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 3, 4], [IGNORED, 6, IGNORED, IGNORED]]
    assert batch["positions"].tolist() == [0, 1, 2]
    assert (batch["weights"], batch["rewards"], batch["rows"]) == (
        [0.5, -2.0],
        [1.0, None],
        ["a", "b"],
    )
    assert (batch["examples"], batch["tokens"]) == (2, 6)


def test_the_tree_collator_lays_shared_tokens_out_once_and_fills_up_with_what_sees_itself():
    batch = TreeCollator()(
        [
            Example("a", [1, 2, 3, 4], 2, 0.5, 1.0),
            Example("b", [1, 2, 3, 5], 3, 1.0, None),
            Example("c", [1, 6], 1, -2.0, 0.0),
        ]
    )
    # The last token of a row is predicted and not computed: c is the prefix [1] of the others.
    assert batch["input_ids"].tolist() == [[1, 2, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2]]
    assert batch["positions"].tolist() == [0, 1, 2]
    assert batch["slots"].tolist() == [1, 2, 2, 0]
    assert batch["targets"].tolist() == [3, 4, 5, 6]
    assert batch["owners"].tolist() == [0, 0, 1, 2]
    assert (batch["weights"], batch["examples"], batch["tokens"]) == ([0.5, 1.0, -2.0], 3, 10)
    batch = TreeCollator(multiple=4)([Example("a", [1, 2, 3, 4, 5, 6], 2, 0.5, 1.0)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 0, 0, 0]]
    assert batch["ends"].tolist() == [5] * 5 + [6, 7, 8]


@pytest.mark.parametrize("collate", [Collator(pad_id=9), TreeCollator()])
def test_an_empty_pass_can_be_run_and_trains_nothing(collate):
    batch = collate([])
    assert batch["input_ids"].numel() in (1, 2)
    assert (batch["labels"] == IGNORED).all() if "labels" in batch else not len(batch["targets"])
    assert (batch["examples"], batch["tokens"], batch["weights"]) == (0, 0, [0.0])
