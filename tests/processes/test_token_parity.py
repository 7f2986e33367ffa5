"""What the worker is fed is what the trainer sees, token by token, for five chat templates.

    python -m pytest tests/processes/test_token_parity.py

An episode of three turns is asked of a real worker; the same log is converted, and the trainer's
examples must begin with exactly the ids that the worker's engine was given.
"""

import json
import subprocess
import sys

import pytest

from fastchat.conversation import BUILT_IN, ChatTemplate
from fastchat.model.model_adapter import load_tokenizer
from fastchat.serve.base_model_worker import create_app
from fastchat.serve.model_worker import build_worker, parse_args
from fastchat.train.rwr_dataset import RWRDataset
from fastchat.utils import build_logger
from tests.support.servers import post, running
from tests.support.tiny import save_tiny_model

QUESTIONS = ["Ann has 2 pens and buys 3. How many?", "What is 7 - 9 in °C?  Two  spaces."]


@pytest.fixture(params=sorted(BUILT_IN))
def checkpoint(request, tmp_path):
    return save_tiny_model(tmp_path / "model", template=request.param)


def play(url, question, context_window):
    """Three turns with the worker; returns the record and the ids it was fed at every turn."""
    from envs.prompts import load_style
    from rise.episodes.episode import Episode, Turn, visible

    style = load_style("gsm8k", "default")
    opening = style.opening(question)
    episode = Episode(0, question, "#### 5", dialogue=list(opening))
    fed = []
    for turn in range(3):
        observations = [t.observation for t in episode.turns]
        shown = visible(opening, [t.action for t in episode.turns], observations, context_window)
        body = {"messages": shown, "max_new_tokens": 12, "seed": turn, "echo": False}
        reply = post(f"{url}/worker_generate", body | {"return_token_ids": True})
        assert reply["error_code"] == 0, reply
        fed.append(reply["prompt_token_ids"])
        if turn:
            episode.dialogue.append({"role": "user", "content": observations[-1]})
        episode.dialogue.append({"role": "assistant", "content": reply["text"]})
        observation = style.wrong.replace("{question}", question)
        episode.turns.append(
            Turn([reply["text"]], [None], ["wrong"], [0], [observation], ["length"], "m", {})
        )
    return episode, fed


@pytest.mark.parametrize("context_window", [None, 2])
def test_the_trained_context_is_the_fed_prompt(checkpoint, context_window, tmp_path):
    worker = build_worker(parse_args(["--model-path", str(checkpoint)]), build_logger("test"))
    worker.engine.start()
    try:
        with running(create_app(worker, None)) as url:
            played = [play(url, question, context_window) for question in QUESTIONS]
    finally:
        worker.engine.stop()

    log = {str(i): episode.to_dict() | {"task_id": i} for i, (episode, _) in enumerate(played)}
    (tmp_path / "3_turns.json").write_text(json.dumps(log))
    output = tmp_path / "finetune.json"
    command = [sys.executable, "workflow_convert.py", "--filepath", str(tmp_path / "3_turns.json")]
    if context_window is not None:
        command += ["--context_window", str(context_window)]
    subprocess.run([*command, "--output", str(output)], check=True)

    template = ChatTemplate(load_tokenizer(checkpoint))
    examples = RWRDataset(output, template, max_length=2048)
    fed = [ids for _, turns in played for ids in turns]
    assert len(examples) == len(fed) == 6
    for example, ids in zip(examples, fed, strict=True):
        assert list(example.input_ids[: example.action_start]) == ids
        assert example.input_ids[-1] == template.turn_end_id
