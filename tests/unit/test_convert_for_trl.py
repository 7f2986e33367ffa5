"""What workflow_convert.py writes for other trainers, read by datasets and trained by TRL.

python -m pytest tests/unit/test_convert_for_trl.py
"""

import re
import runpy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import workflow_convert
from rise.episodes.shorthand import sketch
from tests.support.conversion import write_run
from tests.support.tiny import save_tiny_model

ONE_STEP = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "max_length": 128,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "save_strategy": "no",
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.fixture
def data(tmp_path, request):
    log = write_run(tmp_path / "run", sketch("w7,r5 r5", "r5", "- w8,r5"))
    output = tmp_path / "data.jsonl"
    arguments = ["--filepath", log, "--output", output, *request.param]
    assert workflow_convert.main([str(argument) for argument in arguments]) == 0
    from datasets import load_dataset

    return load_dataset(
        "json", data_files=str(output), split="train", cache_dir=str(tmp_path / "cache")
    )


@pytest.mark.parametrize("data", [["--format", "messages"]], indirect=True)
def test_messages_have_features(data):
    from datasets import List, Value

    assert len(data) == 5 and data[1]["weight"] == pytest.approx(12.1825)
    text, number = Value("string"), Value("int64")
    assert data.features == {
        "id": text,
        "messages": List({"role": text, "content": text}),
        "reward": number,
        "weight": Value("float64"),
        **dict.fromkeys(["task_id", "turn", "opening"], number),
    }


@pytest.mark.parametrize("data", [["--to", "dpo"]], indirect=True)
def test_pairs_have_the_columns_of_preferences(data):
    assert [row["id"] for row in data] == ["0-0-1-1", "0-2-2-1"]
    assert data[1]["prompt"][-1] == {"role": "user", "content": "incorrect"}
    assert data[1]["chosen"] == [{"role": "assistant", "content": "the answer is 5"}]
    assert data[1]["rejected"] == [{"role": "assistant", "content": "the answer is 8"}]


DOCUMENTED = {
    "sft": (["--format", "messages"], "convert.md", "dataset/messages.jsonl", "SFTConfig(output"),
    "dpo": (["--to", "dpo"], "baselines.md", "dataset/pairs.jsonl", "DPOConfig(output"),
}


@pytest.mark.parametrize(
    ("data", "name"), [(case[0], name) for name, case in DOCUMENTED.items()], indirect=["data"]
)
def test_the_documented_lines_train_and_save_a_model(data, name, model_path, tmp_path):
    _, page, file, config = DOCUMENTED[name]
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    lines = re.search(r"```python\n(from datasets.*?)```", text, re.DOTALL)[1]
    given = {
        "meta-llama/Llama-2-7b-chat-hf": str(model_path),
        file: str(tmp_path / "data.jsonl"),
        f"checkpoints/{name}": str(tmp_path / "out"),
        config: config.replace("(", "(**small, "),
    }
    for shown, used in given.items():
        assert shown in lines
        lines = lines.replace(shown, used)
    (tmp_path / "script.py").write_text(lines)
    runpy.run_path(str(tmp_path / "script.py"), {"small": ONE_STEP})
    before, after = (
        AutoModelForCausalLM.from_pretrained(path) for path in (model_path, tmp_path / "out")
    )
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
