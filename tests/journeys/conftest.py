"""What whole scripts share."""

import pytest

from tests.support.stages import own_environment


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """VENV: a script that begins with setup.sh leaves the environment of this test alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENV", own_environment(tmp_path_factory.mktemp("env") / "venv"))
        yield
