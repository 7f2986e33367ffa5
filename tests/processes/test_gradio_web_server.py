"""The web pages in a real browser, over a real controller and workers.

python -m pytest tests/processes/test_gradio_web_server.py
"""

import json
import logging
from types import SimpleNamespace

import pytest
import requests

from fastchat.serve import base_model_worker, controller, gradio_web_server, model_worker
from rise import web_tab
from tests.support.browser import browser, needs_browser  # noqa: F401  (a fixture)
from tests.support.servers import free_port, process, register, running, wait_for
from tests.support.stages import run_main

HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=2</script>"


class Solver(base_model_worker.BaseModelWorker):
    """Answers 1 at first; once it was told that it is wrong, 5."""

    context_length = 1000

    def prepare(self, request):
        return len(request.messages)

    async def generate(self, prepared):
        return [reply async for reply in self.stream(prepared)][-1]

    async def stream(self, prepared):
        answer = (
            r"It is \(\frac{10}{2} = \boxed{5}\)"
            if prepared > self.asked
            else rf"{HOSTILE} \boxed{{1}}"
        )
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        yield {"text": answer[:3], "error_code": 0, "usage": usage, "finish_reason": None}
        yield {"text": answer, "error_code": 0, "usage": usage, "finish_reason": "stop"}

    def count_tokens(self, prompt):
        return len(prompt)

    def conv_fields(self):
        return {}


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [
        {"question": f"What is {n} + 3?", "answer": f"{n} + 3 = {n + 3}\n#### {n + 3}"}
        for n in (2, 4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def url(checkpoint, problems):
    options = model_worker.parse_args(["--model-path", str(checkpoint()), "--device", "cpu"])
    tiny = model_worker.build_worker(options, logging.getLogger("test"))
    solver = Solver(["solver"], 8, logging.getLogger("test"))
    solver.asked = 1  # messages of a first question in the bare style
    tiny.engine.start()
    with (
        running(base_model_worker.create_app(tiny)) as one,
        running(base_model_worker.create_app(solver)) as two,
        running(controller.create_app()) as controller_url,
    ):
        for address, worker in ((one, tiny), (two, solver)):
            register(controller_url, address, worker)
        port = free_port()
        arguments = ["--controller-url", controller_url, "--port", port]
        arguments += ["--data-path", problems, "--prompt-style", "bare"]
        with process("fastchat.serve.gradio_web_server", *arguments):
            address = f"http://localhost:{port}"
            wait_for(lambda: requests.get(address, timeout=10).ok)
            yield address
    tiny.engine.stop()


@pytest.fixture
def page(browser, url):  # noqa: F811
    messages, fetched = [], []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(url)
    page.wait_for_selector("#try")
    page.wait_for_function("document.querySelector('input[aria-label=Model]')?.value")
    yield page
    page.close()
    assert messages == []
    assert all(address.startswith((url, "data:", "blob:")) for address in fetched)


def choose(page, label, option):
    box = page.get_by_label(label, exact=True).locator("visible=true")
    box.fill(option)
    box.press("Enter")


@needs_browser
def test_attempt_after_attempt_with_its_verdict_two_models_side_by_side(page):
    assert page.get_by_text("A model tries a problem").is_visible()
    assert page.locator("#dialogue-b").locator("visible=true").count() == 0
    choose(page, "Model", "solver")
    choose(page, "Beside it", "tiny-llama")
    page.locator("#dialogue-b").locator("visible=true").wait_for()
    page.get_by_role("button", name="Sampling").locator("visible=true").click()
    page.locator("#max-tokens input[type=number]").locator("visible=true").fill("8")
    page.keyboard.press("Tab")
    page.click("#try")
    left, right = page.locator("#dialogue-a").first, page.locator("#dialogue-b").first
    left.get_by_text("Turn 1: ✗ wrong, answer 1").wait_for()
    right.get_by_text("Turn 1: – no answer").wait_for()
    assert page.inner_text("#try") == "Try again"
    page.click("#try")
    left.get_by_text("Turn 2: ✓ right, answer 5").wait_for()
    right.get_by_text("Turn 2:").wait_for()
    assert "What is 2 + 3?" in left.inner_text()
    assert page.evaluate("typeof window.hacked") == "undefined"
    page.click("#start-over")
    left.get_by_text("Turn 1").wait_for(state="detached")
    assert page.inner_text("#try") == "Try"


@needs_browser
def test_a_problem_of_ones_own(page):
    choose(page, "Model", "solver")
    choose(page, "Problem", "a problem of my own")
    page.locator("#own-question textarea").wait_for()
    page.click("#try")
    page.get_by_text("Type a question first.").wait_for()
    page.fill("#own-question textarea", "What is 10 / 2?")
    page.click("#try")
    page.get_by_text("answer 1, not graded").wait_for()
    page.click("#start-over")
    page.fill("#own-answer textarea", "5.0")
    page.click("#try")
    page.get_by_text("Turn 1: ✗ wrong, answer 1").wait_for()
    page.click("#try")
    page.get_by_text("Turn 2: ✓ right, answer 5").wait_for()
    assert page.locator("#dialogue-a").first.inner_text().count("What is 10 / 2?") == 1


@needs_browser
def test_chat_with_a_served_model(page):
    page.get_by_role("tab", name="Chat").click()
    page.get_by_text("Talk to a model").wait_for()
    choose(page, "Model", "solver")
    box = page.locator("#chat-message textarea")
    box.fill("hello there")
    box.press("Enter")
    dialogue = page.locator("#dialogue-a").locator("visible=true")
    dialogue.get_by_text("hello there").wait_for()
    dialogue.get_by_text("boxed{1}").wait_for()
    box.fill("and again")
    box.press("Enter")
    dialogue.get_by_text("It is").wait_for()
    assert "and again" in dialogue.inner_text()
    dialogue.locator(".katex .frac-line, .katex .mfrac").first.wait_for()
    assert page.evaluate("typeof window.hacked") == "undefined"


def test_problems_that_cannot_be_read_are_one_line(tmp_path):
    missing = ("--data-path", tmp_path / "none.jsonl")
    done = run_main(gradio_web_server.main, "gradio_web_server", *missing, code=2)
    assert "none.jsonl" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_every_tab_adds_its_arguments():
    args = gradio_web_server.parse_args(["--env", "math"], [web_tab])
    assert (args.env, args.host) == ("math", "localhost")
    with pytest.raises(SystemExit):
        gradio_web_server.parse_args(["--env", "math"], [])
    with pytest.raises(ValueError, match="unknown environment"):
        web_tab.check(SimpleNamespace(env="chess", data_path="x", prompt_style="default"))
