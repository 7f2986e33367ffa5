"""Cores, threads and sizes on the command line.

python -m pytest tests/unit/fastchat/test_utils.py
"""

import argparse

import pytest

from fastchat import utils


def test_processes_share_the_cores_and_omp_num_threads_overrides(monkeypatch):
    monkeypatch.setattr(utils, "own_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [utils.threads_of(count) for count in (1, 3, 8, 9)] == [8, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert utils.threads_of(8) == 3


def test_sizes_are_read_and_other_texts_refused():
    for text in ("4", "GiB", "-1G", "1GiBs"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no size: give one such as 4GiB"):
            utils.byte_count(text)
