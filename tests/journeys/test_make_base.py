"""The base model of the quickstart: what is learned, what is saved, a kill in between.

python -m pytest tests/journeys/test_make_base.py
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data import arithmetic
from fastchat.conversation import ChatTemplate
from rise.program.files import write_lines
from scripts.quickstart import make_base
from tests.support.stages import run_main


@pytest.fixture(scope="module")
def chats():
    return [chat["messages"] for chat in arithmetic.warmup_chats(300, seed=0)]


@pytest.fixture(scope="module")
def tokenizer(chats):
    return make_base.build_tokenizer([make_base.render(messages)[0] for messages in chats])


@pytest.fixture(scope="module")
def warmup(tmp_path_factory):
    path = tmp_path_factory.mktemp("warmup") / "warmup.jsonl"
    write_lines(path, arithmetic.warmup_chats(64, seed=0))
    return path


def words(warmup: Path, folder: Path, *arguments: object) -> list[str]:
    files = ["--data_path", str(warmup), "--output_dir", str(folder)]
    return [make_base.__file__, *files, *map(str, arguments)]


def run(warmup: Path, folder: Path, *arguments: object, code: int = 0):
    return run_main(make_base.main, *words(warmup, folder, *arguments), code=code)


@pytest.fixture(scope="module")
def base(warmup, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "base"
    run(warmup, folder)
    return folder


def test_the_ids_learned_are_those_that_are_served(chats, tokenizer):
    template = ChatTemplate(tokenizer)
    for messages, example in zip(chats, make_base.encode(chats, tokenizer), strict=True):
        plain = [{"role": m["role"], "content": m["content"]} for m in messages]
        prompt, action, *_ = template.encode(plain)
        assert example.ids == prompt + action
        assert example.ids[: len(prompt)] == template.prompt_ids(plain[:-1])


def test_a_given_beginning_and_the_questions_are_not_learned(tokenizer):
    messages = [
        {"role": "user", "content": "How many at first?"},
        {"role": "assistant", "content": "<<7-2=5>>5\n\\boxed{7}", "given": "<<7"},
        {"role": "user", "content": "Next."},
        {"role": "assistant", "content": "<<4+1=5>>5\n\\boxed{4}", "given": ""},
    ]
    example = make_base.encode([messages], tokenizer)[0]
    learned = [i for i, yes in zip(example.ids, example.learned, strict=True) if yes]
    assert tokenizer.decode(learned) == ("-2=5>>5\n\\boxed{7}<end><<4+1=5>>5\n\\boxed{4}<end>")


def test_the_checkpoint_loads_as_any_other(base, chats, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    loaded = AutoTokenizer.from_pretrained(base)
    assert loaded.chat_template == make_base.CHAT_TEMPLATE
    assert model.generation_config.eos_token_id == loaded.eos_token_id
    assert loaded.bos_token_id is None
    assert model.get_input_embeddings().num_embeddings == len(loaded)
    text = make_base.render(chats[0])[0]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    record = json.loads((base / "recipe.json").read_text())
    assert record["parameters"] == model.num_parameters()
    assert 200_000 < model.num_parameters() < 250_000


def test_what_is_there_is_kept_and_another_recipe_is_refused(base, warmup, tmp_path):
    before = (base / "model.safetensors").stat().st_mtime_ns
    assert "nothing to do" in run(warmup, base).stdout
    assert "another seed;" in run(warmup, base, "--seed", 1, code=2).stderr
    assert (base / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not empty" in run(warmup, tmp_path, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_gpu_that_is_not_there_is_one_error(warmup, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = run(warmup, tmp_path / "base", "--device", "cuda", code=2)
    assert done.stderr.strip().startswith("make_base.py: error: --device cuda: torch sees no GPU")
    assert not (tmp_path / "base").exists()


def test_a_killed_run_leaves_nothing_and_the_same_command_completes(tmp_path):
    warmup, folder = tmp_path / "warmup.jsonl", tmp_path / "base"
    write_lines(warmup, arithmetic.warmup_chats(400, seed=0))
    command = [sys.executable, *words(warmup, folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "base:" in line:  # training has begun
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["warmup.jsonl"]
    run(warmup, folder)
    assert (folder / "model.safetensors").is_file()


def test_a_missing_file_is_a_usage_error_that_names_the_command(tmp_path):
    done = run(tmp_path / "warmup.jsonl", tmp_path / "base", code=2)
    assert "data/arithmetic.py" in done.stderr


def test_the_loss_falls(chats, tokenizer):
    model = make_base.build_model(tokenizer, seed=0)
    examples = make_base.encode(chats, tokenizer)
    before = float(make_base.batch_loss(model, examples[:32]).detach())
    make_base.train(model, examples, 4e-3, seed=0)
    assert float(make_base.batch_loss(model, examples[:32]).detach()) < 0.7 * before


def test_batch_loss_ignores_padding_and_what_is_given(chats, tokenizer):
    model = make_base.build_model(tokenizer, seed=0).eval()
    examples = make_base.encode(chats[:4], tokenizer)
    together = float(make_base.batch_loss(model, examples).detach())
    tokens = [sum(example.learned) for example in examples]
    apart = [float(make_base.batch_loss(model, [example]).detach()) for example in examples]
    mean = sum(n * loss for n, loss in zip(tokens, apart, strict=True)) / sum(tokens)
    assert together == pytest.approx(mean, rel=1e-5)
