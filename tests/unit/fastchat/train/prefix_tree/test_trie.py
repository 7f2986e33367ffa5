"""The trie of a step's rows, and how a step is divided into tries.

python -m pytest tests/unit/fastchat/train/prefix_tree/test_trie.py
"""

from itertools import chain

import numpy as np
import pytest

from fastchat.train.prefix_tree.trie import Node, PrefixOrder, build_tree, divide

ROWS = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [7, 8], [1, 2], [1, 2, 3, 4, 6], [7, 8]]
"""Two branches, the beginning of others, a row without relatives and its duplicate."""


def random_rows(count, seed):
    """Rows over three token ids, so that they share prefixes of every length."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 3, rng.integers(1, 30)).tolist() for _ in range(count)]


def seen(tree, token):
    """The tokens that a token sees by the rule of the layout."""
    return [i for i in range(token + 1) if token < tree.ends[i]]


def test_a_hand_worked_trie():
    tree = build_tree(ROWS)
    assert tree.tokens.tolist() == [1, 2, 3, 4, 5, 6, 9, 7, 8]
    assert tree.depths.tolist() == [0, 1, 2, 3, 4, 4, 3, 0, 1]
    assert tree.ends.tolist() == [7, 7, 7, 6, 5, 6, 7, 9, 9]
    assert [path.tolist() for path in tree.paths] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 6],
        [7, 8],
        [0, 1],
        [0, 1, 2, 3, 5],
        [7, 8],
    ]
    assert tree.nodes == (
        Node(0, 2, ()),
        Node(2, 3, (0,)),
        Node(3, 4, (0, 1)),
        Node(4, 5, (0, 1, 2)),
        Node(5, 6, (0, 1, 2)),
        Node(6, 7, (0, 1)),
        Node(7, 9, ()),
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_token_sees_exactly_what_stands_before_it_in_its_row(seed):
    rows = random_rows(40, seed)
    tree = build_tree(rows)
    for row, path in zip(rows, tree.paths, strict=True):
        assert tree.tokens[path].tolist() == row
        assert tree.depths[path].tolist() == list(range(len(row)))
        for place, token in enumerate(path):
            assert seen(tree, token) == path[: place + 1].tolist()
    assert len(tree.tokens) == len({tuple(row[: n + 1]) for row in rows for n in range(len(row))})


@pytest.mark.parametrize("seed", range(4))
def test_nodes_cover_the_layout_and_know_their_ancestors(seed):
    tree = build_tree(random_rows(40, seed))
    assert [(n.start, n.stop) for n in tree.nodes] == list(
        zip([0, *(n.stop for n in tree.nodes[:-1])], [n.stop for n in tree.nodes], strict=True)
    )
    for node in tree.nodes:
        above = chain(*(range(tree.nodes[i].start, tree.nodes[i].stop) for i in node.ancestors))
        assert [*above, node.start] == seen(tree, node.start)


def tokens(rows, group):
    return len({tuple(rows[i][: n + 1]) for i in group for n in range(len(rows[i]))})


def test_the_order_of_prefixes_knows_what_any_selection_shares():
    rows = random_rows(60, 0)
    order = PrefixOrder(rows)
    selection = list(range(3, 60, 4))
    arranged, shared = order.arrange(selection)
    assert sorted(arranged) == selection
    assert [rows[i] for i in arranged] == sorted(rows[i] for i in selection)
    assert sum(len(rows[i]) for i in arranged) - sum(shared) == tokens(rows, selection)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 40, 90, 10_000])
def test_a_step_is_divided_within_the_budget_into_the_same_number_of_passes(processes, budget):
    rows = random_rows(37, 1)
    shares = divide(PrefixOrder(rows), list(range(37)), budget, processes)
    assert len({len(share) for share in shares}) == 1
    assert sorted(chain(*chain(*shares))) == list(range(37))
    sizes = [[tokens(rows, group) for group in share] for share in shares]
    longest = max(map(len, rows))
    assert max(chain(*sizes)) <= max(budget, longest)
    if budget == 10_000:
        assert len(shares[0]) == 1
        # Without the limit the tries are as even as their longest row allows.
        assert max(chain(*sizes)) - min(chain(*sizes)) <= 2 * longest


def test_fewer_rows_than_processes_leave_empty_passes():
    shares = divide(PrefixOrder([[1, 2], [1, 3]]), [0, 1], 100, 4)
    assert sorted(len(share[0]) for share in shares) == [0, 0, 1, 1]


def test_rows_that_share_a_prefix_go_to_the_same_pass():
    families = [[[family] * 20 + [i] for i in range(4)] for family in range(5)]
    rows = list(chain(*families))
    mixed = [4 * (i % 5) + i // 5 for i in range(20)]
    (passes,) = divide(PrefixOrder(rows), mixed, 24, 1)
    assert sorted(sorted(group) for group in passes) == [
        list(range(4 * f, 4 * f + 4)) for f in range(5)
    ]
