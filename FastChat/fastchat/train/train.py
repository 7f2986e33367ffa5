r"""Fine-tune a causal language model with reward-weighted regression, on one or many processes.

    deepspeed --master_port 20001 FastChat/fastchat/train/train_mem.py \
        --deepspeed deepspeed/zero3.json --model_name_or_path M --data_path dataset/finetune.json \
        --output_dir checkpoints/rise --bf16 True --gradient_accumulation_steps 16
    python FastChat/fastchat/train/train_mem.py --model_name_or_path M \
        --data_path dataset/finetune.json --output_dir checkpoints/rise --report_to wandb

Reads   --data_path (JSON from workflow_convert.py), --model_name_or_path, --deepspeed.
Writes  --output_dir: checkpoint-N/ while it trains; at the end the model, its tokenizer with the
        chat template, training.json (arguments, data, versions, log), and transformers' own
        trainer_state.json, train_results.json and all_results.json.

The same command resumes a killed run from its last complete checkpoint and repeats the losses it
would have had; a finished run is left alone, or made again where its files are gone; a run with
other settings is refused, and so is a second run while one is at work there.
SIGTERM, SIGUSR1 and Ctrl-C let the step at work end and save a checkpoint.

`--use_lora True` trains a LoRA adapter, `--q_lora True` one beside a model in 4 bits: `lora.py`.

Weights are loaded in float32. With `--bf16 True` DeepSpeed trains a bfloat16 copy and keeps the
float32 one for the optimizer, and saves bfloat16; without DeepSpeed the float32 weights are
trained and saved, and only the computation is bfloat16 (autocast).

Exit codes: 0 done, 1 failed, 2 refused (arguments or data), 130 interrupted, 143 ended by
SIGTERM or SIGUSR1.
"""

import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastchat.conversation import ChatTemplate
from fastchat.model.files import fingerprint
from fastchat.model.model_adapter import (
    allow_saving,
    computes_bfloat16,
    context_length,
    load_config,
    load_model,
    load_stop_ids,
    load_tokenizer,
    pick_attention,
    resolve,
)
from fastchat.tracking import start_wandb
from fastchat.train import checkpoints, processes, run_record, signals
from fastchat.train.arguments import Arguments, TrainingArguments, parse
from fastchat.train.checks import check, check_schedule, is_absent
from fastchat.train.data.batches import Collator
from fastchat.train.data.rwr_dataset import RWRDataset, marked_sample, read_data
from fastchat.train.lora import add_adapter, check_targets, keep_gradients, quantization
from fastchat.train.prefix_tree.model import use_trees
from fastchat.train.processes import fail, say
from fastchat.train.run_record import RECORD
from fastchat.train.rwr_trainer import RWRTrainer, TrainingError
from fastchat.utils import GO_TOGETHER, first_line, write_json


@dataclass
class Run:
    """Everything that is known and checked before weights are loaded."""

    arguments: Arguments
    config: Any
    template: ChatTemplate
    train_set: RWRDataset
    eval_set: RWRDataset | None
    record: dict[str, Any]
    resume: Path | None

    @property
    def args(self) -> TrainingArguments:
        return self.arguments.training


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    if not processes.is_first_process():
        logging.getLogger("fastchat.train").setLevel(logging.ERROR)
    try:
        with contextlib.ExitStack() as held:
            try:
                run = prepare(argv, held)
                model = None if run is None else load(run)
            except ValueError as error:
                code = fail(str(error), 2)
            else:
                code = 0
                if run is not None:
                    fit(run, model)
    except TrainingError as error:
        return fail(str(error), 1)
    except torch.distributed.DistNetworkError as error:
        return fail(
            f"the processes cannot meet at {os.environ.get('MASTER_ADDR')} port "
            f"{os.environ.get('MASTER_PORT')}: {first_line(error)} If another run uses "
            "the port, choose a free one with the launcher's --master_port",
            1,
        )
    except OSError as error:
        return fail(f"the system refused: {error}", 1)
    except KeyboardInterrupt as error:
        number = signals.State.number or signal.SIGINT
        said = (
            f"{error or 'interrupted'}; the same command goes on from the last checkpoint, if any"
        )
        return fail(f"{signal.Signals(number).name}: {said}", signals.exit_code(number))
    # After a refusal too: DeepSpeed joins the processes as soon as its arguments are read, and NCCL
    # would add a warning to the one message.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return code


def prepare(argv: list[str] | None, held: contextlib.ExitStack) -> Run | None:
    """Read and check arguments and data; None if the run is finished already, or with --check.

    `held` takes what is held until the run ends: the lock of the output directory.
    """
    arguments = parse(argv)
    check(arguments)
    model_args, _, data_args, args = arguments
    if args.check:
        source = model_args.model_name_or_path
        if not is_absent(source) and Path(resolve(source)).is_dir():
            read_model(arguments)
        say(GO_TOGETHER)
        return None
    held.enter_context(run_record.output_lock(args))
    record = run_record.new_record(arguments)
    output_dir = args.directory
    resume = None
    if not args.overwrite_output_dir:
        if run_record.is_finished(output_dir, record):
            return None
        resume = checkpoints.last_complete(output_dir, args.world_size)
    template, config = read_model(arguments)
    train_set, eval_set = read_data(data_args, template, longest_example(config, args))
    check_schedule(args, config, len(train_set.lengths))
    record["data"] |= train_set.report.to_dict()
    return Run(arguments, config, template, train_set, eval_set, record, resume)


def read_model(arguments: Arguments) -> tuple[ChatTemplate, Any]:
    """The chat template and the configuration of the model, without its weights."""
    model_args, lora, _, args = arguments
    source, trusted = model_args.model_name_or_path, model_args.trust_remote_code
    options: dict[str, Any] = {"cache_dir": args.cache_dir, "trust_remote_code": trusted}
    tokenizer, config = load_tokenizer(source, **options), load_config(source, **options)
    stops = load_stop_ids(source, **options)
    template = ChatTemplate(tokenizer, model_args.chat_template, stops)
    template.install(tokenizer)
    if lora.enabled:
        check_targets(lora, config, args, trusted)
    return template, config


def fit(run: Run, model: Any) -> None:
    """Train, save, reopen what was saved, and write the record."""
    args, tokenizer, started = run.args, run.template.tokenizer, time.monotonic()
    if args.overwrite_output_dir:
        run_record.start_anew(args)
    args.report_to = start_wandb(
        args.trackers,
        str(args.directory),
        args.run_name,
        processes.logger,
        processes.is_first_process(),
    )
    if run.eval_set is None:
        args.eval_strategy, args.do_eval = "no", False
    trainer = RWRTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        train_dataset=run.train_set,
        eval_dataset=run.eval_set,
        data_collator=Collator(tokenizer.pad_token_id or 0),
    )
    if args.should_save:
        write_json(run.args.directory / RECORD, run.record)
    say(marked_sample(run.train_set[0], run.template))
    if run.resume:
        say(f"resuming from {run.resume}")
    signals.defer()
    resume = str(run.resume) if run.resume else None
    metrics = trainer.train(resume_from_checkpoint=resume).metrics
    step, steps = trainer.state.global_step, trainer.state.max_steps
    trainer.accelerator.wait_for_everyone()
    if trainer.stop.number:
        signals.State.number = trainer.stop.number  # of whichever process had it
        raise signals.Ended(f"stopped after step {step} of {steps}, which is saved")
    with checkpoints.saving(run.args.directory):
        trainer.save_model()
        # Under the names that users of transformers' Trainer look for.
        trainer.save_metrics("train", metrics | {"train_samples": len(run.train_set)})
        trainer.save_state()
    if args.should_save:
        finish(run, trainer, time.monotonic() - started)
    trainer.accelerator.wait_for_everyone()


def load(run: Run) -> Any:
    """The model, with the attention that suits it and the machine, and its adapter if any."""
    model_args, lora, args = run.arguments.model, run.arguments.lora, run.args
    wanted = model_args.attn_implementation
    threads = processes.share_cores()
    if args.deepspeed:
        processes.start_deepspeed(on_cpu=args.device.type == "cpu")
    attention = wanted or pick_attention(run.config, args.device)
    if attention.startswith("flash") and not (args.bf16 or args.fp16):
        attention = "sdpa"
    model = load_model(
        model_args.model_name_or_path,
        device=None,
        # Frozen weights need no copy in float32.
        dtype="bfloat16" if lora.enabled and args.bf16 else "float32",
        attn_implementation=attention,
        cache_dir=args.cache_dir,
        trust_remote_code=model_args.trust_remote_code,
        **quantization(lora, args),
    )
    if lora.q_lora:
        keep_gradients(model)
    if args.batching == "tree":
        dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        say(use_trees(model, wanted, max(run.train_set.lengths), args.device, dtype))
    say(
        f"attention: {model.config._attn_implementation} "
        f"({'as asked' if wanted else 'chosen; --attn_implementation overrides'}); "
        f"{checkpoints.model_parameters(model):,} parameters; {threads} CPU threads a process"
    )
    if args.bf16 and args.device.type == "cpu" and not computes_bfloat16():
        say("this CPU does not compute in bfloat16 itself, so --bf16 True is several times slower")
    allow_saving(model)
    if lora.enabled:
        model = add_adapter(model, lora, args)
        say(f"adapter: {checkpoints.trained_parameters(model):,} of them are trained")
    return model


def finish(run: Run, trainer: RWRTrainer, seconds: float) -> None:
    """Reopen the saved checkpoint, write the final record, and say what to do next."""
    expected, saved = (
        checkpoints.trained_parameters(trainer.model),
        checkpoints.saved_parameters(run.args.directory),
    )
    if saved != expected:
        raise TrainingError(
            f"{run.args.directory} holds {saved:,} parameters and the model has {expected:,}: "
            "too many are another model's files; with too few the save was not gathered, so set "
            "stage3_gather_16bit_weights_on_model_save in the DeepSpeed file"
        )
    load_tokenizer(run.args.directory)
    state = trainer.state
    run.record |= {
        "status": "finished",
        "files": checkpoints.saved_files(run.args.directory),
        "fingerprint": fingerprint(str(run.args.directory)),
        "parameters": saved,
        "steps": state.global_step,
        "seconds": round(seconds, 1),
        "log_history": state.log_history,
    }
    write_json(run.args.directory / RECORD, run.record)
    if run.args.save_strategy == "no":
        checkpoints.remove(run.args.directory)  # that of a signal, where an earlier call ended
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    # A run shorter than --logging_steps has logged no loss.
    course = f", loss {losses[0]:.4f} -> {losses[-1]:.4f}" if losses else ""
    say(
        f"trained {state.global_step} steps in {seconds:.0f} s{course}\n"
        f"checkpoint: {run.args.directory} ({saved:,} parameters, reopened)"
    )
    say(f"next: {run_record.evaluation(run.record['data']['path'], run.args.directory)}")


def longest_example(config: Any, args: TrainingArguments) -> int:
    context, asked = context_length(config), args.model_max_length
    if context < asked:
        say(f"--model_max_length {asked}: the model has {context} positions, using those")
    return min(context, asked)
