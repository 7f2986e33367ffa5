"""Downloads against a local HTTP server, and imports of local files.

python -m pytest tests/unit/data/test_fetch.py
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.stages import ROOT, run_main

SHARED = Path(os.environ.get("RISE_TEST_DATA", ROOT.parent / "shared" / "data"))
GSM8K = b"".join(
    json.dumps({"question": f"What is {n} + 1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"}).encode()
    + b"\n"
    for n in range(500)
)
SVAMP = [
    {"ID": "a", "Body": "Dan had 4", "Question": "How many?", "Equation": "( 4.0 )", "Answer": 4.0},
    {"ID": "b", "Body": "Ann had 3.", "Question": "And?", "Equation": "( 2.5 )", "Answer": 2.5},
]
ASDIV = """<Corpus><Problem ID="x"><Body>Two and two.</Body><Question>Sum?</Question>
<Answer>4 (apples)</Answer><Formula>2+2=4</Formula></Problem>
<Problem ID="y"><Body>Who?</Body><Question>Who wins?</Question><Answer>Sara</Answer>
<Formula>1&lt;2</Formula></Problem></Corpus>"""


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; a path in `server.cut` loses its connection half-way, once."""

    def do_GET(self):
        content = self.server.files.get(self.path)
        self.server.ranges.append(self.headers.get("Range"))
        if content is None:
            self.send_error(404)
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = len(content)
        if self.path in self.server.cut:
            self.server.cut.discard(self.path)
            end = begin + (end - begin) // 2
        self.wfile.write(content[begin:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.cut, server.ranges = {}, set(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    """A copy of the script beside a table of its own: one small file for each data set."""
    shutil.copy(ROOT / "data" / "fetch.py", tmp_path)
    blob = hashlib.sha1(b"blob %d\0" % len(GSM8K) + GSM8K).hexdigest()
    svamp, asdiv = json.dumps(SVAMP).encode(), ASDIV.encode()
    table = {
        "gsm8k": ("/o/test.jsonl", f"git:{blob}", 500),
        "svamp": ("/o/SVAMP.json", f"sha256:{hashlib.sha256(svamp).hexdigest()}", 2),
        "asdiv": ("/o/ASDiv.xml", f"sha256:{hashlib.sha256(asdiv).hexdigest()}", 1),
    }
    homes = {
        name: {
            "license": "MIT",
            "files": [
                {"split": "test", "url": f"https://x{path}", "checksum": checksum, "rows": rows}
            ],
        }
        for name, (path, checksum, rows) in table.items()
    }
    (tmp_path / "homes.json").write_text(json.dumps(homes))
    return tmp_path


def run(folder: Path, *arguments: object, server=None, code=0) -> subprocess.CompletedProcess:
    """Call main() of the folder's copy of the script: its table lies beside it."""
    spec = importlib.util.spec_from_file_location("fetch_copy", folder / "fetch.py")
    copy = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    mirror = ["--base_url", f"http://127.0.0.1:{server.server_address[1]}"] if server else []
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    words = ("fetch.py", *arguments, *mirror)
    return run_main(copy.main, *words, environment=environment, code=code)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".part", ".tmp")]


def test_a_good_file_is_written_byte_for_byte_and_not_fetched_again(folder, server):
    server.files["/o/test.jsonl"] = GSM8K
    done = run(folder, "gsm8k", server=server)
    assert "500 rows" in done.stdout
    assert (folder / "gsm8k" / "test.jsonl").read_bytes() == GSM8K
    run(folder, "gsm8k", server=server)
    assert len(server.ranges) == 1
    assert left_over(folder) == []


def test_svamp_and_asdiv_become_gsm8k_rows(folder, server):
    server.files |= {"/o/SVAMP.json": json.dumps(SVAMP).encode(), "/o/ASDiv.xml": ASDIV.encode()}
    run(folder, "svamp", "asdiv", server=server)
    assert rows(folder / "svamp" / "test.jsonl") == [
        {"question": "Dan had 4, How many?", "answer": "( 4.0 ) = 4\n#### 4", "id": "a"},
        {"question": "Ann had 3. And?", "answer": "( 2.5 ) = 2.5\n#### 2.5", "id": "b"},
    ]
    # The second problem's answer is a name, not a number.
    assert rows(folder / "asdiv" / "test.jsonl") == [
        {"question": "Two and two. Sum?", "answer": "2+2=4\n#### 4", "id": "x"}
    ]


def test_a_connection_that_breaks_is_resumed(folder, server):
    server.files["/o/test.jsonl"] = GSM8K
    server.cut.add("/o/test.jsonl")
    run(folder, "gsm8k", server=server)
    assert server.ranges == [None, f"bytes={len(GSM8K) // 2}-"]
    assert (folder / "gsm8k" / "test.jsonl").read_bytes() == GSM8K


@pytest.mark.parametrize("beginning", [GSM8K[:777], GSM8K, b"another file", GSM8K + b"more"])
def test_what_a_killed_run_left_is_completed_or_replaced(folder, server, beginning):
    server.files["/o/test.jsonl"] = GSM8K
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k" / "test.jsonl.part").write_bytes(beginning)
    run(folder, "gsm8k", server=server)
    assert (folder / "gsm8k" / "test.jsonl").read_bytes() == GSM8K
    assert left_over(folder) == []


def test_a_wrong_checksum_writes_nothing(folder, server):
    server.files["/o/test.jsonl"] = GSM8K.replace(b"499", b"498")
    done = run(folder, "gsm8k", server=server, code=1)
    assert "checksum" in done.stderr and "Traceback" not in done.stderr
    assert list((folder / "gsm8k").iterdir()) == []


def test_a_missing_file_does_not_stop_the_other_data_sets(folder, server):
    server.files["/o/SVAMP.json"] = json.dumps(SVAMP).encode()
    done = run(folder, "gsm8k", "asdiv", "svamp", server=server, code=1)
    assert done.stderr.count("HTTP Error 404") == 2
    # What to do about it is said once.
    assert done.stderr.count("\n") == 3 and done.stderr.count("--from FILE") == 1
    assert (folder / "svamp" / "test.jsonl").exists()
    assert not (folder / "gsm8k" / "test.jsonl").exists()


def test_without_a_network_it_says_what_to_do(folder):
    # Port 9 (discard) refuses connections at once.
    done = run(folder, "gsm8k", "--base_url", "http://127.0.0.1:9", code=1)
    remedy, *addresses = done.stderr.splitlines()
    assert all(hint in remedy for hint in ("--from FILE", "HTTPS_PROXY", "--base_url"))
    assert "http://" not in remedy
    assert addresses[0].startswith("  http://127.0.0.1:9/o/test.jsonl (")


def test_another_file_in_the_place_is_kept(folder, server):
    server.files["/o/test.jsonl"] = GSM8K
    mine = folder / "gsm8k" / "test.jsonl"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = run(folder, "gsm8k", server=server, code=1)
    assert "--force" in done.stderr
    assert mine.read_text() == "mine"
    run(folder, "gsm8k", "--force", server=server)
    assert mine.read_bytes() == GSM8K


def test_a_copy_is_imported_as_the_split_that_its_name_or_its_checksum_tells(folder):
    row = {"question": "What is 2 + 3?", "answer": "#### 5"}
    copy = folder / "mine_train.jsonl"
    copy.write_text(json.dumps(row) + "\n")
    done = run(folder, "gsm8k", "--from", copy)
    assert "not the pinned" in done.stdout
    assert rows(folder / "gsm8k" / "train.jsonl") == [row]
    copy = copy.rename(folder / "latest.jsonl")
    done = run(folder, "gsm8k", "--from", copy, code=1)
    assert "--split" in done.stderr
    copy.write_bytes(GSM8K)
    done = run(folder, "gsm8k", "--from", copy)
    assert "not the pinned" not in done.stdout
    assert (folder / "gsm8k" / "test.jsonl").read_bytes() == GSM8K


def test_copies_of_several_data_sets_are_imported_in_one_call_and_not_fetched_again(folder):
    copies = [folder / "a", folder / "b"]
    copies[0].write_text(json.dumps(SVAMP))
    copies[1].write_text(ASDIV)
    names, nowhere = ("svamp", "asdiv"), ("--base_url", "http://127.0.0.1:9")
    done = run(folder, *names, "--from", *copies)
    again = run(folder, *names, *nowhere)
    assert again.stdout == done.stdout and done.stdout.count("test.jsonl") == 2
    copies[0].write_text('{"question": "What is 2 + 3?", "answer": "#### 5"}\n')
    other = run(folder, *names, "--from", *copies, "--split", "test", code=1)
    assert other.stdout.count("test.jsonl") == 1
    assert "name the one data set" in other.stderr


def test_parquet_with_the_pinned_rows_gives_the_pinned_file(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([json.loads(line) for line in GSM8K.splitlines()])
    parquet.write_table(table, folder / "test-00000-of-00001.parquet")
    done = run(folder, "gsm8k", "--from", folder / "test-00000-of-00001.parquet")
    assert "not the pinned" not in done.stdout
    assert (folder / "gsm8k" / "test.jsonl").read_bytes() == GSM8K


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b'{"question": "no answer"}\n', "row 1"),
        (b'{"question": "torn', "JSON"),
        (b"\xff\xfe", "not parquet"),
        (b"<broken>", "not parquet"),
    ],
)
def test_an_unreadable_import_is_one_clear_error(folder, content, hint):
    (folder / "test.jsonl").write_bytes(content)
    done = run(folder, "gsm8k", "--from", folder / "test.jsonl", code=1)
    assert hint in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "gsm8k" / "test.jsonl").exists()


def test_bad_arguments_are_usage_errors(folder):
    assert "'nonsense'" in run(folder, "nonsense", code=2).stderr
    assert "missing.jsonl" in run(folder, "gsm8k", "--from", "missing.jsonl", code=2).stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here (RISE_TEST_DATA)")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("gsm8k", "gsm8k/train.jsonl", 7473),
        ("gsm8k", "gsm8k/test.jsonl", 1319),
        ("math", "math/test.jsonl", 1000),
        ("svamp", "svamp/SVAMP.json", 1000),
        ("asdiv", "asdiv/ASDiv.xml", 2092),
    ],
)
def test_the_real_files_have_the_pinned_checksums(tmp_path, name, file, count):
    done = run(ROOT / "data", name, "--from", SHARED / file, "--output_dir", tmp_path)
    assert f"{count:,} rows" in done.stdout and "not the pinned" not in done.stdout


def test_the_readme_has_every_checksum():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    homes = json.loads((ROOT / "data" / "homes.json").read_text(encoding="utf-8"))
    files = [file for home in homes.values() for file in home["files"]]
    assert [file for file in files if file["checksum"].split(":")[1] not in text] == []
