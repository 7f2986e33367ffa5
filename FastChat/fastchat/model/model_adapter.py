"""Loads tokenizers and causal language models, for serving and for training.

A model is named by a directory that holds a checkpoint, or by its id on the Hugging Face hub
(`ORG/NAME`, also written `hf:ORG/NAME`). The directory of a LoRA adapter stands for its base model
with the adapter in place, see `adapters.py`. torch and transformers are imported on use only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastchat.model.adapters import attach, base_of, is_adapter
from fastchat.utils import first_line, similar

DTYPES = ("auto", "float32", "bfloat16", "float16")

_LENGTH_KEYS = ("max_position_embeddings", "max_sequence_length", "seq_length", "max_seq_len")
_DEFAULT_CONTEXT = 2048


def load_tokenizer(path: str | Path, base: str | None = None, **options: Any) -> Any:
    """Load the tokenizer of a checkpoint as it was saved; no token is added or changed.

    `options` are those of transformers here and below: `cache_dir`, `trust_remote_code`.
    """
    source = resolve(path)
    if is_adapter(source) and not Path(source, "tokenizer_config.json").is_file():
        source = base_source(path, base)
    from transformers import AutoTokenizer

    with _explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source, **options)


def load_config(path: str | Path, **options: Any) -> Any:
    """Load only the configuration of a checkpoint, or of an adapter's base, see `load_model`."""
    source = base_source(path)
    from transformers import AutoConfig

    with _explained(source, "configuration"):
        return AutoConfig.from_pretrained(source, **options)


def load_stop_ids(path: str | Path, **options: Any) -> list[int]:
    """The tokens that end generation according to the checkpoint, beside the tokenizer's EOS."""
    source = base_source(path)
    from transformers import GenerationConfig

    try:
        cache = options.get("cache_dir")
        own = GenerationConfig.from_pretrained(source, cache_dir=cache).eos_token_id
    except OSError:
        own = getattr(load_config(source, **options), "eos_token_id", None)
    return [own] if isinstance(own, int) else list(own or ())


def load_model(
    path: str | Path,
    *,
    device: str | None = "auto",
    dtype: Any = "auto",
    attn_implementation: str | None = None,
    cache_dir: str | None = None,
    trust_remote_code: bool = False,
    base: str | None = None,
    **options: Any,
) -> Any:
    """Load a causal language model, or an adapter's `base` with it in place, in evaluation mode.

    `device`: "auto" is CUDA where there is a GPU, else the CPU; None moves nothing (ZeRO-3).
    `attn_implementation`: None is "sdpa", or "eager" for models that cap their attention scores.
    """
    source = base_source(path, base)
    import torch
    from transformers import AutoModelForCausalLM

    device = pick_device(device)
    config = load_config(source, cache_dir=cache_dir, trust_remote_code=trust_remote_code)
    with _explained(source, "weights"):
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=pick_dtype(dtype, device, config),
            attn_implementation=attn_implementation or _exact_attention(config),
            cache_dir=cache_dir,
            trust_remote_code=trust_remote_code,
            **options,
        )
    if is_adapter(resolve(path)):
        model = attach(model, resolve(path))
    model.eval()
    return model if device is None else torch.nn.Module.to(model, device)


def pick_device(device: str | None = "auto") -> str | None:
    import torch

    if device is None:
        return None
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:1")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU; use cpu or auto")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device.startswith("cuda:") and device not in gpus:
        has = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}: {', '.join(gpus)}"
        raise ValueError(f"device {device!r} was asked for, but this machine has {has}")
    return device


def pick_dtype(dtype: Any, device: str | None, config: Any) -> Any:
    """The torch dtype for `dtype` (a name in `DTYPES`, "half" and "float", or a torch dtype).

    "auto" is the checkpoint's own; on a CPU float32, unless the checkpoint is bfloat16 and the CPU
    computes in it.
    """
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in ("auto", None):
        own = getattr(config, "dtype", None) or torch.float32
        fits = device != "cpu" or (own is torch.bfloat16 and computes_bfloat16())
        return own if fits else torch.float32
    if dtype not in (*DTYPES[1:], "half", "float"):
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    return getattr(torch, dtype)


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 itself (AVX512-BF16, AMX), as torch sees it."""
    import torch

    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def pick_attention(config: Any, device: Any) -> str:
    """The fastest attention code for training on a device that is installed and exact."""
    from transformers.utils import is_flash_attn_2_available

    fast = device.type == "cuda" and is_flash_attn_2_available()
    return "flash_attention_2" if fast else _exact_attention(config)


def context_length(config: Any) -> int:
    """The longest sequence, in tokens, that a model with this configuration can attend over.

    Position scaling counts where it stretches the trained positions (linear, dynamic, yarn);
    Llama 3.1's kind is already part of `max_position_embeddings`.
    """
    config = getattr(config, "text_config", None) or config
    lengths = (getattr(config, key, None) for key in _LENGTH_KEYS)
    length = next(filter(None, lengths), None)
    if length is None:
        return _DEFAULT_CONTEXT
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    factor = rope.get("factor") or 1.0
    if kind in ("linear", "dynamic"):
        return int(length * factor)
    if kind == "yarn":
        trained = rope.get("original_max_position_embeddings") or length
        return max(int(length), int(trained * factor))
    return int(length)


def resolve(path: str | Path) -> str:
    text = str(path).removeprefix("hf:").strip()
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        if not (folder / "config.json").is_file() and not is_adapter(folder):
            raise ValueError(
                f"{text} is a directory without config.json, so it holds no checkpoint; give the "
                "directory that a training run or `save_pretrained` wrote"
            )
        return str(folder)
    if not text or text.startswith((".", "/", "~")) or text.count("/") > 1 or text.endswith("/"):
        raise ValueError(
            f"there is no directory {text!r}{similar(text)}; give a directory with a "
            "checkpoint, or a model of the Hugging Face hub as ORG/NAME"
        )
    return text


def base_source(path: str | Path, base: str | None = None) -> str:
    """The directory or hub id of the weights: of an adapter, `base` or the base that it names."""
    source = resolve(path)
    if is_adapter(source):
        return resolve(base or base_of(source))
    if base is not None:
        raise ValueError(f"{path} is no adapter, so it has no base model: leave out {base}")
    return source


def allow_saving(model: Any) -> Any:
    """Mend a generation config that transformers refuses to save again; returns the model."""
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        # Published checkpoints set a temperature without sampling.
        model.generation_config.do_sample = True
    return model


def _exact_attention(config: Any) -> str:
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return "eager" if capped else "sdpa"


@contextmanager
def _explained(source: str, part: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(_explanation(source, part, error)) from error


def _explanation(source: str, part: str, error: BaseException) -> str:
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        names |= {kind.__name__ for kind in type(cause).__mro__}
        cause = cause.__cause__ or cause.__context__
    if Path(source).is_dir():
        said = first_line(error).rstrip(":")
        return f"cannot read the {part} in {source}: {said}; is the checkpoint complete?"
    if "GatedRepoError" in names or "gated repo" in str(error):
        return (
            f"{source} is a gated model: accept its licence on https://huggingface.co/{source}, "
            "then run `hf auth login` or set HF_TOKEN"
        )
    if "RepositoryNotFoundError" in names or "not a valid model identifier" in str(error):
        return (
            f"{source!r} is neither a directory here nor a model of the Hugging Face hub that you "
            "may read; check the name, or run `hf auth login` if it is private"
        )
    if "ConnectError" in names or "LocalEntryNotFoundError" in names:
        return (
            f"{source!r} is no directory here, and the Hugging Face hub cannot be reached to look "
            "for it; give the directory of a checkpoint, or check the network"
        )
    return f"cannot load the {part} of {source!r}: {first_line(error)}"
