"""From the worker's sampler to the trainer's batch: no token is made twice.

python -m pytest tests/unit/test_tokens_in_tokens_out.py
"""

import json

import pytest

from fastchat.conversation import ChatTemplate, unpack_ids
from fastchat.serve import base_model_worker, controller, openai_api_server
from fastchat.train.data.rwr_dataset import RWRDataset
from tests.support import conversion
from tests.support.served import started
from tests.support.servers import register, running
from tests.support.stages import call, write_inputs
from tests.support.thinking import tokenizer_of
from tests.support.tiny import tiny_config


def save(directory, family):
    """A random checkpoint with the tokenizer and the template of a family."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer_of(family)
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(params=["r1"])
def served(request, tmp_path):
    """(controller's URL, what the worker answered, the checkpoint's chat template)."""
    write_inputs(tmp_path, problems=4)
    path = save(tmp_path / "model", request.param)
    replies = []
    with started(path) as worker, running(controller.create_app()) as control:
        generate = worker.generate

        async def recorded(job):
            replies.append(await generate(job))
            return replies[-1]

        worker.generate = recorded
        with running(base_model_worker.create_app(worker)) as url:
            register(control, url, worker)
            yield control, replies, worker.template


def generate(tmp_path, control, *more):
    words = ("--controller_address", control, "--log_dir", "run", "--models", *["model"] * 3)
    words += ("--max_turns", 3, "--num_of_samples", 2, 1, 1, "--max_new_tokens", 120, *more)
    call(tmp_path, "workflow_gen.py", *words)
    return [json.loads(line) for line in (tmp_path / "run/rows.jsonl").open()]


def convert(tmp_path, *more):
    output = tmp_path / "data.json"
    run = ("--filepath", tmp_path / "run", "--output", output, "--overwrite")
    assert conversion.convert(*run, *more) == 0
    return output, json.loads((tmp_path / "data.json.report.json").read_text())


def trained(dataset):
    return [
        (list(e.input_ids[: e.action_start]), list(e.input_ids[e.action_start :])) for e in dataset
    ]


@pytest.mark.parametrize(
    ("served", "window"), [("qwen3.5", None), ("llama-3.2", 2), ("mistral", 2)], indirect=["served"]
)
def test_the_tokens_that_are_trained_are_those_that_were_sampled(served, window, tmp_path):
    control, replies, template = served
    rows = generate(tmp_path, control, *(["--context_window", window] if window else []))
    output, report = convert(tmp_path, "--model_path", str(tmp_path / "model"))
    dataset = RWRDataset(output, ChatTemplate(template.tokenizer), 2048)
    sampled = [(r["prompt_token_ids"], ids) for r in replies for ids in r["token_ids"]]
    assert len(dataset) == 12 and all(pair in sampled for pair in trained(dataset))
    cut = sum(action[-1] not in template.stop_token_ids for _, action in trained(dataset))
    assert 0 < cut < 12, "the test needs both kinds of answers"
    for found in (report, vars(dataset.report)):
        assert (found["recorded_ids"], found["tokenized"], found["truncated"]) == (12, 0, cut)
    assert report["tokens"]["answer"]["total"] == dataset.report.action_tokens
    packed = [ids for row in rows for ids in row["turn_history"]["token_ids"]["0"]]
    assert sorted(map(unpack_ids, packed)) == sorted(
        ids for reply in replies if isinstance(reply["text"], list) for ids in reply["token_ids"]
    )
    _, report = convert(tmp_path, "--drop_truncated")
    assert (report["rows"], report["truncated"]) == (12 - cut, 0)
    assert report["dropped"]["cut at the limit of new tokens"] == cut


@pytest.mark.parametrize("served", ["llama-3.2"], indirect=True)
def test_behind_an_openai_server_tokens_and_day_are_those_of_the_worker_too(served, tmp_path):
    control, replies, template = served
    with running(openai_api_server.create_app(control)) as url:
        name = f"model@{url}/v1"
        rows = generate(tmp_path, control, "--limit", 2, "--models", *[name] * 3)
    assert all(row.get("date") is None for row in rows), "FastChat prints one day"
    output, report = convert(tmp_path, "--model_path", str(tmp_path / "model"))
    dataset = RWRDataset(output, ChatTemplate(template.tokenizer), 2048)
    sampled = [(r["prompt_token_ids"], ids) for r in replies for ids in r["token_ids"]]
    assert len(dataset) == 6 and all(pair in sampled for pair in trained(dataset))
    assert report["recorded_ids"] == dataset.report.recorded_ids == 6


@pytest.mark.parametrize("served", ["llama-3.2"], indirect=True)
def test_the_day_on_which_a_run_began_is_the_one_that_it_prints_to_the_end(served, tmp_path):
    control, replies, template = served
    generate(tmp_path, control, "--limit", 2)
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"date": "2026-01-02"}))
    journal = tmp_path / "run/rows.jsonl"
    kept = json.loads(journal.read_text().splitlines()[0])
    journal.write_text(json.dumps(kept | {"date": "2026-01-02"}) + "\n")
    replies.clear()
    rows = generate(tmp_path, control, "--limit", 2)
    assert [row["date"] for row in rows] == ["2026-01-02"] * 2
    prompts = [template.tokenizer.decode(reply["prompt_token_ids"]) for reply in replies]
    assert prompts and all("Today Date: 02 Jan 2026" in prompt for prompt in prompts)
    output, _ = convert(tmp_path)
    dataset = RWRDataset(output, template, 2048)
    sampled = [(r["prompt_token_ids"], ids) for r in replies for ids in r["token_ids"]]
    assert sum(pair in sampled for pair in trained(dataset)) == 3


def test_a_log_from_before_tokens_were_recorded_still_trains(served, tmp_path):
    control, _, template = served
    rows = generate(tmp_path, control, "--limit", 3)
    for row in rows:
        for key in ("token_ids", "tokenizer"):
            del row["turn_history"][key]
        del row["date"]
    journal = tmp_path / "run/rows.jsonl"
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert generate(tmp_path, control, "--limit", 3) == rows, "the run is finished"
    output, report = convert(tmp_path)
    dataset = RWRDataset(output, template, 2048)
    assert report["tokenized"] == dataset.report.tokenized == len(dataset) == 9


@pytest.mark.parametrize("served", ["qwen3.5"], indirect=True)
def test_a_checkpoint_with_another_tokenizer_is_trained_on_the_text_and_says_so(
    served, tmp_path, capsys
):
    control, _, _ = served
    generate(tmp_path, control, "--limit", 2)
    other = tokenizer_of("r1")
    other.save_pretrained(tmp_path / "other")
    output, report = convert(tmp_path, "--model_path", str(tmp_path / "other"))
    assert report["tokens"]["of_another_tokenizer"] == 6
    assert "NOTICE: the recorded tokens of 6 answers" in capsys.readouterr().out
    found = RWRDataset(output, ChatTemplate(other), 2048).report
    assert (found.recorded_ids, found.tokenized, found.other_tokenizer) == (0, 6, 6)
    assert any("tokens of another tokenizer" in notice for notice in found.notices())


def test_an_empty_answer_that_was_cut_trains_nothing(tmp_path):
    rows = [
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", **answer}]}
        for answer in (
            {"value": "4", "loss": 1.0},
            {"value": "", "loss": 1.0, "finish_reason": "length"},
        )
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows))
    dataset = RWRDataset(path, ChatTemplate(tokenizer_of("qwen3")), 64)
    assert len(dataset) == dataset.report.without_answer == 1
