"""JSON objects in files, read with an error that names them, and checksums of JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def json_sha256(value: Any, **form: Any) -> str:
    """16 digits of the SHA-256 of a value as JSON, in the form that `json.dumps` is asked for."""
    return hashlib.sha256(json.dumps(value, **form).encode()).hexdigest()[:16]
