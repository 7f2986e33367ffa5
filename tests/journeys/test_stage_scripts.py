"""The scripts of the stages build the published commands, from any folder, with their knobs.

    python -m pytest tests/journeys/test_stage_scripts.py

The commands run against stand-ins for `python` and `deepspeed` that record what they were given.
"""

import os
import shlex
from pathlib import Path

import pytest

from rise.dataset.arguments import problems_of
from tests.support.stages import ROOT, parsed, run_program, value

SCRIPTS = ("gen", "convert", "finetune_deepspeed", "eval_sequential", "eval_parallel")


@pytest.fixture
def call(tmp_path):
    """Run a script in a foreign folder; returns (what it printed, the arguments it passed on)."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name in ("python", "deepspeed"):
        path = stand_ins / name
        path.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$PWD" {name} "$@" > {tmp_path}/call\nexit ${{CODE:-0}}\n'
        )
        path.chmod(0o755)

    def run(script: str, *arguments: str, code: int = 0, **knobs: str):
        own = {"PATH": f"{stand_ins}:/usr/bin:/bin", "VIRTUAL_ENV": "active", "CODE": str(code)}
        words = ("bash", ROOT / "scripts" / f"{script}.sh", *arguments)
        done = run_program(*words, cwd=tmp_path, env=own | knobs, code=code)
        folder, *words = (tmp_path / "call").read_text().splitlines()
        assert Path(folder) == ROOT
        assert shlex.split(done.stdout.removeprefix("+")) == words
        return words

    return run


def test_gen_is_the_published_command(call):
    words = call("gen")
    assert words[:2] == ["python", "workflow_gen.py"]
    assert value(words, "--models") == "Llama-2-7b-chat-hf gpt-3.5-turbo"
    assert value(words, "--num_of_samples") == "1 1"
    assert value(words, "--max_turns") == "2"
    args = parsed(call("gen", MODELS="M M", NUM_OF_SAMPLES="1 16", ENV_NAME="MATH"))
    assert (args.models, args.num_of_samples, args.env) == (["M", "M"], [1, 16], "math")


def test_convert_pools_logs_and_pairs_are_converted_without_the_flags_of_rows(call):
    knobs = {"FILEPATH": "a b", "CRITERIA": "best", "TEMPERATURE": "0.5"}
    args = parsed(call("convert", "--dry-run", **knobs))
    assert args.filepath == ["a", "b"]
    assert (args.criteria, args.temperature, args.dry_run) == ("best", 0.5, True)
    assert args.remove_duplication and args.shuffle == 0
    for to in ("dpo", "pair_sft"):
        args = parsed(call("convert", TO=to))
        assert args.to == to and problems_of(args) == []


def test_finetune_is_the_published_command(call):
    words = call("finetune_deepspeed")
    published = shlex.split(
        "--deepspeed deepspeed/zero3.json --bf16 True --num_train_epochs 1 "
        "--per_device_train_batch_size 1 --per_device_eval_batch_size 1 "
        "--gradient_accumulation_steps 16 --evaluation_strategy steps --save_strategy steps "
        "--save_steps 100 --save_total_limit 8 --learning_rate 1e-5 --weight_decay 0. "
        "--warmup_ratio 0.04 --lr_scheduler_type cosine --logging_steps 1 --tf32 True "
        "--model_max_length 2048 --gradient_checkpointing True --lazy_preprocess False "
        "--report_to wandb"
    )
    assert words[0] == "deepspeed"
    assert value(words, "--master_port") == "20001 FastChat/fastchat/train/train_mem.py"
    for flag, setting in zip(published[::2], published[1::2], strict=True):
        assert value(words, flag) == setting
    assert (ROOT / "deepspeed" / "zero3.json").is_file()
    words = call("finetune_deepspeed", NUM_GPUS="2", ACCUMULATION="32", OUTPUT_DIR="out dir")
    assert "--num_gpus=2" in words
    assert value(words, "--gradient_accumulation_steps") == "32"
    assert value(words, "--output_dir") == "out dir"


def test_both_evaluations_take_the_same_number_of_answers(call):
    words = call("eval_sequential", MODEL="M")
    assert value(words, "--max_turns") == "5" and value(words, "--num_of_samples") == "1"
    assert value(words, "--context_window") == "2"
    assert value(words, "--model") == "M"
    parallel = call("eval_parallel", MODEL="M")
    assert value(parallel, "--max_turns") == "1" and value(parallel, "--num_of_samples") == "5"
    for flag in ("--log_dir", "--data_path", "--env", "--seed"):
        assert value(parallel, flag) == value(words, flag)


@pytest.mark.parametrize("script", SCRIPTS)
def test_more_arguments_are_passed_on_and_the_exit_code_is_the_commands(call, script):
    words = call(script, "--limit", "a b", code=3)
    assert words[-2:] == ["--limit", "a b"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_projects_environment_is_used_where_none_is_active(call, script, tmp_path):
    venv = os.path.relpath(tmp_path, ROOT)
    assert call(script, VIRTUAL_ENV="", PATH="/usr/bin:/bin", VENV=venv)
