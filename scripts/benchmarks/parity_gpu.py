"""Whether worker and trainer compute what the model does: log-probabilities and losses compared.

    python scripts/benchmarks/parity_gpu.py --size 1b
    python scripts/benchmarks/parity_gpu.py --size tiny --device cpu

A Llama of random weights answers greedily in the worker's engine; a plain forward pass over prompt
and answer should choose the same tokens, but where two are as likely within the dtype's rounding.
The trainer's gradient over rows that share prefixes, as trees, should be that of padded batches:
of float32 weights, computed in bfloat16 on a GPU, as train_mem.py does without DeepSpeed, with
gradient checkpointing. Prints a markdown table; exit code 1 where something differs by more than
its dtype allows.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench import failed_row, parser
from engine import SIZES, build_model

ALLOWED = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (0.2, 3e-2)}
"""Of a log-probability (logits between 4 and 8 have steps of 1/32 in bfloat16), and of the norms of
all parameters' gradients, relative to them."""
PROMPT, NEW, ROWS = 200, 24, 8


def parse_args() -> Any:
    found = parser(__doc__)
    found.add_argument("--size", choices=SIZES, default="tiny", help="the model; default tiny")
    found.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default cuda")
    return found.parse_args()


def main() -> int:
    args = parse_args()
    model = build_model(args.size, torch.device(args.device))
    dtype = model.dtype
    parts = {
        "worker and model, log-probability": of_the_worker,
        "trainer, trees and padded, gradient norms": of_the_trainer,
    }
    rows, good = [], True
    for (name, part), allowed in zip(parts.items(), ALLOWED[dtype], strict=True):
        try:
            difference = part(model)
        except Exception as error:  # the other is compared all the same
            rows.append(failed_row(name, error, 2))
            good = False
            continue
        rows.append(f"| {name} | {difference:.2g} | {allowed:g} |")
        good &= difference <= allowed
    print(f"| {args.size}, {str(dtype).removeprefix('torch.')} | difference | allowed |")
    print("|---|---|---|", *rows, sep="\n")
    return int(not good)


@torch.no_grad()
def of_the_worker(model: Any) -> float:
    """By how much the model finds another token likelier than the one that the engine chose."""
    from fastchat.serve.engine.engine import SlotEngine
    from fastchat.serve.engine.request import EngineRequest, SamplingParams

    engine = SlotEngine(model, None, max_rows=ROWS, max_length=PROMPT + NEW)
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(model.config.vocab_size, (ROWS, PROMPT), generator=draw).tolist()
    asked = [EngineRequest(prompt, SamplingParams(0.0), NEW) for prompt in prompts]
    for request in asked:
        engine.submit(request)
    while engine.step():
        pass
    answers = [[*request.prompt, *request.samples[0].tokens] for request in asked]
    ids = torch.tensor(answers, device=model.device)
    scores = model(input_ids=ids).logits[:, PROMPT - 1 : -1].float().log_softmax(-1)
    chosen = scores.gather(-1, ids[:, PROMPT:, None])[..., 0]
    return float((scores.amax(-1) - chosen).max())


def of_the_trainer(model: Any) -> float:
    """The relative difference of the gradients' norms, of trees and of padded batches."""
    from training_gpu import trajectories
    from training_modes import ours, recompute

    device = model.device.type
    step = trajectories(ROWS, model.config.vocab_size)
    common = {"bf16": device == "cuda", "use_cpu": device == "cpu", "gradient_checkpointing": True}
    norms = []
    model.float()
    if device == "cuda":  # as accelerate does
        model.forward = torch.autocast(device, torch.bfloat16)(model.forward)
    with tempfile.TemporaryDirectory() as name:
        for batching in ("padded", "tree"):
            work = ours(model, step, Path(name), batching=batching, **common)
            recompute(model)
            work()
            norms.append(torch.stack([p.grad.norm() for p in model.parameters()]))
    return float((norms[0] - norms[1]).norm() / norms[0].norm())


if __name__ == "__main__":
    sys.exit(main())
