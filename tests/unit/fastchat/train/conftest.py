"""A tiny checkpoint with its data, and what one training of them has left; nobody changes them."""

import pytest

from tests.support.training_data import command, make_case


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """The checkpoint and the data file."""
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="session")
def finished(case, tmp_path_factory):
    """The output directory."""
    from fastchat.train.train import main

    output = tmp_path_factory.mktemp("finished") / "out"
    assert main(command(case, output)) == 0
    return output
