"""What the tests of `rise.iterate` share: a folder that it can work in, and its stages."""

import shlex

from rise import iterate
from rise.iteration_plan import plan
from tests.support.stages import write_inputs

TRAINER = """
import hashlib, json, pathlib, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
output = pathlib.Path(given["--output_dir"])
output.mkdir(parents=True, exist_ok=True)
seen = pathlib.Path(given["--data_path"]).read_bytes()
seen += pathlib.Path(given["--model_name_or_path"], "model.safetensors").read_bytes()
(output / "config.json").write_text("{}")
(output / "model.safetensors").write_bytes(hashlib.sha256(seen).digest())
"""
COMMAND = (
    "--model base --env gsm8k --train_data problems.jsonl --test_data problems.jsonl "
    "--expert experts.py:teacher --out out --launcher 'python trainer.py' "
    "--gen_args='--prompt_style bare' --eval_args='--prompt_style bare'"
)


def make_folder(directory):
    """A folder with problems, experts, a base and the stand-in for the trainer."""
    (directory / "base").mkdir(parents=True)
    write_inputs(directory, problems=12)
    (directory / "base" / "config.json").write_text("{}")
    (directory / "base" / "model.safetensors").write_bytes(b"base")
    (directory / "trainer.py").write_text(TRAINER)
    return directory


def planned(*words):
    """The stages of a command line, by name."""
    args = iterate.parse_args([*shlex.split(COMMAND), *words])
    return {stage.name: stage for stage in plan(args)}
