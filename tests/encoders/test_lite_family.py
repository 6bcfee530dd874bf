"""`lite` as any other family: read by its spec, written into a checkpoint, read back, trained further."""

import numpy as np
import pytest
import torch

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import read_checkpoint, save_checkpoint
from crossmodal.encoders.convert import convert_encoder
from crossmodal.encoders.families import family
from crossmodal.errors import EncoderError

TEXTS = ["a red apple", "", "flag with a star", "word " * 300]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (int(h), int(w), 3), np.uint8) for h, w in rng.integers(20, 400, (3, 2))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite") / "checkpoint"
    convert_encoder("lite", folder)
    return folder


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_checkpoint_of_lite_gives_its_bits(backend, folder, pictures):
    shipped, saved = (load_encoder(spec, backend=backend) for spec in ("lite", folder))
    assert np.array_equal(shipped.encode_images(pictures), saved.encode_images(pictures))
    assert np.array_equal(shipped.encode_texts(TEXTS), saved.encode_texts(TEXTS))
    assert saved.card.name == str(folder)
    assert (saved.card.image_size, saved.card.text_limit) == (
        shipped.card.image_size,
        shipped.card.text_limit,
    )


def test_heads_train_on_features_that_are_computed_once(folder):
    """One step on the heads moves the embeddings, and nothing below the heads."""
    blueprint = read_blueprint("lite")
    owner = blueprint.load().owner
    below = {name: tensor.clone() for name, tensor in owner.state_dict().items() if "backbone" in name}
    pixels = torch.randint(256, (4, 260, 260, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    ids = torch.randint(1000, 2000, (4, 6), generator=torch.manual_seed(1))
    with torch.no_grad():
        seen, said = owner.image_features(pixels), owner.text_features(ids)
    heads = [*owner.image.head.parameters(), *owner.text.head.parameters(), owner.logit_scale]
    optimiser = torch.optim.SGD(heads, lr=1e-4)

    def loss():
        scores = owner.logit_scale.exp() * owner.project_image(seen) @ owner.project_text(said).T
        return torch.nn.functional.cross_entropy(scores, torch.arange(4))

    before = loss()
    before.backward()
    assert all(head.grad is not None and head.grad.abs().sum() > 0 for head in heads)
    optimiser.step()
    assert loss() < before
    assert all(torch.equal(owner.state_dict()[name], tensor) for name, tensor in below.items())


def test_what_was_trained_is_what_is_read_back(tmp_path):
    blueprint = read_blueprint("lite")
    model = blueprint.load()
    with torch.no_grad():
        model.owner.text.head.shift.bias.add_(0.1)
        model.owner.logit_scale.fill_(3.0)
    save_checkpoint(model, blueprint, tmp_path / "trained")
    again = read_checkpoint(tmp_path / "trained")
    assert again.fingerprint != blueprint.fingerprint
    for name, tensor in again.load().owner.state_dict().items():
        assert torch.equal(tensor, model.owner.state_dict()[name]), name


def test_no_other_library_has_a_layout_for_it(tmp_path):
    with pytest.raises(EncoderError, match="no other library has a layout; write a checkpoint"):
        family("lite").export(None, read_blueprint("lite"), tmp_path)
    with pytest.raises(EncoderError, match="no other library"):
        convert_encoder("lite", tmp_path / "original", "original")
    assert not (tmp_path / "original").exists()
