"""JSON files: read with an error that names them, and replaced in one step."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from fastchat.utils import replacing


def write_json(path: Path, value: Any) -> Path:
    """Write JSON so that a reader sees the old file or the new one; NaN and infinity are null."""
    text = json.dumps(_strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")
    return path


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def json_sha256(value: Any, **form: Any) -> str:
    """16 digits of the SHA-256 of a value as JSON, in the form that `json.dumps` is asked for."""
    return hashlib.sha256(json.dumps(value, **form).encode()).hexdigest()[:16]
