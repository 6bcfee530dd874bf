"""The checkpoint folder: whole or not at all, moved at will, refused in one line when it is torn."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertModel

from crossmodal.collection import Collection
from crossmodal.encoders import folder_swap, load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import is_checkpoint, read_checkpoint, save_checkpoint
from crossmodal.encoders.weights import check_safetensors, file_digest, load_weights
from crossmodal.errors import CrossmodalError, EncoderError, StorageError
from crossmodal.types import Record

TEXTS = ["a red dog", "", "dog dog dog"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny twin: its blueprint and its model."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "w.safetensors")
    sizes = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=16)).save_pretrained(folder / "bert")
    file = Tokenizer(
        models.WordLevel({"[UNK]": 0, "[CLS]": 1, "a": 2, "red": 3, "dog": 4}, unk_token="[UNK]")
    )
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A", None, [("[CLS]", 1)])
    file.save(str(folder / "bert" / "tokenizer.json"))
    blueprint = read_blueprint(f"towers:test_resnet/{folder}/w.safetensors+{folder}/bert?dim=8&image_size=64")
    return blueprint, blueprint.load()


@pytest.fixture
def saved(made, tmp_path):
    blueprint, model = made
    save_checkpoint(model, blueprint, tmp_path / "saved")
    return tmp_path / "saved"


def configure(folder, **changes):
    """Rewrite config.json; a value of None takes its key out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_the_config_tells_what_the_model_is(saved, made):
    config = json.loads((saved / "config.json").read_text())
    blueprint, model = made
    assert config["temperature"] == {"logit_scale": model.owner.logit_scale.item(), "logit_bias": None}
    assert config["temperature"]["logit_scale"] == pytest.approx(np.log(1 / 0.07))
    assert (config["format"], config["family"], config["dim"]) == (1, "towers", 8)
    assert config["text_limit"] == blueprint.tokenizer.limit == 512
    assert config["architecture"] == json.loads(json.dumps(blueprint.architecture))
    assert config["files"] == ["tokenizer.json"]
    assert config["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_a_folder_that_was_moved_is_the_same_encoder(saved, tmp_path, picture_folder):
    first = load_encoder(str(saved), backend="torch")
    Collection.create(tmp_path / "collection", first).add(str(picture_folder))
    expected = first.encode_texts(TEXTS)
    saved.rename(tmp_path / "moved")
    moved = load_encoder(str(tmp_path / "moved"), backend="torch")
    assert moved.card.name == str(tmp_path / "moved")
    assert moved.card.fingerprint == first.card.fingerprint
    np.testing.assert_array_equal(moved.encode_texts(TEXTS), expected)
    hits = Collection.open(tmp_path / "collection", encoder=moved).search("a red dog", k=3)
    assert len(hits) == 3


def test_a_relative_path_is_told_in_full(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert read_blueprint("saved").name == str(saved)


def test_the_fingerprint_is_of_the_content_and_not_of_who_wrote_it(saved):
    before = read_checkpoint(saved).fingerprint
    configure(saved, versions={"torch": "9.9"})
    (saved / "notes.txt").write_text("mine")
    assert read_checkpoint(saved).fingerprint == before
    seen = {before}
    configure(saved, text_limit=7)
    seen.add(read_checkpoint(saved).fingerprint)
    tokenizer = saved / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("red", "rot"))
    seen.add(read_checkpoint(saved).fingerprint)
    state = load_file(saved / "model.safetensors")
    state["image.head.norm.bias"][0] += 1
    save_file(state, saved / "model.safetensors")
    seen.add(read_checkpoint(saved).fingerprint)
    assert len(seen) == 4


def test_weights_that_changed_after_the_folder_was_opened_are_not_taken_for_the_old_ones(saved, made):
    opened = read_checkpoint(saved)
    state = load_file(saved / "model.safetensors")
    state["image.head.norm.bias"][0] += 1
    save_file(state, saved / "model.safetensors")
    with pytest.raises(EncoderError, match="has changed since it was opened; open it again"):
        opened.load()


def test_half_precision_stays_on_disk_and_is_float32_when_read(made, tmp_path):
    blueprint, _ = made
    model = blueprint.load()
    model.owner.image.half()
    save_checkpoint(model, blueprint, tmp_path / "half")
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        kept = file.get_tensor("image.head.mix.weight")
    read = read_checkpoint(tmp_path / "half").load().owner.image.head.mix.weight
    assert kept.dtype == torch.float16
    assert read.dtype == torch.float32
    assert torch.equal(read, kept.float())


@pytest.mark.parametrize("exchange", [True, False])
def test_an_earlier_checkpoint_is_replaced_with_all_that_lay_in_it(saved, made, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(folder_swap, "_exchanged", lambda one, other: False)
    blueprint, model = made
    (saved / "old.txt").touch()
    save_checkpoint(model, blueprint, saved, also=lambda folder: (folder / "trainer.json").write_text("{}"))
    assert (saved / "trainer.json").exists()
    assert not (saved / "old.txt").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    read_checkpoint(saved).load()


def test_an_empty_folder_is_filled_and_folders_above_are_made(made, tmp_path):
    blueprint, model = made
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "runs" / "a" / "best"):
        save_checkpoint(model, blueprint, folder)
        assert is_checkpoint(folder)


def test_what_is_no_checkpoint_is_left_as_it_is(made, tmp_path):
    blueprint, model = made
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EncoderError, match="holds something else than a checkpoint and is left as it is"):
        save_checkpoint(model, blueprint, tmp_path / "thesis")
    with pytest.raises(EncoderError, match="is a file; choose a folder for the checkpoint"):
        save_checkpoint(model, blueprint, tmp_path / "file")
    assert (tmp_path / "thesis" / "config.json").read_text() == '{"model_type": "bert"}'
    assert (tmp_path / "file").read_text() == "mine"
    assert not is_checkpoint(tmp_path / "thesis")


def test_when_the_disk_is_full_the_earlier_checkpoint_stays(saved, made):
    blueprint, model = made
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def refuse(folder):
        raise OSError(28, os.strerror(28), str(folder / "trainer.json"))

    with pytest.raises(StorageError, match="the disk is full; free some space"):
        save_checkpoint(model, blueprint, saved, also=refuse)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_killed_writer_leaves_the_earlier_checkpoint(saved):
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from crossmodal.encoders import read_blueprint\n"
        "from crossmodal.encoders.checkpoint import save_checkpoint\n"
        "folder = Path(sys.argv[1]); blueprint = read_blueprint(sys.argv[1])\n"
        "die = lambda new: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_checkpoint(blueprint.load(), blueprint, folder, also=die)\n"
    )
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    done = subprocess.run([sys.executable, "-c", program, str(saved)], check=False)
    assert done.returncode == -9
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_checkpoint_may_be_saved_onto_itself(saved):
    blueprint = read_checkpoint(saved)
    save_checkpoint(blueprint.load(), blueprint, saved)
    assert read_checkpoint(saved).fingerprint == blueprint.fingerprint


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").write_text('{"format": 1, "fam'), "config.json is torn or no JSON"),
        (lambda f: (f / "config.json").write_bytes(b""), "config.json is torn or no JSON"),
        (lambda f: configure(f, format=None), "has no number as 'format'"),
        (lambda f: configure(f, dim=None, files=None), "config.json lacks dim, files"),
        (lambda f: configure(f, architecture=[]), "lacks architecture, or holds no such value there"),
        (lambda f: configure(f, architecture={}), "config.json does not fit the family 'towers' (KeyError"),
        (lambda f: configure(f, preprocessing={"sice": 8}), "does not fit the family 'towers' (TypeError"),
        (
            lambda f: configure(f, family="tower"),
            "Unknown family of encoders 'tower'. Did you mean 'towers'?",
        ),
        (
            lambda f: configure(f, format=2, versions={"crossmodal-retrieval": "7.5"}, family=None),
            "is a checkpoint of format 2, written by crossmodal-retrieval 7.5; this version reads up to",
        ),
        (
            lambda f: configure(f, format=2, versions=None),
            "written by crossmodal-retrieval of a newer version",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors cannot be read (No such file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "its header is torn"),
        (lambda f: os.truncate(f / "model.safetensors", 20_000), "is torn: 20000 bytes, its header tells of"),
        (lambda f: (f / "tokenizer.json").unlink(), "lacks its file tokenizer.json; copy the whole folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(saved, spoil, told):
    spoil(saved)
    with pytest.raises(CrossmodalError, match=re.escape(told)) as raised:
        read_blueprint(str(saved))
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit_the_configuration_are_told_by_name(saved):
    state = load_file(saved / "model.safetensors")
    state["text.head.norm.bias"] = torch.zeros(9)
    state["extra"] = state.pop("image.head.norm.bias")
    save_file(state, saved / "model.safetensors")
    told = (
        "1 missing (image.head.norm.bias); 1 unexpected (extra); "
        "1 of another shape (text.head.norm.bias (9,) instead of (8,))"
    )
    with pytest.raises(EncoderError, match=re.escape(told)) as raised:
        read_checkpoint(saved).load()
    assert "\n" not in str(raised.value)


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight


def test_tensors_that_share_memory_are_read_under_either_name(tmp_path):
    source, target = Tied(), Tied()
    state = source.state_dict()
    del state["one.weight"]
    save_file(state, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target.one.weight, source.one.weight)
    del state["other.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"2 missing \(one\.weight, other\.weight\)"):
        load_weights(target, tmp_path / "w.safetensors")


@pytest.mark.parametrize("wrapping", ["state_dict", "model", None])
def test_what_torch_saved_of_tensors_is_read_and_a_prefix_goes_only_when_told(tmp_path, wrapping):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {f"module.{name}": tensor.half() for name, tensor in source.state_dict().items()}
    torch.save({wrapping: state, "epoch": 3} if wrapping else state, tmp_path / "w.pt")
    with pytest.raises(EncoderError, match=r"2 unexpected \(module\.weight, module\.bias\)"):
        load_weights(target, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt", strip=["module."])
    assert torch.equal(target.weight, source.weight.half().float())
    assert target.weight.dtype == torch.float32


def test_a_pickle_of_more_than_tensors_never_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"weight": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(EncoderError, match="would run code when read, which is refused") as raised:
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04torn", b"\x80\x02torn", b"\x10" + b"\0" * 7 + b"{"]
)
@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_a_file_that_is_torn_is_told_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=r"w\.\w+ is (torn or no|no safetensors) file") as raised:
        load_weights(nn.Linear(2, 2), tmp_path / name)
    assert "\n" not in str(raised.value)


def test_whole_safetensors_pass_the_check_and_every_shorter_file_fails(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, tmp_path / "w.safetensors", metadata={"by": "us"})
    check_safetensors(tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "w.safetensors").write_bytes(whole[:length])
        with pytest.raises(EncoderError):
            check_safetensors(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(whole + b"\0")
    with pytest.raises(EncoderError, match="is torn"):
        check_safetensors(tmp_path / "w.safetensors")


def test_a_checkpoint_is_opened_without_torch(saved):
    program = (
        "import sys; from crossmodal.encoders import load_encoder\n"
        "load_encoder(sys.argv[1], backend='openvino')\n"
        "print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_copy_of_the_folder_is_the_same_encoder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    assert read_checkpoint(tmp_path / "copy").fingerprint == read_checkpoint(saved).fingerprint


def test_the_digest_of_a_file_follows_its_content_where_size_and_time_stay(tmp_path):
    file = tmp_path / "weights"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        assert file_digest(file) == hashlib.sha256(content).hexdigest()


def test_a_collection_finds_its_checkpoint_again_once_it_is_told_where(saved, tmp_path):
    collection = Collection.create(tmp_path / "c", load_encoder(str(saved), backend="torch"))
    collection.add(Record(key="a", image=np.zeros((9, 9, 3), np.uint8)))
    moved = shutil.move(saved, tmp_path / "moved")
    with pytest.raises(EncoderError, match=r"which is not there any more; put it back, or say where") as told:
        Collection.open(collection.path, backend="torch").search("a red dog")
    assert "\n" not in str(told.value)
    Collection.open(collection.path, load_encoder(str(moved), backend="torch")).add([])
    opened = Collection.open(collection.path, backend="torch")
    assert opened.card.name == str(moved)
    assert [hit.key for hit in opened.search("a red dog")] == ["a"]
    assert opened.verify().problems == []


def test_a_checkpoint_may_be_given_as_a_path(saved):
    assert load_encoder(saved, backend="torch").card == load_encoder(str(saved), backend="torch").card
