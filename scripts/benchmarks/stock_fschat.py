"""Stock fschat 0.2.36 in a virtual environment of its own, to be measured and spoken to.

    python scripts/benchmarks/stock_fschat.py                      # into .cache/stock-fschat
    python scripts/benchmarks/stock_fschat.py --directory /tmp/fs  # elsewhere

Prints the environment's interpreter. Only fschat and what is missing beside it are downloaded;
torch, transformers and the rest are those of the environment that runs this script. Run as
`INTERPRETER stock_fschat.py worker ...` it is fschat's model worker, with the one mend without
which 0.2.36 does not start under transformers 5.
"""

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / ".cache" / "stock-fschat"
PACKAGES = ("fschat==0.2.36", "shortuuid>=1,<2", "tiktoken>=0.7")
"""The package, and what its controller, servers and worker import that our environment lacks."""
DONE = "complete"
"""Name of the file that is written last: without it the environment is made again."""


def make(directory: Path) -> Path:
    python = directory / "bin" / "python"
    if (directory / DONE).is_file():
        return python
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory)])
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    _run([*pip, "--disable-pip-version-check", *PACKAGES])
    # A plain path in a .pth file comes after the environment's own packages, and the .pth files of
    # the folder it names are not read: our editable `fastchat` stays out of sight.
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    site = next(directory.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    (directory / DONE).touch()
    return python


def environment(log_dir: Path) -> dict[str, str]:
    """The variables for a stock process: it writes its log files to `log_dir`."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return inherited | {"LOGDIR": str(log_dir), "PYTHONUNBUFFERED": "1"}


def command(python: Path, module: str, *arguments: str) -> list[str]:
    """The command line of a stock server: controller, openai_api_server or model_worker."""
    if module == "model_worker":
        return [str(python), str(Path(__file__).resolve()), "worker", *arguments]
    return [str(python), "-m", f"fastchat.serve.{module}", *arguments]


def run_worker(arguments: list[str]) -> None:
    """Run fschat's worker; transformers 5 leaves no "factor" in an unscaled rope_scaling."""
    import fastchat.utils

    read = fastchat.utils.get_context_length

    def get_context_length(config):
        if "factor" not in (getattr(config, "rope_scaling", None) or {}):
            return int(config.max_position_embeddings)
        return read(config)

    fastchat.utils.get_context_length = get_context_length
    sys.argv = ["model_worker", *arguments]
    runpy.run_module("fastchat.serve.model_worker", run_name="__main__")


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        run_worker(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory", type=Path, default=DEFAULT, help=f"where it goes; default {DEFAULT}"
    )
    try:
        print(make(parser.parse_args().directory))
    except RuntimeError as error:
        raise SystemExit(f"error: {error}") from error


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    main()
