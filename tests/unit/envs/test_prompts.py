r"""What a model is told in each style, and the checks of a user's own texts.

python -m pytest tests/unit/envs/test_prompts.py
"""

import json
from dataclasses import asdict

import pytest

import envs
from envs.prompts import BARE, PromptStyle, load_style

OWN = {
    "system": None,
    "example_question": "1 + 1?",
    "example_answer": r"\boxed{2}",
    "question": "Q: {question}",
    "wrong": "No. Q: {question}",
    "no_answer": "Where is it? Q: {question}",
    "right": "Yes.",
}


@pytest.fixture
def env_with(tmp_path):
    def make(name: str, style: str):
        path = tmp_path / "one.jsonl"
        path.write_text(envs.NAMES[name].example_line)
        return envs.make(name, path, prompt_style=style)

    return make


@pytest.fixture
def style_file(tmp_path):
    def write(content: object) -> str:
        path = tmp_path / "style.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_the_default_asks_for_steps_and_a_box(env_with, name):
    env = env_with(name, "default")
    opening = env.opening(0)
    assert [message["role"] for message in opening] == ["system", "user", "assistant", "user"]
    assert "step by step" in opening[0]["content"] and r"\boxed{}" in opening[0]["content"]
    assert env.question(0) in opening[-1]["content"] and r"\boxed{}" in opening[-1]["content"]
    for verdict in ("wrong", "no_answer"):
        assert env.question(0) in env.feedback(0, verdict)
        assert r"\boxed{}" in env.feedback(0, verdict)
    assert len({env.feedback(0, verdict) for verdict in ("right", "wrong", "no_answer")}) == 3


def test_bare_shows_the_question_alone(env_with):
    env = env_with("gsm8k", "bare")
    question = env.question(0)
    assert env.opening(0) == [{"role": "user", "content": question}]
    retry = f"The answer is incorrect. Please try again. {question}"
    assert env.feedback(0, "wrong") == env.feedback(0, "no_answer") == retry


def test_braces_in_a_question_are_left_alone(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"question": "Is {x} {question}?", "answer": "#### 5"}))
    env = envs.make("gsm8k", path, prompt_style="bare")
    assert env.opening(0)[0]["content"] == "Is {x} {question}?"


def test_a_file_holds_a_users_own_texts(env_with, style_file):
    env = env_with("gsm8k", style_file(OWN))
    assert asdict(env.style) == asdict(BARE) | OWN
    assert env.opening(0) == [
        {"role": "user", "content": "Q: 1 + 1?"},
        {"role": "assistant", "content": r"\boxed{2}"},
        {"role": "user", "content": f"Q: {env.question(0)}"},
    ]
    assert env.feedback(0, "no_answer") == f"Where is it? Q: {env.question(0)}"


def test_texts_that_some_modes_need_have_defaults_and_can_be_replaced(env_with, style_file):
    env = env_with("gsm8k", style_file({**OWN, "judge": "Is it right? {question}"}))
    assert env.text("judge", 0) == f"Is it right? {env.question(0)}"
    for name in ("judge", "critique"):
        text = getattr(BARE, name)
        assert r"\boxed{right}" in text and r"\boxed{wrong}" in text
    told = PromptStyle(**OWN).fill("refine", question="1 + 1?", critique="See {question}.")
    assert "See {question}." in told and told.endswith("1 + 1?")


def without(*keys: str) -> dict:
    return {key: text for key, text in OWN.items() if key not in keys}


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (without("wrong", "right"), ["missing key 'wrong'", "missing key 'right'"]),
        ({**OWN, "worng": "x", "colour": "x"}, ["unknown key 'worng'", "unknown key 'colour'"]),
        ({**without("system"), "sytem": "x"}, ["unknown key 'sytem'", "missing key 'system'"]),
        ({**OWN, "wrong": None}, ["'wrong' must be a text"]),
        ({**OWN, "right": 5}, ["'right' must be a text"]),
        ({**OWN, "system": []}, ["'system' must be a text or null"]),
        ({**OWN, "question": "no place"}, ["'question' must contain {question}"]),
        ({**OWN, "judge": None}, ["'judge' must be a text"]),
        ({**OWN, "refine": "Again.", "hint": "It is 5."}, ["{critique}", "{reference}"]),
        ({**OWN, "example_answer": None}, ["'example_question' and 'example_answer' go together"]),
        ([], ["must be an object with the keys"]),
        ("{", ["is not JSON"]),
    ],
)
def test_faults_of_a_style_file_are_named_together(style_file, content, faults):
    path = style_file(content)
    with pytest.raises(ValueError) as caught:
        load_style("gsm8k", path)
    assert path in str(caught.value)
    assert [fault for fault in faults if fault not in str(caught.value)] == []


def test_unknown_styles_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown prompt style 'chatty': use default, bare or"):
        load_style("gsm8k", "chatty")
    with pytest.raises(ValueError, match="cannot read the prompt style"):
        load_style("gsm8k", str(tmp_path / "none.json"))
