r"""Environments from a file and from an installed package, and the example of docs/grading.md.

python -m pytest tests/unit/envs/test_plugins.py
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

import envs
import workflow_convert
import workflow_eval
import workflow_gen
from envs import plugins
from envs.prompts import load_style
from rise.episodes.journal import load_episodes
from tests.support.conversion import convert
from tests.support.stages import call

PAGE = (Path(envs.__file__).parents[1] / "docs" / "grading.md").read_text(encoding="utf-8")
QUIZ = "quiz.py:MultipleChoice"
EXPERT = r"""
def f(problem, messages):
    'The first choice at turn 1, the right one after "not correct".'
    told = "not correct" in messages[-1]["content"]
    return "I take \\boxed{(%s)}" % (problem["answer"] if told else "A").lower()
"""
PARITY = """
from envs import NumberEnv

class Parity(NumberEnv):
    name = "parity"
    example_line = '{"question": "2 mod 2?", "answer": "0"}'
"""


ODD = ("'0'", "None", "float('nan')", "float('-inf')")


def paying(rewards: str) -> str:
    """The file of an environment with other rewards."""
    usual = "REWARDS = {'right': 1, 'wrong': 0, 'no_answer': -1, 'timeout': 0}"
    return f"{PARITY}\n{usual}\nclass Own(Parity):\n    rewards = {rewards}\n"


def block(language: str) -> str:
    """The one block of the page in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the files of the page's example, in which the test works."""
    (tmp_path / "quiz.py").write_text(block("python"))
    (tmp_path / "quiz.jsonl").write_text(block("json"))
    (tmp_path / "expert.py").write_text(EXPERT)
    (tmp_path / "Parity.py").write_text(PARITY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with these entry points and this module."""

    def install(points: str, module: str = PARITY) -> None:
        site = tmp_path / "site"
        metadata = site / "parity_env-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: parity-env\nVersion: 1.0")
        name = f"parity_env_{tmp_path.name}"
        (site / f"{name}.py").write_text(module)
        points = points.replace("MODULE", name)
        (metadata / "entry_points.txt").write_text(f"[rise.envs]\n{points}\n")
        monkeypatch.syspath_prepend(site)

    return install


def readme_command() -> list[str]:
    """The arguments of the page's command."""
    program, script, *rest = shlex.split(block("bash").replace("\\\n", " "))
    assert (program, script) == ("python", "workflow_gen.py")
    return rest


def gen(place, *more, code=0):
    words = (*readme_command(), "--prompt_style", "default", *more)
    return call(place, "workflow_gen.py", *words, code=code)


def test_the_example_generates_and_converts(place):
    done = gen(place)
    episodes = load_episodes(place / "log" / "quiz")
    assert [[turn.rewards for turn in episode.turns] for episode in episodes] == [[[0], [1]]] * 2
    assert episodes[0].turns[1].answers == ["(b)"]
    assert episodes[0].dialogue[0]["content"].startswith("Think step by step")
    assert episodes[0].dialogue[3]["content"].endswith("A. oxygen\nB. carbon dioxide")
    (converting,) = [line for line in done.stdout.splitlines() if line.startswith("Next: ")]
    assert f"--env {QUIZ}" in converting
    evaluate = [*readme_command()[:-2], "--log_dir", "log/eval", "--model", "expert.py:f"]
    assert "m1@t2" in call(place, "workflow_eval.py", *evaluate).stdout


def test_convert_finds_the_environment_of_a_run_and_of_a_published_log(place):
    gen(place)
    log = place / "log" / "quiz" / "2_turns.json"
    published = json.loads(log.read_text())
    for episode in published.values():
        episode["dialogue"] = []
    (place / "2_turns.json").write_text(json.dumps(published))
    again = ("--output", "out.json", "--overwrite")
    assert convert("--filepath", "2_turns.json", "--env", QUIZ, *again) == 0
    row = json.loads((place / "out.json").read_text())[0]
    assert row["conversations"][0]["value"].startswith("Think step by step")
    assert convert("--filepath", log, "--env", "gsm8k", *again) == 2
    (place / "quiz.py").unlink()
    assert convert("--filepath", log, *again) == 0
    assert convert("--filepath", "2_turns.json", "--env", QUIZ, *again) == 2


def test_a_run_is_resumed_with_the_same_file_only(place):
    gen(place)
    config = json.loads((place / "log" / "quiz" / "config.json").read_text())
    assert config["env"] == QUIZ and len(config["env_sha256"]) == 16
    assert "All 2 episodes" in gen(place).stdout
    (place / "quiz.py").write_text(block("python") + "\n# stricter\n")
    assert "env_sha256" in gen(place, code=2).stderr
    assert plugins.checksum(envs.GSM8K) is None


def test_the_example_is_an_environment(place):
    env = envs.make(QUIZ, "quiz.jsonl")
    check_env(env, skip_render_check=True)
    assert envs.grade(QUIZ, r"\boxed{\text{B}}", "B") == 1
    assert envs.grade(QUIZ, r"\boxed{C. Saturn}", "B") == 0
    assert envs.grade(QUIZ, r"\boxed{Saturn}", "B") == envs.grade(QUIZ, "B", "B") == -1
    assert env.same_answer("(b)", "B") and not env.same_answer("A", "B")
    for answer in ("C", "AB", "", 1):
        row = {"question": "?", "choices": ["x", "y"], "answer": answer}
        Path("bad.jsonl").write_text(json.dumps(row))
        with pytest.raises(ValueError, match="line 1: 'answer' must be one of A, B. A good line"):
            envs.make(QUIZ, "bad.jsonl")


def test_a_file_keeps_its_case_and_a_name_does_not():
    shared = ["--data_path", "p", "--log_dir", "l", "--models", "m"]
    for given, recorded in (("Dir/My.py:Env", "Dir/My.py:Env"), ("SVAMP", "svamp")):
        assert workflow_gen.parse_args([*shared, "--env", given]).env == recorded


@pytest.mark.parametrize("stage", [workflow_gen, workflow_eval, workflow_convert])
def test_an_unknown_name_lists_what_there_is(package, stage, capsys):
    package("Parity = MODULE:Parity")
    with pytest.raises(SystemExit) as stopped:
        stage.parse_args(["--env", "aqua"])
    assert stopped.value.code == 2
    told = "use one of gsm8k, math, svamp, asdiv, numeric, parity, or FILE.py:Class"
    assert f"argument --env: unknown environment 'aqua': {told}" in capsys.readouterr().err


def test_an_installed_package_offers_an_environment(tmp_path, package):
    package("Parity = MODULE:Parity\ngsm8k = MODULE:Parity")
    path = tmp_path / "one.jsonl"
    path.write_text('{"question": "3 mod 2?", "answer": "1"}')
    env = envs.make("PARITY", path)
    assert (env.name, env.grade(r"\boxed{1}", 0).reward) == ("parity", 1)
    assert len(plugins.checksum(type(env))) == 16
    assert envs.find("gsm8k") is envs.GSM8K


def test_a_package_that_cannot_be_loaded_is_one_error(package):
    package("parity = MODULE:Parity\nother = MODULE:Missing", "raise RuntimeError('not today')")
    with pytest.raises(ValueError, match="environment parity: .* raised RuntimeError: not today"):
        envs.find("parity")


def test_without_texts_of_its_own_a_plug_in_gets_some(place):
    kind = envs.find("Parity.py:Parity")
    assert kind.load_style("default") == load_style("parity", "default")
    assert "final answer" in kind.load_style("default").question
    assert envs.find(QUIZ).load_style("bare") == kind.load_style("bare")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "there is no file own.py"),
        ("import nothing_like_this", "raised ModuleNotFoundError"),
        ("raise SystemError('x')", "raised SystemError: x"),
        ("class (", "raised SyntaxError"),
        ("", "give a class that is derived from envs.Env (there is none of that name)"),
        ("class Own: pass", "give a class that is derived from envs.Env"),
        ("Own = 5", "give a class that is derived from envs.Env"),
        (
            "from envs import Env\nclass Own(Env):\n    name = 'own'",
            "lacks rewards, question_key, answer_key, example_line, answer_as_target, compare, "
            "target: see docs/grading.md",
        ),
        (paying("{'right': 1, 'wrong': 0}"), "rewards has no value for no_answer, timeout"),
        (paying("[1, 0]"), "give a dict"),
        *((paying(f"REWARDS | {{'wrong': {odd}}}"), "give finite numbers") for odd in ODD),
        *(
            # No log would know a success.
            (paying(f"REWARDS | {{{other}}}"), "right must pay 1 and everything else less")
            for other in ("'right': 10", "'wrong': 1")
        ),
    ],
)
def test_what_cannot_be_used_is_one_error_before_anything_starts(place, text, cause):
    if text is not None:
        (place / "own.py").write_text(text)
    said = gen(place, "--env", "own.py:Own", code=2).stderr
    assert said.count("environment own.py:Own") == 1 and cause in said
    assert not (place / "log").exists()
