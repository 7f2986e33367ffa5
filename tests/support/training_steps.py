"""A trainer over a case, the first optimizer step through it, and the same step by definition.

A case is (checkpoint, data file, directory for outputs), see `tests.support.training_data`.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.conversation import ChatTemplate
from fastchat.train.arguments import TrainingArguments
from fastchat.train.data.batches import Collator
from fastchat.train.data.rwr_dataset import RWRDataset
from fastchat.train.prefix_tree.model import use_trees
from fastchat.train.rwr_trainer import RWRTrainer
from tests.support.tiny import tiny_config, tiny_tokenizer
from tests.support.training_data import in_float64


def make_trainer(case, model=None, dtype=torch.float64, data=None, **arguments):
    path, own_data, directory = case
    template = ChatTemplate(tiny_tokenizer("chatml"))
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        model = in_float64(model) if dtype == torch.float64 else model
    if arguments.get("batching", "tree") == "tree":
        use_trees(model, None, 512, torch.device("cpu"))
    return RWRTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(directory / "out"),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
            **arguments,
        ),
        processing_class=template.tokenizer,
        train_dataset=RWRDataset(data or own_data, template, 512),
        data_collator=Collator(template.tokenizer.pad_token_id),
    )


def first_step(trainer):
    """Loss and gradients of the first optimizer step, through the trainer's own path."""
    args, model = trainer.args, trainer.model
    batches = iter(trainer.get_train_dataloader())
    samples, examples = trainer.get_batch_samples(
        batches, args.gradient_accumulation_steps, args.device
    )
    losses = [trainer.training_step(model, inputs, examples) for inputs in samples]
    return sum(losses).item(), {name: p.grad for name, p in model.named_parameters()}


def naive_step(case, examples):
    """Loss and gradients of the case's model by the definition, in float64."""
    model = in_float64(AutoModelForCausalLM.from_pretrained(case[0], dtype=torch.float64))
    return definition(model, examples)


def definition(model, examples):
    """Loss and gradients, one example at a time: no padding, all logits, log-softmax."""
    total = 0.0
    for example in examples:
        ids = torch.tensor([list(example.input_ids)])
        log_p = model(ids).logits[0].log_softmax(-1)
        action = range(example.action_start, ids.shape[1])
        nll = -sum(log_p[t - 1, ids[0, t]] for t in action) / len(action)
        total = total + example.weight * nll / len(examples)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return total.item(), gradients


def assert_same_step(step, reference):
    """Loss and every gradient equal to 1e-9 of the reference's largest entry."""
    (loss, gradients), (expected_loss, expected) = step, reference
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert (gradients[name] - gradient).abs().max().item() <= 1e-9 * scale, name


def windowed(name):
    """A tiny random model whose attention layers look back 16 tokens, some or all of them."""
    import transformers as hf

    if name == "gemma3":
        sizes = tiny_config().to_dict() | {"sliding_window": 16, "model_type": "gemma3_text"}
        kinds = ["sliding_attention", "full_attention"]
        sizes = {key: sizes[key] for key in sizes if not key.startswith(("rope", "layer_types"))}
        return hf.Gemma3TextConfig(**sizes, layer_types=kinds)
    changes = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    return tiny_config(name, **({} if name == "mistral" else changes))
