"""Arithmetics other than float32, held against the plain module; what cannot be is told in one line."""

import numpy as np
import pytest
import torch
from torch import nn

from crossmodal.encoders import load_encoder
from crossmodal.encoders.pixel_tower import PixelTower
from crossmodal.encoders.runtime import InputSpec, Tower, Way, cache, choice, choose_backend, run_tower
from crossmodal.encoders.runtime import torch as torch_runtime
from crossmodal.encoders.runtime.torch import lower_weights
from crossmodal.errors import EncoderError

DIM, SIZE = 16, 32


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = nn.Conv2d(3, 16, 5, stride=3)
        self.norm = nn.BatchNorm2d(16)
        self.again = nn.Conv2d(16, 16, 3)
        self.project = nn.Linear(16, DIM)

    def forward(self, x):
        return self.project(self.again(self.norm(self.convolve(x)).relu()).relu().mean((2, 3)))


class Attention(nn.Module):
    """A vision transformer of one block: patches, attention, a norm and a projection."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, stride=8)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.project = nn.Linear(32, DIM)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.project(x.mean(1))


def tower(body, fingerprint="d" * 64):
    def build():
        torch.manual_seed(7)
        return PixelTower(body(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).eval()

    inputs = (InputSpec("uint8", (None, SIZE, SIZE, 3)),)
    return Tower(
        encoder="tiny", modality="image", fingerprint=fingerprint, dim=DIM, inputs=inputs, build=build
    )


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (37, SIZE, SIZE, 3), np.uint8)


def reference(plain, pictures):
    with torch.no_grad():
        return plain.build()(torch.from_numpy(pictures)).numpy()


def can(backend, dtype):
    return dtype in choice._ABILITIES[backend]()


@pytest.mark.parametrize("body", [Convolutions, Attention])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_bfloat16_agrees_with_the_plain_module_and_is_not_float32_in_disguise(backend, body, pictures):
    if not can(backend, "bfloat16"):
        pytest.skip(f"not run: {backend} has no bfloat16 on this processor")
    expected = reference(tower(body), pictures)
    given = run_tower(tower(body), Way(backend=backend, dtype="bfloat16"))([(pictures,)])[0]
    assert given.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-6)
    assert (given * expected).sum(1).min() > 0.999
    assert np.abs(given - expected).max() > 1e-5


def test_pixels_are_scaled_in_float32_before_anything_is_rounded(pictures):
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :DIM]

    run = run_tower(tower(Spy), Way(backend="torch", dtype="bfloat16"))
    run([(pictures,)])
    [scaled] = {tensor.dtype for tensor in seen}
    assert scaled == torch.float32
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    exact = ((pictures / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(torch.cat(seen).numpy(), exact, atol=1e-5)


def test_only_weights_of_products_and_convolutions_are_rounded():
    module = lower_weights(Attention(), torch.bfloat16)
    assert {module.patch.weight.dtype, module.project.weight.dtype} == {torch.bfloat16}
    assert {module.norm.weight.dtype} == {torch.float32}
    same = Attention()
    assert lower_weights(same, torch.float32) is same
    assert {parameter.dtype for parameter in same.parameters()} == {torch.float32}


@pytest.mark.parametrize(("body", "rows"), [(Convolutions, 1), (Attention, 16)])
def test_a_transformer_takes_many_rows_in_a_request_and_its_bits_do_not_depend_on_them(body, rows, pictures):
    run = run_tower(tower(body), Way(backend="openvino"))
    together = run([(pictures,)])[0]
    assert run._rows.now == rows
    for part in (slice(0, 1), slice(3, 20), slice(None, None, -1), slice(30, None)):
        assert np.array_equal(run([(pictures[part],)])[0], together[part])
    np.testing.assert_allclose(together, reference(tower(body), pictures), atol=2e-6)


def test_each_dtype_has_its_own_place_in_the_cache(pictures):
    if not can("openvino", "bfloat16"):
        pytest.skip("not run: OpenVINO has no bfloat16 on this processor")
    for dtype in ("float32", "bfloat16"):
        run_tower(tower(Convolutions), Way(backend="openvino", dtype=dtype))([(pictures,)])
    folders = sorted(path.name.rsplit("-", 1)[1] for path in (cache.cache_root() / "towers").iterdir())
    assert folders == ["bfloat16", "float32"]


@pytest.mark.parametrize("asked", ["auto", "torch"])
def test_float16_without_a_gpu_is_refused_with_what_there_is(asked, monkeypatch):
    monkeypatch.setattr(choice, "accelerator", lambda: "")
    with pytest.raises(EncoderError, match="torch can in float32, bfloat16") as caught:
        load_encoder("lite", backend=asked, dtype="float16")
    assert str(caught.value).startswith(
        "torch cannot compute in float16 on this machine. Here openvino can in"
    )
    assert "\n" not in str(caught.value)


def test_what_a_backend_never_can_is_refused():
    for backend, dtype in [("openvino", "float16"), ("torch", "int8")]:
        with pytest.raises(EncoderError, match=f"{backend} cannot compute in {dtype}"):
            choose_backend(backend, dtype)


def test_a_processor_without_bfloat16_is_told(monkeypatch):
    monkeypatch.setitem(choice._ABILITIES, "openvino", lambda: ("float32", "int8"))
    with pytest.raises(EncoderError, match="openvino cannot compute in bfloat16 on this machine"):
        choose_backend("openvino", "bfloat16")


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(
        EncoderError, match=r"Unknown dtype 'bf16'. .*Known: bfloat16, float16, float32, int8"
    ):
        load_encoder("lite", dtype="bf16")


@pytest.mark.parametrize(
    ("dtype", "device", "chosen"),
    [
        ("float32", "", "openvino"),
        ("float32", "cuda", "torch"),
        ("int8", "", "openvino"),
        ("int8", "cuda", "openvino"),
        ("float16", "mps", "torch"),
    ],
)
def test_auto_heeds_the_dtype(dtype, device, chosen, monkeypatch):
    monkeypatch.setattr(choice, "accelerator", lambda: device)
    assert choose_backend("auto", dtype) == chosen


def test_the_card_tells_the_dtype_and_only_float32_is_shared_between_backends():
    cards = {
        (backend, dtype): load_encoder("lite", backend=backend, dtype=dtype).card
        for backend in ("openvino", "torch")
        for dtype in ("float32", "bfloat16")
        if can(backend, dtype)
    }
    assert all(card.dtype == dtype for (_, dtype), card in cards.items())
    assert cards["openvino", "float32"].fingerprint == cards["torch", "float32"].fingerprint
    distinct = {card.fingerprint for card in cards.values()}
    assert len(distinct) == len(cards) - 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no NVIDIA GPU here")
@pytest.mark.parametrize("body", [Convolutions, Attention])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_a_gpu_agrees_with_the_processor(dtype, body, pictures):
    run = torch_runtime.TorchRunner(tower(body), "cuda", dtype)
    assert (run([(pictures,)])[0] * reference(tower(body), pictures)).sum(1).min() > 0.999
