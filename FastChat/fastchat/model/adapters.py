"""LoRA adapters: directories with a few trained matrices that belong to a base model.

An adapter directory holds `adapter_config.json`, which names its base, and
`adapter_model.safetensors`; ours also holds the tokenizer with the chat template. The matrices
stand beside those of the base while it is served; `fastchat.model.apply_lora` adds them in.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds an adapter and no model of its own."""
    folder = Path(path).expanduser()
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def named_base(adapter: str | Path) -> str:
    """The base model that an adapter names, wherever that is."""
    path = Path(adapter).expanduser() / ADAPTER_CONFIG
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path} names no base model; {_REMEDY}")
    return base


def base_of(adapter: str | Path) -> str:
    """The base model that an adapter names: a directory or a hub id."""
    base, config = named_base(adapter), Path(adapter) / ADAPTER_CONFIG
    if base.startswith(("/", ".", "~")) and not Path(base).expanduser().is_dir():
        raise ValueError(
            f"{config} names the base {base}, and no such directory is here; {_REMEDY}"
        )
    return base


def attach(model: Any, adapter: str | Path) -> Any:
    """Put an adapter's matrices beside those of a loaded base model, which is returned."""
    require_peft()
    from peft import PeftModel

    with fitting(adapter, model.name_or_path):
        return PeftModel.from_pretrained(model, str(adapter)).get_base_model()


@contextmanager
def fitting(adapter: str | Path, base: str) -> Iterator[None]:
    """Turn what peft raises over an adapter and a base model into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"the adapter {adapter} does not fit the model {base}: {cause[:300]}"
        ) from error


def require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need the package peft: pip install 'fschat[train]'")


_REMEDY = (
    "pass --base-model-path to the worker or to fastchat.model.apply_lora, or correct "
    "base_model_name_or_path in that file"
)
