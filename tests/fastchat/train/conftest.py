"""What the tests of this folder share."""

import os

import pytest


@pytest.fixture(autouse=True)
def same_environment():
    """Launch variables that a run sets for itself do not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
