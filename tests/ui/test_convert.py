"""``crossmodal convert``: a tiny model of open_clip goes into a checkpoint, and out again."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from crossmodal.encoders import load_encoder

MODEL_CFG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEXTS = ["a red dog", "", "a long text that is cut at the limit of its tower, as its authors do it"]


@pytest.fixture
def original(tmp_path):
    """A folder as open_clip publishes it."""
    folder = tmp_path / "original"
    folder.mkdir()
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL_CFG)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def embeddings(spec):
    encoder = load_encoder(str(spec), backend="torch")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    return encoder.encode_images([Image.fromarray(each) for each in pixels]), encoder.encode_texts(TEXTS)


def test_there_and_back_gives_the_same_bits(run, original, tmp_path):
    spec = f"open_clip:local-dir:{original}"
    there = run("convert", spec, tmp_path / "ours", "--json")
    assert there.exit_code == 0, there.stderr
    assert json.loads(there.stdout)["family"] == "open_clip"
    back = run("convert", tmp_path / "ours", tmp_path / "theirs", "--layout", "original")
    assert back.exit_code == 0, back.stderr
    assert "8 dimensions" in back.stdout
    first = embeddings(spec)
    for again in (tmp_path / "ours", f"open_clip:local-dir:{tmp_path / 'theirs'}"):
        for one, other in zip(first, embeddings(again), strict=True):
            assert np.array_equal(one, other)


def test_open_clip_itself_reads_what_is_written(run, original, tmp_path):
    assert (
        run("convert", f"open_clip:local-dir:{original}", tmp_path / "o", "--layout", "original").exit_code
        == 0
    )
    models = [open_clip.create_model(f"local-dir:{folder}") for folder in (original, tmp_path / "o")]
    for one, other in zip(*(model.state_dict().items() for model in models), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("layout", ["checkpoint", "original"])
def test_a_folder_that_holds_something_else_is_left_alone(run, original, tmp_path, layout):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    result = run("convert", f"open_clip:local-dir:{original}", tmp_path / "mine", "--layout", layout)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("spec", ["lite:2", "nonsense", "hf:", "open_clip:ViT-B-33/openai"])
def test_what_cannot_be_converted_is_told_in_one_line(run, tmp_path, spec):
    result = run("convert", spec, tmp_path / "o")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "o").exists()


def test_another_checkpoint_is_never_written_over(run, original, tmp_path):
    """It may be a model that took a night to train."""
    spec = f"open_clip:local-dir:{original}"
    assert run("convert", spec, tmp_path / "ours").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    result = run("convert", spec, tmp_path / "ours")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "holds something already" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()} == before
