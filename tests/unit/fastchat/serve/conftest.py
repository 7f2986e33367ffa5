"""The tiny models, engines and servers that the tests of this folder share."""

from tests.support.serving import *  # noqa: F403
