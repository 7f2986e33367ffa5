"""The tiny models, engines and servers that the tests of this folder share."""

from tests.support.serving import (  # noqa: F401
    api_url,
    checkpoint,
    client,
    controller_url,
    model,
    one_thread,
    tokenizer,
    worker,
    worker_url,
)
