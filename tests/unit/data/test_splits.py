"""The split of ASDiv, SVAMP and GSM8K: one rule, relatives together, expressions that are right.

python -m pytest tests/unit/data/test_splits.py
"""

import json

import pytest

import envs
from data import splits
from tests.support.stages import run_main

ROWS = [
    {
        "question": f"{name} has {a} {thing} and {verb} {b}. How many {thing} are left?",
        "answer": text,
    }
    for name, a, thing, verb, b, text in [
        ("Ann", 5, "pens", "sells", 2, "5-2=3\n#### 3"),
        ("Bob", 9, "pens", "sells", 4, "9-4=5\n#### 5"),
        ("A farmer", 12, "cows", "slaughters", 7, "12-7=5\n#### 5"),
        ("A baker", 30, "loaves", "burns", 6, "30-6=24\n#### 24"),
        ("The zoo", 8, "tigers", "buries", 1, "8-1=7\n#### 7"),
    ]
]


@pytest.mark.parametrize(
    ("answer", "expression"),
    [
        ("(88-24)-32=32\n#### 32", "88 - 24 - 32"),
        ("88-(24-32)=96\n#### 96", "88 - (24 - 32)"),
        ("12/(2*3)=2\n#### 2", "12 / (2 * 3)"),
        ("( 492.0 / 12.0 ) = 41\n#### 41", "492 / 12"),
        ("0.60*2=1.2; 5.15+1.2=6.35\n#### 6.35", "5.15 + 0.60 * 2"),
        ("<<10*2=20>>20, <<20-5=15>>15, <<15*20=300>>300\n#### 300", "(10 * 2 - 5) * 10 * 2"),
        ("29/9=3 r2\n#### 3", None),
        ("GCD(39,26)=13\n#### 13", None),
        ("8.0 = 8\n#### 8", None),
        ("4+5=9\n#### 10", None),
        ("no equation", None),
    ],
)
def test_a_solution_becomes_one_expression(answer, expression):
    assert splits.expression("", answer) == expression
    if expression:
        assert envs.grade("numeric", splits.expert({"question": "", "answer": answer}), answer) == 1


def test_a_number_that_the_question_names_stays_that_number():
    answer = "<<2*3=6>>6 and <<6+1=7>>7\n#### 7"
    assert splits.expression("2 of 3", answer) == "2 * 3 + 1"
    assert splits.expression("6 boxes, 2 of 3", answer) == "6 + 1"


def test_the_expert_gives_a_right_attempt_again_and_the_reference_otherwise():
    problem = {"question": "", "answer": "4+5=9\n#### 9"}
    for attempt, given in ((r"It is \boxed{5 + 4}", None), (r"\boxed{5 - 4}", r"\boxed{4 + 5}")):
        said = [{"role": "assistant", "content": attempt}, {"role": "user", "content": "No."}]
        assert splits.expert(problem, said) == (given or attempt)


def test_relatives_are_one_family_whatever_their_numbers():
    families = splits.families([row["question"] for row in ROWS])
    assert families[0] == families[1]
    assert len(set(families)) == 4


def test_families_are_never_in_two_files_and_no_problem_is_lost(tmp_path):
    source = tmp_path / "rows.jsonl"
    wrong = {"question": "Who? 4 + 5", "answer": "4-5=1\n#### 1"}
    named = ROWS[2] | {"question": "Something else with 3 and 4", "id": "chal-680"}
    source.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, wrong, named, ROWS[3]]))

    def made(*more):
        sizes = ("--test", 1, "--validation", 1, "--warm", 1)
        run_main(splits.main, "x.py", source, "--output_dir", tmp_path, *sizes, *more)
        return {
            name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()]
            for name in ("validation", "warm", "generate", "test")
        }

    files = made()
    questions = [row["question"] for rows in files.values() for row in rows]
    assert sorted(questions) == sorted(row["question"] for row in ROWS)
    [home] = [name for name, rows in files.items() if ROWS[0]["question"] in str(rows)]
    assert ROWS[1]["question"] in str(files[home])
    assert made() == files
    assert [len(rows) for rows in made("--generate", 1).values()][2] == 1

    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(ROWS[0]) + "\n")
    files = made("--test_from", other)
    assert [row["question"] for row in files["test"]] == [ROWS[0]["question"]]
    others = str([*files.values()][:3])
    assert not any(row["question"] in others for row in ROWS[:2])


def test_too_few_problems_are_refused(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n")
    done = run_main(splits.main, "x.py", source, "--output_dir", tmp_path, code=2)
    assert "nothing is left for validation, warm, generate" in done.stderr
