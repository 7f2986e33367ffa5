"""Fetch public data sets from pinned homes, verify them and write them as JSON lines.

    python data/fetch.py gsm8k math                             # data/gsm8k/train.jsonl, ...
    python data/fetch.py gsm8k --from ~/gsm8k/test.parquet      # a copy that you have already

Reads   the network (addresses and checksums: data/homes.json), or the local files of --from: the
        original file, JSON lines, a JSON list, or the Hugging Face hub's parquet (needs pyarrow).
Writes  DIR/NAME/train.jsonl and test.jsonl, each complete and verified or not at all. A download
        that was interrupted goes on where it stopped; a file that is there is not fetched again.
"""

import argparse
import errno
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HOMES = Path(__file__).with_name("homes.json")
TRIES = 4
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(/\d+)?")

Row = dict[str, object]


class FetchError(Exception):
    """A file could not be had; the message says what to do."""


class Unreachable(FetchError):
    """An address does not answer; what to do about that is said once, for all of them."""


ADVICE = (
    "nothing came from the addresses below. Behind a proxy set HTTPS_PROXY, or name a mirror with "
    "--base_url: the same command goes on where this one stopped. Without a network fetch them on "
    "another machine and pass the files with --from FILE"
)


@dataclass(frozen=True)
class Source:
    """One file of a data set in its public home."""

    name: str
    split: str
    url: str
    checksum: str
    """`sha256:HEX`, or `git:HEX` for git's SHA-1 of a blob, of the original file."""
    rows: int


def svamp_row(row: Row) -> Row:
    """SVAMP as GSM8K: story and question in one text, the equation as the solution."""
    body, question = str(row["Body"]).strip(), str(row["Question"]).strip()
    joint = " " if body.endswith((".", "?", "!", ",")) else ", "
    number = str(row["Answer"]).removesuffix(".0")
    solution = f"{str(row['Equation']).strip()} = {number}\n#### {number}"
    return {"question": body + joint + question, "answer": solution, "id": row["ID"]}


def asdiv_row(row: Row) -> Row | None:
    """ASDiv as GSM8K; None where the answer is not one number (a name, time, ratio or list)."""
    number = re.sub(r"\s*\([^()]*\)$", "", str(row["Answer"]).strip())
    if NUMBER.fullmatch(number) is None:
        return None
    question = f"{str(row['Body']).strip()} {str(row['Question']).strip()}"
    solution = f"{str(row['Formula']).strip()}\n#### {number}"
    return {"question": question, "answer": solution, "id": row["ID"]}


CONVERTERS = {"svamp": svamp_row, "asdiv": asdiv_row}
"""Data sets whose original rows look different; the others are kept byte for byte."""


def matches(content: bytes, checksum: str) -> bool:
    kind, expected = checksum.split(":")
    if kind == "git":
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == expected
    return hashlib.sha256(content).hexdigest() == expected


def read_rows(content: bytes, path: str) -> list[Row]:
    try:
        if content.startswith(b"PAR1"):
            from pyarrow import BufferReader, parquet

            # Its threads can still run when Python ends, which aborts the process.
            alone = {"use_threads": False, "pre_buffer": False}
            return parquet.read_table(BufferReader(content), **alone).to_pylist()
        if content.lstrip().startswith(b"<"):
            problems = ElementTree.fromstring(content).iter("Problem")
            return [{"ID": p.get("ID")} | {field.tag: field.text for field in p} for p in problems]
        text = content.decode("utf-8")
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ImportError as error:
        raise FetchError(f"{path} is parquet: pip install pyarrow, then try again") from error
    except (ValueError, ElementTree.ParseError) as error:
        raise FetchError(f"{path} is not parquet, XML, JSON or JSON lines: {error}") from error


def to_lines(name: str, rows: list[Row], path: str) -> bytes:
    """Rows as JSON lines with the keys that `envs` reads; rows without one answer are left out."""
    keys = ("problem", "solution") if name.startswith("math") else ("question", "answer")
    lines = []
    for number, row in enumerate(rows, start=1):
        ready = isinstance(row, dict) and all(isinstance(row.get(key), str) for key in keys)
        if not ready and (name not in CONVERTERS or not isinstance(row, dict)):
            raise FetchError(f"{path}, row {number}: no texts under the keys {keys}: {row!r:.200}")
        try:
            converted = row if ready else CONVERTERS[name](row)
        except (KeyError, ValueError) as error:
            raise FetchError(f"{path}, row {number} cannot be read ({error!r})") from error
        if converted is not None:
            lines.append(json.dumps(converted) + "\n")
    return "".join(lines).encode()


def write(path: Path, content: bytes, force: bool) -> None:
    """Write a file whole or not at all; other content is replaced only with `force`."""
    if path.exists() and path.read_bytes() != content and not force:
        raise FetchError(f"{path} is there with other content: move it away or pass --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:  # no link of somebody else is followed
        file.write(content)
    os.replace(partial, path)


def receive(url: str, part: Path, timeout: float) -> None:
    """Add to `part` what it lacks; a server that cannot resume sends everything again."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if resumes else "wb") as file:
            begin = file.tell()
            shutil.copyfileobj(response, file)
            announced = int(response.headers.get("Content-Length") or 0)
            if file.tell() - begin < announced:
                raise OSError(f"the connection closed after {file.tell()} bytes")


def download(source: Source, url: str, part: Path, timeout: float) -> bytes:
    """The verified content of a source; `part` keeps what has come, also after a kill."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(TRIES):
        resumed = part.exists()
        try:
            if not (resumed and matches(part.read_bytes(), source.checksum)):
                receive(url, part, timeout)
        except (OSError, http.client.HTTPException) as error:
            status = getattr(error, "code", None)
            if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()  # longer than the file: it belongs to another version
            elif getattr(error, "errno", None) in FORBIDDEN:
                raise  # the folder's, not the network's
            elif (
                status in (401, 403, 404, 410)
                or isinstance(getattr(error, "reason", None), socket.gaierror)
                or attempt == TRIES - 1
            ):
                cause = str(error).removeprefix("<urlopen error ").removesuffix(">")
                raise Unreachable(f"{url} ({cause})") from error
            time.sleep(random.uniform(0.2, 0.4) * 2**attempt)
            continue
        content = part.read_bytes()
        part.unlink()
        if matches(content, source.checksum):
            return content
        if not resumed:
            break
    raise FetchError(
        f"{url}: what came does not have the checksum {source.checksum}; a proxy or mirror may "
        "have changed it. Nothing was written; try again, or get the file elsewhere (--from FILE)"
    )


def fetch(source: Source, args: argparse.Namespace) -> Path:
    folder = args.output_dir / source.name
    target = original = folder / f"{source.split}.jsonl"
    if source.name in CONVERTERS:
        original = folder / source.url.rsplit("/", 1)[-1]
    if not (original.exists() and matches(original.read_bytes(), source.checksum)):
        if original.exists() and not args.force:
            raise FetchError(f"{original} is there with other content: move it, or pass --force")
        part = folder / f"{original.name}.part"
        mirrored = args.base_url and args.base_url.rstrip("/") + urlsplit(source.url).path
        content = download(source, mirrored or source.url, part, args.timeout)
        write(original, content, args.force)
    if original != target:
        rows = read_rows(original.read_bytes(), str(original))
        write(target, to_lines(source.name, rows, str(original)), args.force)
    return target


def import_file(path: Path, sources: list[Source], args: argparse.Namespace) -> Path:
    """Import a local copy of one file of a data set; returns the file of JSON lines.

    What it is follows from the checksum; else it is of the one data set that was named, and --split
    or the file's name tells which split.
    """
    content = path.read_bytes()
    known = next((source for source in sources if matches(content, source.checksum)), None)
    named = re.search(r"(?<![a-z])(train|test)(?![a-z])", path.stem.lower())
    split = known.split if known else args.split or (named and named[1])
    if split is None:
        raise FetchError(f"{path}: pass --split train or test; neither name nor checksum tells")
    if known is None and len({source.name for source in sources}) > 1:
        raise FetchError(f"{path} is none of the pinned files: name the one data set that it is of")
    name = known.name if known else sources[0].name
    if known and name in CONVERTERS:  # the next fetch finds it
        write(args.output_dir / name / known.url.rsplit("/", 1)[-1], content, args.force)
    if known is None or name in CONVERTERS:
        content = to_lines(name, read_rows(content, str(path)), str(path))
    pinned = known or next((s for s in sources if matches(content, s.checksum)), None)
    if pinned is None:
        print(f"note: {path} is not the pinned {name}/{split} (checksum); imported as it is")
    target = args.output_dir / name / f"{split}.jsonl"
    write(target, content, args.force)
    return target


def parse_args(homes: dict[str, list[Source]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("names", nargs="+", choices=sorted(homes), metavar="NAME", help=", ".join(homes))
    add("--output_dir", type=Path, default=HOMES.parent, help="parent folder (default: data)")
    add("--from", dest="files", type=Path, nargs="+", metavar="FILE", help="import local files")
    add("--split", choices=("train", "test"), help="the split of --from (default: its name's)")
    add("--base_url", help="mirror that serves the same paths (default: the public homes)")
    add("--timeout", type=float, default=30.0, help="seconds without data before a retry (30)")
    add("--force", action="store_true", help="replace files that are there with other content")
    args = parser.parse_args()
    if missing := [str(path) for path in args.files or [] if not path.is_file()]:
        parser.error(f"--from: no such file: {', '.join(missing)}")
    return args


def main() -> int:
    known = json.loads(HOMES.read_text(encoding="utf-8"))
    homes = {name: [Source(name, **file) for file in home["files"]] for name, home in known.items()}
    args = parse_args(homes)
    sources = [source for name in args.names for source in homes[name]]
    refused = f"--output_dir {args.output_dir}: give a folder that you may write to"
    given, failed, lost = [str(path) for path in args.files or []], False, list[str]()
    for item in args.files or sources:
        try:
            pinned = isinstance(item, Source)
            target = fetch(item, args) if pinned else import_file(item, sources, args)
            count = target.read_bytes().count(b"\n")
            short = f", not {item.rows:,}" if pinned and item.rows != count else ""
            print(f"{target}: {count:,} rows{short}")
        except Unreachable as error:
            lost.append(str(error))
        except (FetchError, OSError) as error:
            if getattr(error, "errno", None) in FORBIDDEN and error.filename not in given:
                print(f"fetch.py: error: {refused} ({error.strerror})", file=sys.stderr)
                return 2
            print(f"fetch.py: {error}", file=sys.stderr)
            failed = True
    if lost:
        print(f"fetch.py: {ADVICE}:", *lost, sep="\n  ", file=sys.stderr)
    return 1 if failed or lost else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
