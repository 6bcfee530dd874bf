"""What the family hf reads of a folder, and what it refuses: in one line that says what to do."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.errors import EncoderError

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
PIECES = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "red": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Path:
    """A small CLIP with its processor, as a user has them."""
    folder = tmp_path_factory.mktemp("hf") / "clip"
    file = Tokenizer(models.WordLevel(PIECES, unk_token="[UNK]"))
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=file, pad_token="[SEP]", model_max_length=9)
    text = {**TOWER, "vocab_size": len(PIECES), "max_position_embeddings": 9, "eos_token_id": 2}
    vision = {**TOWER, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    size = {"height": 16, "width": 16}
    hf.CLIPProcessor(hf.CLIPImageProcessor(size=size, crop_size=size), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "clip"))


def refusal(act: Any) -> str:
    """The message of an EncoderError, which must be one line."""
    with pytest.raises(EncoderError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


def refused(folder: Path) -> str:
    return refusal(lambda: read_blueprint(f"hf:{folder}"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | entries))


def test_the_copy_to_damage_works_while_it_is_whole(folder):
    assert load_encoder(f"hf:{folder}", backend="torch").encode_texts(["red", ""]).shape == (2, 8)


def test_a_folder_is_named_so_that_it_is_found_from_anywhere(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    card = load_encoder(f"hf:{folder.name}").card
    monkeypatch.chdir("/")
    assert load_encoder(card.name).card == card


def test_a_folder_without_its_family_is_refused_with_the_spec_that_it_has(folder):
    assert f"one that transformers wrote is hf:{folder}" in refusal(lambda: load_encoder(str(folder)))


SECOND_START = """
import sys
from crossmodal import load_encoder
encoder = load_encoder(sys.argv[1], backend="openvino")
print(encoder.encode_texts(["red", ""]).tobytes().hex())
print(*(name for name in ("torch", "transformers") if name in sys.modules))
"""


def test_a_second_start_embeds_texts_without_torch_and_transformers(folder):
    first = load_encoder(f"hf:{folder}", backend="openvino").encode_texts(["red", ""])
    run = [sys.executable, "-c", SECOND_START, f"hf:{folder}"]
    second = subprocess.run(run, check=True, capture_output=True, text=True, env=os.environ).stdout
    assert second.split("\n") == [first.tobytes().hex(), "", ""]


def test_the_fingerprint_follows_every_file_that_matters_and_no_other(folder):
    seen = {read_blueprint(f"hf:{folder}").fingerprint}
    change(folder / "config.json", transformers_version="0.0")
    (folder / "README.md").write_text("a model")
    assert read_blueprint(f"hf:{folder}").fingerprint in seen
    state = load_file(folder / "model.safetensors")
    state["logit_scale"] += 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    seen.add(read_blueprint(f"hf:{folder}").fingerprint)
    change(folder / "tokenizer_config.json", model_max_length=5)
    seen.add(read_blueprint(f"hf:{folder}").fingerprint)
    processor = json.loads((folder / "processor_config.json").read_bytes())["image_processor"]
    change(folder / "processor_config.json", image_processor=processor | {"resample": 2})
    seen.add(read_blueprint(f"hf:{folder}").fingerprint)
    change(folder / "config.json", logit_scale_init_value=1.0)
    seen.add(read_blueprint(f"hf:{folder}").fingerprint)
    assert len(seen) == 5


def test_a_cache_that_takes_nothing_costs_time_only(folder, tmp_path, monkeypatch):
    expected = read_blueprint(f"hf:{folder}")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "file"))
    blueprint = read_blueprint(f"hf:{folder}")
    assert blueprint.fingerprint == expected.fingerprint
    assert blueprint.tokenizer(["red", ""]) == expected.tokenizer(["red", ""]) == [[1, 3, 2], [1, 2]]


def test_without_a_network_the_local_alternatives_are_named(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for spec in ("hf:someone/some-model", "hf:someone/some-model@main"):
        message = refusal(lambda spec=spec: load_encoder(spec))
        assert message.startswith(f"{spec} is no folder here, and needs the hub")
        assert message.endswith("take hf:FOLDER, where FOLDER was written by save_pretrained, or: lite")


def test_from_the_hub_come_the_files_of_one_revision_and_no_code(whole, monkeypatch):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options))
        return str(whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    blueprint = read_blueprint("hf:someone/clip@v1")
    assert blueprint.name == "hf:someone/clip@v1"
    assert blueprint.fingerprint == read_blueprint(f"hf:{whole}").fingerprint
    ((name, options),) = asked
    assert (name, options["revision"]) == ("someone/clip", "v1")
    assert not [pattern for pattern in options["allow_patterns"] if pattern.endswith((".py", ".bin", "*"))]


def test_names_that_can_be_no_folder_and_no_repository_are_refused():
    assert "lacks a name" in refusal(lambda: read_blueprint("hf:"))
    assert "no such folder" in refusal(lambda: read_blueprint("hf:./nowhere"))
    assert "neither a folder nor a model" in refusal(lambda: read_blueprint("hf:no/such/name/at/all"))


def test_models_that_are_no_twin_encoders_are_told_from_those_that_work(folder):
    change(folder / "config.json", model_type="bert")
    message = refused(folder)
    assert "a model of type 'bert'" in message
    assert "Types that work: align, " in message
    assert "siglip, vision-text-dual-encoder" in message
    config = {"hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    assert "a config.json without a model_type" in refused(folder)


def test_siglip2_of_variable_resolution_is_refused_with_a_way_out(folder):
    change(folder / "config.json", model_type="siglip2")
    assert "take one of fixed size, such as hf:google/siglip2-base-patch16-224" in refused(folder)


def test_a_processor_whose_pictures_have_many_sizes_is_refused(folder):
    processor = hf.CLIPImageProcessor(size={"shortest_edge": 16}, do_center_crop=False)
    change(folder / "processor_config.json", image_processor=processor.to_dict())
    message = refused(folder)
    assert "a wide and a tall one became (3, 16, 21) and (3, 26, 16)" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "lacks a config.json"),
        ("model.safetensors", "lacks its weights: neither model.safetensors nor pytorch_model.bin"),
        ("processor_config.json", "lacks its image processor"),
        ("tokenizer", "lacks its tokenizer"),
    ],
)
def test_what_is_missing_is_named(folder, name, said):
    for path in folder.glob(f"{name}*"):
        path.unlink()
    assert said in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json"])
def test_torn_files_are_refused(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert "cannot be read" in refused(folder)


def test_a_shard_that_is_missing_is_named(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert "lacks model-00002-of-00002.safetensors" in refused(folder)


def test_a_torn_safetensors_is_refused_when_it_is_loaded(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-7])
    blueprint = read_blueprint(f"hf:{folder}")
    assert "its weights cannot be loaded" in refusal(blueprint.load)


def test_weights_that_do_not_fit_are_listed(folder):
    state = load_file(folder / "model.safetensors")
    del state["logit_scale"]
    state["text_projection.weight"] = torch.zeros(8, 31)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    message = refusal(read_blueprint(f"hf:{folder}").load)
    assert "do not fit its configuration" in message
    assert (
        "1 missing (logit_scale); 1 of another shape (text_projection.weight (8, 31) instead of (8, 32))"
        in message
    )


def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not_run(folder, tmp_path):
    expected = load_encoder(f"hf:{folder}", backend="torch").encode_texts(["red", "red red"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    again = load_encoder(f"hf:{folder}", backend="torch").encode_texts(["red", "red red"])
    np.testing.assert_array_equal(again, expected)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(), protocol=2))
    assert "its weights cannot be loaded" in refusal(read_blueprint(f"hf:{folder}").load)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    blueprint = read_blueprint(f"hf:{whole}")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    return tmp_path / "saved"


def test_a_checkpoint_that_lacks_something_names_it(checkpoint):
    (checkpoint / "tokenizer.json").rename(checkpoint / "elsewhere")
    assert "lacks its file tokenizer.json" in refusal(lambda: read_blueprint(str(checkpoint)))
    (checkpoint / "elsewhere").rename(checkpoint / "tokenizer.json")
    change(checkpoint / "config.json", preprocessing={})
    assert "its config.json is torn" in refusal(lambda: read_blueprint(str(checkpoint)))


def test_a_checkpoint_does_not_tell_where_its_model_lay(folder, tmp_path):
    blueprint = read_blueprint(f"hf:{folder}")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    assert "_name_or_path" not in (tmp_path / "saved" / "config.json").read_text()


def test_a_checkpoint_whose_weights_do_not_fit_lists_them(checkpoint):
    state = load_file(checkpoint / "model.safetensors")
    state["logit_scales"] = state.pop("logit_scale")
    state["text_projection.weight"] = torch.zeros(8, 31)
    save_file(state, checkpoint / "model.safetensors")
    message = refusal(read_blueprint(str(checkpoint)).load)
    assert "1 of another shape (text_projection.weight (8, 31) instead of (8, 32))" in message
    assert "1 missing (logit_scale); 1 unexpected (logit_scales)" in message
    (checkpoint / "model.safetensors").write_bytes(b"torn")
    assert "model.safetensors is no safetensors file" in refusal(lambda: read_blueprint(str(checkpoint)))
