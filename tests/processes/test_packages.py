"""The two distributions, built, installed and used where there is no repository.

python -m pytest tests/processes/test_packages.py
"""

import email
import os
import re
import shutil
import sys
import tarfile
import zipfile

import pytest

from tests.support.stages import ROOT, run_program

SHIPPED = ("rise/", "envs/", "workflow_", "deepspeed/", "data/demo_", "FastChat/fastchat/")
BESIDE = {"README.md", "LICENSE", "CHANGELOG.md", "FastChat/README.md"}
BESIDE |= {"constraints.txt", "setup.py"}


def tracked():
    """The repository's files, those that are not committed yet among them."""
    listed = run_program("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout
    return [name for name in listed.split("\n") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist and the wheel of both; the repository gets no build folders."""
    source = tmp_path_factory.mktemp("packages") / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for folder in ("FastChat", "."):
        run_program(sys.executable, "-m", "build", "-n", "-o", source / "out", folder, cwd=source)
    return source / "out"


def test_sdist_and_wheels_hold_what_is_needed(built):
    [sdist] = built.glob("rise_llm-*.tar.gz")
    with tarfile.open(sdist) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    shipped = {name for name in tracked() if name.startswith(SHIPPED) and name != "envs/README.md"}
    assert shipped | BESIDE <= packed

    wheels = {name for wheel in built.glob("*.whl") for name in zipfile.ZipFile(wheel).namelist()}
    wheels = {name for name in wheels if ".dist-info/" not in name}
    wheels = {name.rpartition("/data/share/rise/")[2] for name in wheels}
    assert wheels == {name.removeprefix("FastChat/") for name in shipped}
    assert {f"{name}/py.typed" for name in ("rise", "envs", "fastchat")} <= wheels


def test_pages_have_links_that_lead_somewhere_and_extras_that_every_pip_finds(built):
    needed, provided = [], set()
    for wheel in built.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            [metadata] = [name for name in file.namelist() if name.endswith("/METADATA")]
            fields = email.message_from_bytes(file.read(metadata))
        needed += fields.get_all("Requires-Dist")
        provided |= set(fields.get_all("Provides-Extra"))
        page = fields.get_payload()
        assert page.startswith("# ") and not re.findall(r"\]\((?!http)[^)#\s]", page), "its links"
    asked = [name for line in needed for name in re.findall(r"fschat\[(.+?)\]", line)]
    assert asked and {name for names in asked for name in names.split(",")} <= provided


def test_the_stages_run_from_their_wheels_alone(built, tmp_path):
    place = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index")
    run_program(*pip, "--target", place, *built.glob("*.whl"))
    how = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(place)}}
    for stage, flag in (("gen", "--models"), ("convert", "--criteria"), ("eval", "--model")):
        shown = run_program(place / "bin" / f"rise-{stage}", "--help", **how).stdout
        assert shown.startswith(f"usage: rise-{stage}") and flag in shown
    code = "import workflow_gen, rise, envs, fastchat; print(rise.__file__, fastchat.__file__)"
    assert run_program(sys.executable, "-c", code, **how).stdout.count(str(place)) == 2
