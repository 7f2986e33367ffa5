"""Runs a transformers model over the slots of a `KVPool`, and refuses models that it gets wrong.

Letters: B rows, P new tokens per row, T tokens attended over, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.integrations import sdpa_attention

from fastchat.serve.engine.cpu import attention
from fastchat.serve.engine.cpu.layers import CompiledLayers, compiled_layers
from fastchat.serve.engine.kv_pool import KVPool, LayerShape, PoolCache, Span, token_bytes

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_ALIGNED = 8
"""Attention on a GPU copies, for every layer, a mask whose rows do not begin at multiples of it."""


class EngineModel:
    """A causal language model as the engine needs it: tokens of many slots in, logits out."""

    def __init__(self, model: Any):
        # Some 30 ms for every shape that it has not seen, and each step has another (torch 2.10 and
        # newer, H100 and later).
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.device = model.device
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        self._layers = set(getattr(self.config, "layer_types", None) or ())
        self._window = getattr(self.config, "sliding_window", None)
        self._compiled: CompiledLayers | None = None
        if self._layers - _KNOWN_LAYERS or self._head is None:
            raise ValueError(
                f"{type(model).__name__} cannot be served by this worker: its layers are "
                f"{', '.join(sorted(self._layers)) or 'unknown'}; serve it with vLLM and name it "
                "as NAME@http://HOST:PORT/v1"
            )
        if self.device.type == "cpu" and self.config._attn_implementation in (
            "sdpa",
            attention.NAME,
        ):
            attention.use(self.config)
            self._compiled = compiled_layers(self._body, self._head)

    def layer_shapes(self) -> list[LayerShape]:
        """What one token leaves in each layer's cache, found by running one token."""
        with torch.inference_mode():
            token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            cache = self._body(input_ids=token, use_cache=True).past_key_values
        return [
            LayerShape(
                layer.keys.shape[1], layer.keys.shape[-1], layer.values.shape[-1], layer.keys.dtype
            )
            for layer in cache.layers
        ]

    def repeated_bytes(self, shapes: Sequence[LayerShape]) -> int:
        """Bytes of one layer's keys and values per token, repeated for every query head.

        Attention under a mask makes this copy of all tokens that it attends over, layer by layer.
        Without grouped-query attention nothing is repeated: 0.
        """
        groups = max(getattr(module, "num_key_value_groups", 1) for module in self._body.modules())
        return groups * max(token_bytes([shape]) for shape in shapes) if groups > 1 else 0

    @property
    def repeats_in_decoding(self) -> bool:
        """Whether passes of one token per row make that copy too.

        They do in eager attention, and in transformers before `pack_gqa`, which is used for them.
        """
        packs = hasattr(sdpa_attention, "pack_gqa")
        implementation = self.config._attn_implementation
        return implementation not in ("sdpa", attention.NAME) or not packs

    def forward(
        self,
        pool: KVPool,
        span: Span,
        tokens: Sequence[Sequence[int]],
        watch: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Compute new tokens of each row and return the logits after its last one, (B, V).

        `watch` is shown what `logits` takes, of all places: (B, P, H) with hidden size H.
        """
        width = span.width
        if self._compiled is not None and watch is None:
            return self._compiled.forward(pool, span, tokens)
        ids = torch.tensor(
            [[*row, *[0] * (width - len(row))] for row in tokens], device=self.device
        )
        starts = torch.tensor(span.starts, device=self.device)
        # Copied to a GPU now: behind the pass the copy would wait for it.
        last = torch.tensor([count - 1 for count in span.counts], device=self.device)
        positions = starts[:, None] + torch.arange(width, device=self.device)
        hidden = self._body(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._masks(positions, span.end),
            past_key_values=PoolCache(pool, span),
            use_cache=True,
        ).last_hidden_state
        if watch is not None:
            watch(hidden)
        return self.logits(hidden[torch.arange(len(last), device=self.device), last])

    def check(self, pool: KVPool) -> None:
        """Compare prefill, chunked prefill and decoding in the pool with the model itself."""
        length = min(12, pool.length)
        ids = [(7 * i + 3) % self.vocabulary for i in range(length)]
        pieces = [ids[: length // 2], ids[length // 2 : -1], ids[-1:]]
        done = 0
        with torch.inference_mode():
            expected = self.model(torch.tensor([ids], device=self.device)).logits[0, -1].float()
            for piece in filter(None, pieces):
                span = Span(0, [done], [len(piece)])
                found = self.forward(pool, span, [piece])[0].float()
                done += len(piece)
        error = (found - expected).norm() / expected.norm()
        if not error < 0.05:
            raise ValueError(
                f"{type(self.model).__name__} gives other logits in this worker's cache than by "
                f"itself (relative difference {float(error):.2g}), so it is not served; serve it "
                "with vLLM and name it as NAME@http://HOST:PORT/v1"
            )

    def _masks(self, positions: torch.Tensor, end: int) -> Any:
        """Masks (B, 1, P, T), one per kind of layer where the model has several kinds."""
        keys = torch.arange(-(-end // _ALIGNED) * _ALIGNED, device=self.device)
        full = keys <= positions[..., None]
        masks = {"full_attention": self._as_attention_wants(full[:, None], end)}
        if self._window is not None:
            near = full & (keys > positions[..., None] - self._window)
            masks["sliding_attention"] = self._as_attention_wants(near[:, None], end)
        if self._layers:
            return masks
        return masks.get("sliding_attention", masks["full_attention"])

    def _as_attention_wants(self, mask: torch.Tensor, end: int) -> torch.Tensor:
        """Truth values; for eager, and on a GPU, the numbers that every layer makes of them."""
        if self.config._attn_implementation == "eager" or self.device.type != "cpu":
            numbers = torch.zeros_like(mask, dtype=self.model.dtype)
            mask = numbers.masked_fill_(~mask, torch.finfo(self.model.dtype).min)
        return mask[..., :end]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of every place: (..., H) to (..., V)."""
        logits = self._head(hidden)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap
