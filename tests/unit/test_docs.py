"""README and docs tell the truth: sizes, flags, links, examples; every command is understood.

    python -m pytest tests/unit/test_docs.py

tests/journeys/test_documented_commands.py runs those that can run on this machine.
"""

import doctest
import re
import shlex

import pytest

import envs
from fastchat.train import arguments
from scripts import flags
from tests.support.readme_commands import PAGES, ROOT, commands

MEND = "python scripts/flags.py brings it up to date"
PACKAGES = ("rise", "envs", "FastChat/fastchat")
LINK = re.compile(r"\[([^\]\[]+)\]\(([^)#\s]+)?(?:#([\w-]+))?\)")
DOCUMENTED = [*PAGES, "CHANGELOG.md", "envs/README.md", "scripts/README.md"]
DOCUMENTED += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_read_at_one_sitting():
    text = (ROOT / "README.md").read_bytes()
    assert text.count(b"\n") <= 260 and len(text) <= 18_000


def test_the_page_of_flags_is_that_of_the_parsers():
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == flags.page(), MEND


def anchors(text: str) -> set[str]:
    """What a page's headings are called in links, by GitHub's rule."""
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", sorted({*DOCUMENTED}))
def test_links_lead_to_files_headings_and_the_named_lines(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, path, anchor in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if path.startswith("http"):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), (name, path)
        if path.endswith(".py") and "/" not in name and not name.endswith(".py`"):
            there = flags.line_of(name.strip("`"), target.resolve())
            # Exact after flags.py; until then the reader still sees it on the screen.
            assert not anchor or abs(int(anchor[1:]) - there) <= 40, f"{name} in {path}: {MEND}"
        elif anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (name, path, anchor)


TRAIN = "FastChat/fastchat/train/train_mem.py"


def test_every_command_is_parsed_by_its_program(tmp_path):
    checked = []
    parts = (part for command in commands(PAGES) for part in command.text.split("&&"))
    for words in map(shlex.split, parts):
        words = [word for word in words if word not in ("python", "-m") and "KEYS=" not in word]
        program, *rest = words
        if program in flags.PROGRAMS:
            flags.reader(program)(rest)
        elif TRAIN in words:
            deepspeed_config = {"deepspeed/zero3.json": str(ROOT / "deepspeed/zero3.json")}
            rest = [deepspeed_config.get(word, word) for word in words[words.index(TRAIN) + 1 :]]
            rest[rest.index("--output_dir") + 1] = str(tmp_path)
            parsed = arguments.parse(rest)
            if program == "deepspeed":
                assert parsed.data.lazy_preprocess is False
                assert parsed.training.warmup_steps == 0.04
        elif program == "sbatch":
            assert any((ROOT / word).is_file() for word in rest)
        elif program in ("bash", "source") or "=" in program:
            paths = [w for w in words[1:] if "/" in w and "=" not in w and w[0] not in ".-"]
            assert all((ROOT / path).exists() for path in paths), words
        elif program == "pip":
            folder, _, extra = rest[-1].partition("[")
            project = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
            assert f"\n{extra.rstrip(']') or 'name'} = " in project
        else:
            assert program in {"pre-commit", "echo", "inspect", "lm_eval"} or (
                program[:5] == "data/" and (ROOT / program).exists()
            )
        checked.append(program)
    assert {"workflow_gen.py", "workflow_convert.py", "workflow_eval.py", "deepspeed"} <= {*checked}


def test_only_pages_whose_commands_are_tried_show_any():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    untried = [path for path in pages if str(path.relative_to(ROOT)) not in PAGES]
    assert [path for path in untried if "```bash" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_trees_name_what_is_there(page):
    files = [*ROOT.glob("*.py"), *(f for d in PACKAGES for f in (ROOT / d).rglob("*.py"))]
    folders = {f.parent.name for f in files if f.name == "__init__.py"} - {"__pycache__"}
    blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    tree = next(block for block in blocks if "policies/" in block)
    assert {*re.findall(r"\w+\.py", tree)} <= {file.name for file in files}
    shown = {*re.findall(r"(\w+)/", tree)}
    assert folders - shown <= (
        {"cpu", "openai", "upstream", "protocol"} if page == "README.md" else set()
    )


def test_modules_of_fastchat_that_are_called_ours_are_here():
    rows = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8").splitlines()
    ours = [row.split("|")[1] for row in rows if re.match(r"\| `fastchat\..*\| ours", row)]
    for names in (re.findall(r"`([\w.]+)`", cell) for cell in ours):
        folder = names[0].rpartition(".")[0].replace(".", "/")
        for name in names:
            assert (ROOT / "FastChat" / folder / f"{name.rpartition('.')[2]}.py").is_file(), name
    assert len(ours) > 8


def test_the_expert_of_the_documentation_is_right():
    page = (ROOT / "docs" / "generate.md").read_text(encoding="utf-8")
    space = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], space)
    answer = "3 + 4 = 7\n#### 7"
    assert envs.grade("gsm8k", space["f"]({"answer": answer}, []), answer) == 1
    assert envs.grade("numeric", space["f"]({"answer": "12"}, []), "12") == 1


def test_the_worked_grades_are_right():
    failures, tried = doctest.testfile(str(ROOT / "docs" / "grading.md"), module_relative=False)
    assert failures == 0
    assert tried == 12  # the import, ten examples, the shutdown
