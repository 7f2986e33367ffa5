"""All layers of a model of Llama's shape in one call of the compiled kernel.

Between its modules PyTorch leaves one core to Python, for few rows its products spend more time on
arranging weights than on multiplying, and prompts of several lengths are padded. Other models and
adapters go through their modules.

Letters: B rows, D size of a head, V vocabulary.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fastchat.serve.engine.cpu.kernel import kernel
from fastchat.serve.engine.kv_pool import KVPool, Span

_KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Whose layers are those of kernel.c: with or without biases, a window, norms of query and key."""
_NO_WINDOW = 2**62


class _Linear(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


_NORMS = ("before_attention", "before_mlp", "query_norm", "key_norm")
_PRODUCTS = ("query", "key", "value", "output", "gate", "up", "down")


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in _NORMS),
        *((name, _Linear) for name in _PRODUCTS),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("window", ctypes.c_long),
    ]


_SIZES = ("layers", "hidden", "heads", "inner", "vocabulary", "length")


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in _SIZES),
        ("epsilon", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("embedding", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("head", _Linear),
        ("layer", ctypes.POINTER(_Layer)),
    ]


class CompiledLayers:
    """The body and head of a model that `compiled_layers` has found fit."""

    def __init__(self, body: Any, head: Any, library: ctypes.CDLL):
        config, first = body.config, body.layers[0].self_attn
        self._rotary = body.rotary_emb
        self._dtype = body.embed_tokens.weight.dtype
        self._kept = (body, head)
        """Whose weights are read."""
        self._size: int = first.head_dim
        heads = config.num_key_value_heads
        layers = zip(body.layers, _windows(config, len(body.layers)), strict=True)
        self._layers = (_Layer * len(body.layers))(*(_layer(*layer) for layer in layers))
        self._model = _Model(
            len(body.layers),
            config.hidden_size,
            heads,
            config.intermediate_size,
            head.out_features,
            0,
            config.rms_norm_eps,
            first.scaling,
            body.embed_tokens.weight.data_ptr(),
            body.norm.weight.data_ptr(),
            _linear(head),
            self._layers,
        )
        attended = 2 * (config.num_attention_heads + heads) * self._size
        self._scratch = 2 * (config.hidden_size + config.intermediate_size) + attended
        self._compute = library.compute

    def forward(self, pool: KVPool, span: Span, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Tokens of each row of the span into its slot; the logits after them, (B, V) float32."""
        for layer, keys, values in zip(self._layers, pool.keys, pool.values, strict=True):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        self._model.length = pool.length
        ids = torch.tensor([token for row in tokens for token in row])
        counts = torch.tensor(span.counts)
        rows = torch.arange(len(counts)).repeat_interleave(counts)
        last = counts.cumsum(0) - 1
        starts = torch.tensor(span.starts) - last + counts - 1
        places = torch.arange(len(ids)) + starts[rows]
        slots = rows + span.first
        like = torch.empty(0, dtype=self._dtype)
        angles = [angle[0].float().contiguous() for angle in self._rotary(like, places[None])]
        scratch = torch.zeros(len(ids) * self._scratch + 32, dtype=self._dtype)
        logits = torch.empty(len(counts), self._model.vocabulary)
        self._compute(
            ctypes.byref(self._model),
            len(ids),
            *(part.data_ptr() for part in (ids, slots, places, *angles)),
            len(counts),
            *(part.data_ptr() for part in (last, scratch, logits)),
            torch.get_num_threads(),
        )
        return logits


def compiled_layers(body: Any, head: Any) -> CompiledLayers | None:
    """None where the model is another, where a weight is not plain, and without a compiler."""
    config = body.config
    if (
        not any(type(body).__name__ == f"{kind}Model" for kind in _KINDS)
        or config.hidden_act not in ("silu", "swish")
        or any(parameter.device.type != "cpu" for parameter in body.parameters())
    ):
        return None
    plain = (torch.nn.Linear, torch.nn.Embedding)
    products = [head, body.embed_tokens]
    for layer in body.layers:
        products += [getattr(part, name) for part, name in _products(layer)]
    weights = [*body.parameters(), *head.parameters()]
    if any(type(module) not in plain for module in products) or any(
        weight.dtype != weights[0].dtype or not weight.is_contiguous() for weight in weights
    ):
        return None
    attention = body.layers[0].self_attn
    size = attention.head_dim
    library = kernel(attention.num_key_value_groups, size, size, weights[0].dtype)
    return CompiledLayers(body, head, library) if library is not None else None


def _products(layer: Any) -> Iterator[tuple[Any, str]]:
    """In the order of `_PRODUCTS`."""
    yield from ((layer.self_attn, f"{name}_proj") for name in "qkvo")
    yield from ((layer.mlp, f"{name}_proj") for name in ("gate", "up", "down"))


def _linear(module: Any) -> _Linear:
    return _Linear(*(_pointer(getattr(module, name)) for name in ("weight", "bias")))


def _windows(config: Any, layers: int) -> list[int]:
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    window = getattr(config, "sliding_window", None) or _NO_WINDOW
    return [window if kind == "sliding_attention" else _NO_WINDOW for kind in kinds]


def _layer(layer: Any, window: int) -> _Layer:
    attention = layer.self_attn
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    norms += tuple(getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return _Layer(
        *(_pointer(norm and norm.weight) for norm in norms),
        *(_linear(getattr(part, name)) for part, name in _products(layer)),
        None,
        None,
        window,
    )


def _pointer(tensor: Any) -> int | None:
    return None if tensor is None else tensor.data_ptr()
