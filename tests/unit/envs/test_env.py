r"""The environments: the Python interface, gymnasium's rules, problem files, rewards.

python -m pytest tests/unit/envs/test_env.py
"""

import asyncio
import hashlib
import tracemalloc

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from rise.metrics.votes import vote

GSM8K_ROWS = [
    {"question": "What is 40 + 32?", "answer": "40 + 32 = <<40+32=72>>72\n#### 72"},
    {"question": "What is 2000 + 125?", "answer": "#### 2,125", "source": "ours"},
]
MATH_ROWS = [
    {"problem": "Solve $x^2 = 8$, $x > 0$.", "solution": r"$x = \boxed{2\sqrt{2}}$", "level": 1},
    {"problem": "Compute $1/2$.", "solution": r"It is $\boxed{\frac{1}{2}}$."},
]
IDS = {"gsm8k": "GSM8K", "math": "MATH", "svamp": "SVAMP", "asdiv": "ASDiv", "numeric": "Numeric"}


@pytest.fixture
def gsm8k(write):
    return envs.make("gsm8k", write(*GSM8K_ROWS))


def test_names_are_found_in_any_case(write):
    path = write(*GSM8K_ROWS)
    assert all(
        isinstance(envs.make(name, path), envs.GSM8K) for name in ("gsm8k", "GSM8K", "Gsm8k")
    )
    assert envs.grade("MATH", r"\boxed{1}", r"\boxed{1}") == 1
    with pytest.raises(ValueError, match="unknown environment 'aqua': use one of gsm8k, math"):
        envs.make("aqua", path)
    with pytest.raises(ValueError, match="unknown environment"):
        envs.grade("", "x", "y")


@pytest.mark.parametrize("name", IDS)
@pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_gymnasium_accepts_the_environments_and_their_examples_are_right(tmp_path, name):
    path = tmp_path / "example.jsonl"
    path.write_text("\ufeff" + envs.NAMES[name].example_line, encoding="utf-8")
    made = gymnasium.make(f"rise/{IDS[name]}-v0", data_path=path)
    check_env(made.unwrapped)
    observation, info = made.reset(seed=3)
    assert info["index"] == 0 and observation == info["messages"][-1]["content"]
    env = envs.make(IDS[name], path)
    answer = "5" if name == "math" else env.reference(0).rsplit("#### ")[-1]
    assert env.grade(f"\\boxed{{{answer}}}", 0) == envs.Grade("right", answer, 1)
    _, asked, shown, question = env.opening(0)
    assert env.question(0) in question["content"] and asked["content"] != question["content"]
    assert shown["content"].endswith(r"\boxed{7}" if name == "numeric" else r"\boxed{5}")


def test_rewards_by_verdict():
    numeric = {"right": 1, "wrong": 0, "no_answer": -1, "timeout": 0}
    assert {name: kind.rewards for name, kind in envs.NAMES.items()} == {
        **dict.fromkeys(("gsm8k", "svamp", "asdiv", "numeric"), numeric),
        "math": {"right": 1, "wrong": 0, "no_answer": 0, "timeout": 0},
    }
    assert envs.grade("gsm8k", "it is 72", "#### 72") == -1
    assert envs.grade("math", "one half", r"so \boxed{\frac{1}{2}}") == 0


def test_an_episode_with_oracle_ends_at_the_first_right_answer(gsm8k):
    question = gsm8k.question(0)
    observation, info = gsm8k.reset(options={"index": 0})
    assert question in observation and info["messages"] == gsm8k.opening(0)
    heard, reward, terminated, truncated, info = gsm8k.step("no idea")
    assert (reward, terminated, truncated) == (-1, False, False)
    assert info == {"verdict": "no_answer", "answer": None}
    assert heard == gsm8k.feedback(0, "no_answer") and question in heard
    heard, reward, terminated, truncated, info = gsm8k.step(r"\boxed{71}")
    assert (reward, terminated, truncated) == (0, False, False)
    assert info == {"verdict": "wrong", "answer": "71"} and heard == gsm8k.feedback(0, "wrong")
    heard, reward, terminated, truncated, info = gsm8k.step(r"\boxed{72 \text{ clips}}")
    assert (reward, terminated, truncated) == (1, True, False)
    assert info == {"verdict": "right", "answer": r"72 \text{ clips}"}
    assert heard == gsm8k.feedback(0, "right")
    with pytest.raises(gymnasium.error.ResetNeeded):
        gsm8k.step(r"\boxed{72}")


def test_without_oracle_every_attempt_is_called_wrong_until_the_turns_are_over(write):
    env = envs.make("gsm8k", write(*GSM8K_ROWS), max_turns=2)
    env.reset(options={"index": 0})
    assert env.step("")[2:4] == (False, False)
    assert env.step("")[2:4] == (False, True)
    env = envs.make("gsm8k", write(*GSM8K_ROWS), max_turns=3, feedback="none")
    env.reset(options={"index": 0})
    for turn, response in enumerate([r"\boxed{72}", "nothing", r"\boxed{1}"]):
        heard, _, terminated, truncated, _ = env.step(response)
        assert heard == env.feedback(0, "wrong")
        assert (terminated, truncated) == (False, turn == 2)


def test_feedback_gets_the_attempt_where_it_has_a_place_for_it(write):
    class Echo(envs.GSM8K):
        def feedback(self, index, verdict, attempt):
            return f"{verdict}: {attempt}"

    class Old(envs.GSM8K):
        def feedback(self, index, verdict):
            return verdict

    path = write(*GSM8K_ROWS)
    for kind, heard in ((Echo, "wrong: so \\boxed{1}"), (Old, "wrong")):
        env = kind(path)
        env.reset(options={"index": 0})
        assert env.step("so \\boxed{1}")[0] == heard


def test_a_seed_chooses_the_problem(write):
    env = envs.make("gsm8k", write(*GSM8K_ROWS * 20))
    chosen = [env.reset(seed=seed)[1]["index"] for seed in (1, 1, 2, 3, 4)]
    assert chosen[0] == chosen[1] and len(set(chosen)) > 1
    with pytest.raises(ValueError, match="index 40 is outside the problems 0 to 39"):
        env.reset(options={"index": 40})


def test_grade_async_agrees_with_grade(write):
    env = envs.make("math", write(*MATH_ROWS))
    responses = [r"\boxed{\sqrt{8}}", r"\boxed{\sqrt{9}}", r"\boxed{2\sqrt2}", "none", r"\boxed{x"]

    async def grade_all():
        return await asyncio.gather(*(env.grade_async(response, 0) for response in responses))

    grades = asyncio.run(grade_all())
    verdicts = " ".join(grade.verdict for grade in grades)
    assert verdicts == "right wrong right no_answer no_answer"
    assert grades == [env.grade(response, 0) for response in responses]
    assert grades[0] == envs.Grade("right", r"\sqrt{8}", 1)


def test_same_answer_joins_what_the_grader_holds_equal(write, gsm8k):
    assert gsm8k.same_answer("72", "72.0 clips") and gsm8k.same_answer("2,125", "2125")
    assert not gsm8k.same_answer("72", "71") and not gsm8k.same_answer("72", "3, 4")
    assert gsm8k.same_answer("3, 4", "3, 4") and not gsm8k.same_answer("3, 4", "5, 6")
    assert not gsm8k.same_answer("72", "99999999!")
    env = envs.make("math", write(*MATH_ROWS))
    assert env.same_answer(r"\sqrt{8}", r"2\sqrt{2}") and env.same_answer("0.5", r"\frac12")
    assert not env.same_answer(r"\sqrt{8}", r"\sqrt{2}")


def test_same_answer_does_not_depend_on_which_of_the_two_comes_first(write):
    env = envs.make("math", write(*MATH_ROWS))
    # As the reference, "1,2" takes no point, and a point takes "1,2": a grade has a direction.
    assert env.accepts("(1,2)", "1,2") and not env.accepts("1,2", "(1,2)")
    assert env.same_answer("(1,2)", "1,2") and env.same_answer("1,2", "(1,2)")
    for answers in (["(1,2)", "1,2", "7", "7"], ["1,2", "(1,2)", "7", "7"]):
        assert vote(answers, env.same_answer) == [0, 1]
    assert not env.same_answer("(1,2)", r"\{1,2\}"), "what rise.metrics.votes says of it"
    assert env.same_answer("1,2", r"\{1,2\}")


@pytest.mark.parametrize(
    ("name", "line", "cause"),
    [
        ("gsm8k", b'{"question": "q", "answer": "#### 5"', "not JSON"),
        ("gsm8k", b'["q", "#### 5"]', "a JSON list, not an object; where .* makes lines"),
        ("gsm8k", b"[", "not JSON .*one list, `python -c .* makes lines of it"),
        ("gsm8k", b'{"problem": "p", "solution": "5"}', "'question' is missing.* --env MATH"),
        ("gsm8k", b'{"question": "q"}', "the key 'answer' is missing"),
        ("gsm8k", b'{"question": "q", "answer": 5}', "'answer' must be a text"),
        ("gsm8k", b'{"question": " ", "answer": "#### 5"}', "'question' must be a text"),
        ("gsm8k", b'{"question": "q", "answer": "#### five"}', "no number after '####'"),
        ("gsm8k", b'{"question": "q", "answer": "#### \xff"}', "not UTF-8 .*; save it as"),
        ("gsm8k", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("gsm8k", b"\x1f\x8b\x08", "not UTF-8 .* unpack it"),
        ("gsm8k", b"{", "not JSON .*one object over many lines holds no problems"),
        ("gsm8k", b"[" * 100_000, "not JSON"),
        ("math", b'{"problem": "p", "solution": "5"}', "no answer in \\\\boxed"),
        ("math", b'{"problem": "p", "solution": "\\\\boxed{5"}', "no answer in \\\\boxed"),
        ("math", b'{"question": "q", "answer": "#### 5"}', "'problem' is missing.* --env gsm8k"),
    ],
)
def test_a_bad_line_is_one_error_with_number_cause_and_example(tmp_path, name, line, cause):
    kind = envs.NAMES[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(kind.example_line.encode() + b"\n\n" + line + b"\n")
    with pytest.raises(ValueError, match=cause) as caught:
        envs.make(name, path)
    assert f"{path}, line 3: " in str(caught.value)
    assert str(caught.value).endswith(kind.example_line)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{\n"0": {"query": "q", "turn_history": {}}\n}\n', "the log of a run"),
        ('[\n{"id": "0", "conversations": []}\n]\n', "training data, as workflow_convert.py"),
    ],
)
def test_a_file_that_a_later_stage_reads_is_named(tmp_path, text, what):
    (tmp_path / "later.json").write_text(text)
    with pytest.raises(ValueError, match=f"later.json holds {what}.* no problems: give the file"):
        envs.make("gsm8k", tmp_path / "later.json")


def test_problems_are_read_again_when_asked_for(tmp_path, write):
    rows = [{"question": f"{i}?", "answer": f"#### {i}", "text": "x" * (i % 7)} for i in range(50)]
    path = write(*rows)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\n".join(lines) + b"\n \n\x0c")
    problems = envs.make("gsm8k", path).problems
    path.rename(tmp_path / "moved.jsonl")
    assert len(problems) == 50 and list(problems) == rows
    assert problems[-1] == rows[-1] and problems[3:9:2] == rows[3:9:2]
    with pytest.raises(IndexError):
        problems[50]
    assert problems.sha256 == hashlib.sha256((tmp_path / "moved.jsonl").read_bytes()).hexdigest()


def test_memory_does_not_grow_with_the_file(write, monkeypatch):
    monkeypatch.setattr("envs.problem_file.CACHED", 300)
    path = write(*[{"question": f"{i:05}" * 2500, "answer": f"#### {i}"} for i in range(2000)])
    tracemalloc.start()
    env = envs.make("gsm8k", path)
    asked = max(len(env.question(index)) for index in range(len(env)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert asked == 12_500
    assert peak < 10e6 < 20e6 < path.stat().st_size  # the rows that are cached take 4 MB


def test_a_file_changed_in_place_is_an_error_not_another_problem(write):
    path = write(*GSM8K_ROWS)
    env = envs.make("gsm8k", path)
    path.write_bytes(b"x" + path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="was changed while it is used: problem 1: not JSON"):
        env.question(1)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ValueError, match="python data/fetch.py gsm8k") as caught:
            envs.make("gsm8k", path)
        assert str(path) in str(caught.value)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="has no problems"):
        envs.make("gsm8k", tmp_path / "empty.jsonl")


@pytest.mark.parametrize("options", [{"max_turns": 0}, {"feedback": "loud"}, {"prompt_style": "x"}])
def test_bad_options_are_refused(write, options):
    with pytest.raises(ValueError, match=next(iter(options.values())).__str__()):
        envs.make("gsm8k", write(*GSM8K_ROWS), **options)
