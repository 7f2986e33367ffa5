"""The grading processes end with the module that has used them."""

import pytest

from envs.grading import checker


@pytest.fixture(autouse=True, scope="module")
def _no_pool_left():
    yield
    checker.shutdown()
