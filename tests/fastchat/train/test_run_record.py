"""What counts as the same training run: the files of the model, not only its path.

python -m pytest tests/fastchat/train/test_run_record.py
"""

import json

from fastchat.conversation import BUILT_IN
from fastchat.train.model_files import SAMPLED_BYTES, fingerprint
from fastchat.train.train import main
from tests.fastchat.train.data import command, make_case
from tests.tiny import save_tiny_model


def test_other_weights_under_the_same_path_are_refused(tmp_path, capsys):
    case, output = make_case(tmp_path), tmp_path / "out"
    assert main(command(case, output, "--max_steps", "1")) == 0
    weights = case[0] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    capsys.readouterr()
    assert main(command(case, output, "--max_steps", "1")) == 2
    assert "model_fingerprint (was " in capsys.readouterr().err
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(command(case, output, "--max_steps", "1")) == 0


def test_another_adapter_under_the_same_path_is_refused(tmp_path, capsys):
    case, adapter, output = make_case(tmp_path), tmp_path / "adapter", tmp_path / "out"
    lora = ("--max_steps", "1", "--use_lora", "True")
    assert main(command(case, adapter, *lora)) == 0
    more = (*lora, "--lora_weight_path", str(adapter))
    assert main(command(case, output, *more)) == 0
    assert main(command(case, adapter, *lora, "--overwrite_output_dir", rate="1e-2")) == 0
    capsys.readouterr()
    assert main(command(case, output, *more)) == 2
    assert "adapter_fingerprint (was " in capsys.readouterr().err


def test_another_chat_template_under_the_same_path_is_refused(tmp_path, capsys):
    case, output, file = make_case(tmp_path), tmp_path / "out", tmp_path / "chat.jinja"
    words = command(case, output, "--max_steps", "1", "--chat_template", str(file))
    file.write_text(BUILT_IN["chatml"])
    assert main(words) == 0
    file.write_text(BUILT_IN["chatml"] + "{# another #}")
    capsys.readouterr()
    assert main(words) == 2
    assert "chat_template_sha256 (was " in capsys.readouterr().err


def test_a_record_from_before_fingerprints_is_accepted(tmp_path, capsys):
    case, output = make_case(tmp_path), tmp_path / "out"
    assert main(command(case, output, "--max_steps", "1")) == 0
    record = json.loads((output / "training.json").read_text())
    del record["settings"]["model_fingerprint"]
    (output / "training.json").write_text(json.dumps(record))
    assert main(command(case, output, "--max_steps", "1")) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_every_file_of_a_model_counts_and_a_name_of_the_hub_has_none(tmp_path):
    model = save_tiny_model(tmp_path / "model")
    before = fingerprint(str(model))
    (model / "training.json").write_text("{}")
    assert fingerprint(str(model)) == before
    for name in ("config.json", "tokenizer.json", "more.safetensors"):
        with (model / name).open("ab") as file:
            file.write(b" " * (SAMPLED_BYTES + 1))
        assert fingerprint(str(model)) != before
        before = fingerprint(str(model))
    assert fingerprint("hf:ORG/NAME") is None
