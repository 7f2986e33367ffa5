"""The limit of open files: every request in flight holds a connection."""

from __future__ import annotations

import resource

SPARE = 64
"""Files that are open beside the connections."""


def most_connections() -> int:
    """How many connections this process may have at most."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if hard == resource.RLIM_INFINITY else hard - SPARE


def allow_connections(count: int) -> None:
    """Raise this process's limit so that it may have `count` connections; never lowers it.

    Many systems allow 1,024 files unless a program asks for more. Children inherit the limit.

    Raises:
        ValueError: if the system does not allow so many; see `most_connections`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (hard, resource.RLIM_INFINITY) and soft < count + SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + SPARE, hard))
