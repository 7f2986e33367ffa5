"""Programs that grade: they end with all their processes, however they end.

python -m pytest tests/processes/test_grading_programs.py
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.support.stages import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
PREAMBLE = "import envs\nsurd = ('math', r'\\boxed{\\sqrt{8}}', r'\\boxed{2\\sqrt{2}}')\n"
BOMB_CALL = "envs.grade('math', r'\\boxed{(a+b+c+d+e)^{300}}', r'\\boxed{(a+b)^{299}}')\n"


class Program:
    """A script in a process of its own, whose descendants can be found by a mark."""

    def __init__(self, folder: Path, body: str):
        script = folder / "script.py"
        script.write_text(PREAMBLE + body)
        self.mark = f"GRADING_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, name: value, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def survivors(self, patience: float = 15) -> list[str]:
        """Return the descendants that still run after ``patience`` seconds."""
        end = time.monotonic() + patience
        while (found := self._running()) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def _running(self) -> list[str]:
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes():
                    found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


def test_a_script_without_a_main_guard_grades_and_exits(tmp_path):
    program = Program(tmp_path, "print(envs.grade(*surd))\n")
    out, error = program.process.communicate(timeout=60)
    assert (program.process.returncode, out, error) == (0, "1\n", "")
    assert program.survivors() == []


EVENT_LOOP = """
import asyncio
from envs.grading.checker import check_async
from envs.grading.questions import Question
async def main():
    bomb = Question(('(a+b+c+d+e)^{300}',), ('(a+b)^{299}',))
    print('go', flush=True)
    await asyncio.gather(*(check_async(bomb) for _ in range(100)))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (signal.SIGINT, "print('go', flush=True)\n" + BOMB_CALL * 50),
        (signal.SIGKILL, "print('go', flush=True)\n" + BOMB_CALL * 50),
        (signal.SIGINT, EVENT_LOOP),
    ],
)
def test_an_interrupted_program_ends_with_its_processes(tmp_path, number, body):
    program = Program(tmp_path, "envs.grade(*surd)\n" + body)
    assert program.process.stdout.readline() == "go\n"
    time.sleep(0.3)
    program.process.send_signal(number)
    _, error = program.process.communicate(timeout=20)
    assert program.process.returncode == -number
    assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)
    assert program.survivors() == []


def test_a_forked_child_gets_a_pool_of_its_own(tmp_path):
    body = (
        "import os\nprint(envs.grade(*surd), flush=True)\nchild = os.fork()\n"
        "print(envs.grade(*surd), flush=True)\n"
        "if child:\n    print(os.waitpid(child, 0)[1])\n    print(envs.grade(*surd))\n"
    )
    program = Program(tmp_path, body)
    out, _ = program.process.communicate(timeout=60)
    assert sorted(out.split()) == ["0", "1", "1", "1", "1"]
    assert program.survivors() == []
