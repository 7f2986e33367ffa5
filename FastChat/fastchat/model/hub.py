"""Whether a checkpoint of the Hugging Face hub can be had, found out within seconds.

The hub's own client tries a server that does not answer for the better part of a minute.
"""

import functools

from fastchat.utils import similar


def problem_with(repository: str, cache_dir: str | None = None) -> str | None:
    """Why ORG/NAME cannot be loaded: it is not on this machine and the hub does not answer."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = (
        isinstance(try_to_load_from_cache(repository, name, cache_dir=cache_dir), str)
        for name in ("config.json", "adapter_config.json")
    )
    if any(cached) or (cause := unreachable()) is None:
        return None
    return (
        f"{repository} is no directory here{similar(repository)} and not in the cache of this "
        f"machine, and {constants.ENDPOINT} does not answer ({cause}): give the directory of a "
        "checkpoint, or check the name and the network"
    )


@functools.cache
def unreachable() -> str | None:
    """Why the hub does not answer; None if it does, be it with an error."""
    from huggingface_hub import constants

    from fastchat.client import http

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    cause = http.unreachable(constants.ENDPOINT)
    # Who answers with a certificate that Python does not know: the hub's client may know it.
    return None if "CERTIFICATE_VERIFY_FAILED" in (cause or "") else cause
