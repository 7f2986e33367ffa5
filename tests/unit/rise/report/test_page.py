r"""`python -m rise.report`: the page is opened in a real browser and used there.

python -m pytest tests/unit/rise/report/test_page.py
"""

import json
import re
import time

import pytest

from rise.episodes.episode import Episode
from rise.metrics.evaluation import open_run
from rise.report import charts, mathematics
from rise.report.__main__ import main
from rise.report.mathematics import Formulas
from rise.report.page import render, transitions
from tests.support.browser import browser, needs_browser  # noqa: F401  (a fixture)
from tests.support.run_dirs import write_run

# Ten problems, three turns; the right answer is 5.
RUN = ["w7 r5 r5"] * 4 + ["r5 w7 r5"] * 2 + ["r5 r5 r5"] + ["w7~ w8 -"] * 2 + ["- - -"]
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
    r"$\text{<img src=x onerror=window.hacked=3>}$ $\href{javascript:window.hacked=4}{x}$"
    "{{ 7 * 7 }} <b>bold</b> \ud800 half"
)


def change_rows(run, **texts) -> None:
    """Replace actions or questions in a run's rows."""
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if "action" in texts:
            history = row["turn_history"]
            history["actions"] = {turn: [texts["action"]] for turn in history["actions"]}
            history["best_actions"] = [texts["action"]] * len(history["best_actions"])
        row["query"] = texts.get("query", row["query"])
        row["dialogue"][0]["content"] = row["query"]
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def open_page(browser, tmp_path):  # noqa: F811
    """Write the report of runs and open it; fails on any error or message of the page."""
    pages, messages = [], []

    def opened(*runs, width=1200, color_scheme="light"):
        assert main([*map(str, runs), "-o", str(tmp_path / "report.html")]) == 0
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=color_scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.on("request", lambda request: pages.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield opened
    assert messages == []
    assert all(url.startswith("file:") and url.endswith("report.html") for url in pages)


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("It costs $5 and then $7.", 0),
        ("That is $48+24=72$ clips.", 1),
        (r"\[ \frac{1}{2} \] or \( x \), so \boxed{\frac{1}{2}}", 3),
        ("$$a^2$$ again $$a^2$$", 1),
        (r"$\undefined{$ and $\frac{1}{$", 0),
        ("$" + "x+" * 400 + "y$", 0),
        (r"\[ \begin{matrix} a \\[2pt] b \end{matrix} \] and \( \( x \)", 2),
    ],
)
def test_formulas_are_found_and_nothing_is_lost(text, formulas):
    found = Formulas()
    pieces = found.pieces(text)
    assert len(found.trees) == formulas
    if not formulas:
        assert "".join(pieces) == text


@pytest.mark.parametrize("repeated", [r"\(x ", r"\[x ", r"\\[x ", r"\boxed{", "$$ ", r"\(a$"])
def test_a_text_that_opens_formulas_in_a_loop_is_read_once(repeated):
    started = time.process_time()
    assert Formulas().pieces(repeated * 30_000)
    # Read to its end from each opening, it would take a minute.
    assert time.process_time() - started < 5


def test_a_converted_formula_has_known_elements_only():
    found = Formulas()
    found.pieces(HOSTILE)
    text = json.dumps(found.trees)
    assert found.trees
    assert '"script"' not in text and "href" not in text and "onerror" in text
    tags = set(re.findall(r'\["(\w+)", \{', text))
    assert tags <= mathematics.TAGS


def test_transitions_count_every_problem_once(tmp_path):
    run = open_run(write_run(tmp_path / "run", *RUN))
    first, second, overall = transitions(run)
    assert first == {"t": 1, "u": 2, "kept": 1, "fixed": 4, "broken": 2, "wrong": 3}
    assert second == {"t": 2, "u": 3, "kept": 5, "fixed": 2, "broken": 0, "wrong": 3}
    assert overall == {"t": 1, "u": 3, "kept": 3, "fixed": 4, "broken": 0, "wrong": 3}
    run = open_run(write_run(tmp_path / "oracle", "r5", "w7 r5", "w7 w7", feedback="oracle"))
    assert transitions(run) == [{"t": 1, "u": 2, "kept": 1, "fixed": 1, "broken": 0, "wrong": 1}]


def test_fresh_draws_stand_beside_the_transitions(tmp_path):
    page = render([open_run(write_run(tmp_path / "run", "w7,r5,- r5", "r5,w7,w8 r5"))])
    row = '<th scope="row">1 to 2, after wrong</th><td>100.0 (20.7 to 100.0)</td><td>50.0 '
    assert row in page


def test_the_legend_has_the_verdicts_of_all_runs(tmp_path):
    runs = {"a": "w7 r5", "b": "- -"}.items()
    legend = charts.verdicts_by_turn([open_run(write_run(tmp_path / n, run)) for n, run in runs])
    assert all(f">{verdict}<" in legend for verdict in ("right", "wrong", "no answer"))


@pytest.mark.parametrize("answered", [2, 0])
def test_a_problem_that_never_fitted_has_no_prompt_to_show(tmp_path, answered):
    """The first problems ended without an answer, in the second case all of them."""
    run = write_run(tmp_path / "run", "w7 r5", "w7 w7", "r5 r5")
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows[: 3 - answered]:
        error = {"kind": "context_overflow", "message": "too long", "turn": 1, "final": True}
        blocked = Episode(row["task_id"], row["query"], row["answer"], error=error)
        row.clear()
        row.update(blocked.to_dict())
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(run), "-o", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert ("First prompt of run" in page) == bool(answered)
    assert ("<pre>question 1</pre>" in page) == bool(answered)


def test_the_page_lies_in_the_run_or_in_the_folder_that_all_runs_are_in(tmp_path):
    runs = [str(write_run(tmp_path / name, *RUN)) for name in ("one", "two")]
    assert main(runs[:1]) == main(runs) == 0
    assert (tmp_path / "one" / "report.html").is_file() and (tmp_path / "report.html").is_file()


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "-o", str(tmp_path / "a.html")]) == 2
    assert "is no run" in capsys.readouterr().err
    run = write_run(tmp_path / "run", *RUN)
    with pytest.raises(SystemExit) as exit_:
        main([str(run), "-o", str(tmp_path / "missing" / "a.html")])
    assert exit_.value.code == 2


@needs_browser
def test_filters_search_and_numbers_show_the_episodes_that_they_name(tmp_path, open_page):
    page = open_page(*(write_run(tmp_path / name, *RUN) for name in ("one", "two")))
    page.locator('button[data-run="1"][data-filter="fixed:1:2"]').click()
    assert page.input_value("#run") == "1"
    assert page.inner_text("#count") == "4 of 10 episodes"
    expected = {"all": 10, "fixed:1:2": 4, "broken:1:2": 2, "kept:1:3": 3, "never": 3}
    expected |= {"always": 1, "cut": 2, "no_answer": 3, "voted": 7, "outvoted": 3}
    for name, count in expected.items():
        page.select_option("#filter", name)
        assert page.inner_text("#count") == f"{count} of 10 episodes", name
        assert page.locator("#list > li").count() == count
    page.select_option("#filter", "all")
    page.fill("#search", "QUESTION 7")
    assert page.inner_text("#count") == "1 of 10 episodes"
    assert "#7" in page.inner_text("#list")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, svg, [role=region]")]
            .filter((node) => !(node.textContent.trim() || node.ariaLabel
                || node.labels?.length || node.getAttribute("aria-label")))
            .map((node) => node.outerHTML)"""
    )
    assert unnamed == [], "for screen readers every control has a name"
    assert page.locator("h1").count() == 1
    assert page.get_attribute("html", "lang") == "en"


@needs_browser
def test_an_episode_opens_by_keyboard_with_verdicts_and_formulas(tmp_path, open_page):
    run = write_run(tmp_path / "run", *RUN)
    change_rows(run, action=r"So $\frac{48}{2} = 24$, and \boxed{72} clips cost $5.")
    page = open_page(run)
    page.focus("#list > li:first-child summary")
    page.keyboard.press("Enter")
    attempts = page.locator("#list > li:first-child .attempt")
    attempts.first.wait_for()  # the page fills an episode after it has opened
    assert attempts.count() == 3
    assert attempts.first.inner_text().startswith("Turn 1: ✗ wrong, answer 7")
    namespace = "document.querySelector('.attempt mfrac').namespaceURI"
    assert page.evaluate(namespace) == "http://www.w3.org/1998/Math/MathML"
    assert page.locator(".attempt menclose").count() == 3
    assert "clips cost $5." in attempts.first.inner_text()
    label = page.get_attribute("#list > li:first-child .marks", "aria-label")
    assert label == "turn 1 wrong, turn 2 right, turn 3 right"


@needs_browser
def test_the_models_own_check_is_shown_and_an_answer_that_stands(tmp_path, open_page):
    run = write_run(tmp_path / "run", "w7 w7 w7", feedback="self", revise_if_wrong=True)
    row = json.loads((run / "rows.jsonl").read_text())
    check = {"says": "right", "text": "<b>All</b> is well.", "usage": {"completion_tokens": 3}}
    row["turn_history"] |= {"check": {"0": check}, "kept": {"1": True, "2": True}}
    (run / "rows.jsonl").write_text(json.dumps(row) + "\n")
    page = open_page(run)
    page.locator("#list > li:first-child summary").first.click()
    page.locator(".check summary").click()
    shown = page.inner_text("#list > li:first-child")
    assert "The model's own check: right\n<b>All</b> is well." in shown
    assert page.locator(".attempt").count() == 1 and "Turn 3: the answer stands." in shown


@needs_browser
def test_samples_that_do_not_go_on_are_folded_away(tmp_path, open_page):
    page = open_page(write_run(tmp_path / "run", "w7,r5,- r5", "r5,w7,w8 r5"))
    page.locator("#list > li:first-child summary").first.click()
    page.wait_for_selector("#list .attempt")
    item = page.locator("#list > li:first-child")
    assert [text[:7] for text in item.locator(".attempt:visible h4").all_inner_texts()] == [
        "Turn 1:",
        "Turn 2:",
    ]
    item.get_by_text("Other samples of turn 1: ✓ –").click()
    assert item.locator(".attempt:visible").count() == 4


@needs_browser
def test_what_a_model_writes_stays_text(tmp_path, open_page):
    models = [HOSTILE.replace("\ud800", "")] * 3
    run = write_run(tmp_path / "<img src=x onerror=alert(1)>", *RUN, models=models)
    change_rows(run, action=HOSTILE, query=HOSTILE)
    page = open_page(run)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.wait_for_selector("#list > li:last-child .attempt")
    page.fill("#search", "<script>")
    assert page.inner_text("#count") == "10 of 10 episodes"
    page.locator("#list > li:first-child summary").first.click()
    page.wait_for_selector("#list .attempt")
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.locator("img, b, a[href^=javascript]").count() == 0
    shown = page.locator("#list .attempt").first.inner_text()
    assert "<b>bold</b>" in shown and "{{ 7 * 7 }}" in shown


@needs_browser
def test_a_script_that_got_in_would_not_run(tmp_path, browser):  # noqa: F811
    page_file = tmp_path / "page.html"
    assert main([str(write_run(tmp_path / "run", *RUN)), "-o", str(page_file)]) == 0
    attack = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'></main>"
    page_file.write_text(page_file.read_text().replace("</main>", attack))
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    assert page.evaluate("typeof window.hacked") == "undefined"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_themes(tmp_path, open_page, scheme):
    runs = [write_run(tmp_path / name, *RUN) for name in ("one", "two")]
    page = open_page(*runs, width=390, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    assert (sum(map(int, re.findall(r"\d+", before))) < 200) == (scheme == "dark")
    page.click("#theme")
    assert page.evaluate(background) != before
