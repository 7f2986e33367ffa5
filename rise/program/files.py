"""JSON in files: objects, read with an error that names the file, and lines; checksums of JSON."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastchat.utils import replacing


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def write_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write JSON lines, all of them or none, and return how many."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def json_sha256(value: Any, **form: Any) -> str:
    """16 digits of the SHA-256 of a value as JSON, in the form that `json.dumps` is asked for."""
    return hashlib.sha256(json.dumps(value, **form).encode()).hexdigest()[:16]
