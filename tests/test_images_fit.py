"""How a picture is brought to a square: as the peers do it."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from crossmodal.images import fit_image

PEERS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
SIZES = [
    (640, 480),
    (480, 640),
    (333, 500),
    (224, 224),
    (17, 100),
    (100, 17),
    (30, 29),
    (1, 1),
    (1, 8),
    (1000, 200),
]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def peer_crop(image: Image.Image, size: int, resample: str, crop_fraction: float) -> NDArray[np.uint8]:
    resize = transforms.Resize(round(size / crop_fraction), PEERS[resample])
    return np.asarray(transforms.CenterCrop(size)(resize(image)))


@pytest.mark.parametrize("resample", PEERS)
@pytest.mark.parametrize(
    ("size", "crop_fraction"), [(64, 1.0), (64, 0.875), (63, 0.9), (224, 0.95), (7, 0.5)]
)
@pytest.mark.parametrize("dimensions", SIZES)
def test_crop_equals_torchvision_to_the_bit(
    dimensions: tuple[int, int], size: int, crop_fraction: float, resample: str
) -> None:
    image = noise(*dimensions)
    got = fit_image(image, size, "crop", resample, crop_fraction)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, peer_crop(image, size, resample, crop_fraction))


@pytest.mark.parametrize("resample", PEERS)
@pytest.mark.parametrize("dimensions", [(3000, 100), (100, 3000), (1, 40), (2000, 3)])
def test_crop_of_a_long_strip_equals_torchvision_within_rounding(
    dimensions: tuple[int, int], resample: str
) -> None:
    image = noise(*dimensions)
    got = fit_image(image, 32, "crop", resample, 0.9).astype(int)
    assert np.abs(got - peer_crop(image, 32, resample, 0.9)).max() <= 2


@pytest.mark.parametrize("resample", PEERS)
@pytest.mark.parametrize("dimensions", SIZES)
def test_squash_equals_torchvision_to_the_bit(dimensions: tuple[int, int], resample: str) -> None:
    image = noise(*dimensions)
    peer = transforms.Resize((48, 48), PEERS[resample])(image)
    np.testing.assert_array_equal(fit_image(image, 48, "squash", resample), np.asarray(peer))


def test_squash_of_a_long_strip_equals_torchvision_within_rounding() -> None:
    ramp = np.linspace(0, 255, 3 * 100_000).astype(np.uint8)
    strip = Image.fromarray(ramp.reshape(100_000, 3, 1).repeat(3, axis=2))
    peer = transforms.Resize((200, 200), InterpolationMode.BICUBIC)(strip)
    got = fit_image(strip, 200, "squash").astype(int)
    assert np.abs(got - np.asarray(peer)).max() <= 1


@pytest.mark.parametrize(
    ("dimensions", "inside"),
    [
        ((100, 50), np.s_[16:48, 0:64]),
        ((50, 100), np.s_[0:64, 16:48]),
        ((64, 33), np.s_[15:48, 0:64]),
        ((20, 20), np.s_[0:64, 0:64]),
        ((500, 1), np.s_[31:32, 0:64]),
    ],
)
def test_pad_puts_the_whole_picture_in_the_middle_of_white(
    dimensions: tuple[int, int], inside: tuple[slice, slice]
) -> None:
    image = noise(*dimensions)
    got = fit_image(image, 64, "pad")
    height, width = got[inside].shape[:2]
    peer = transforms.Resize((height, width), InterpolationMode.BICUBIC)(image)
    np.testing.assert_array_equal(got[inside], np.asarray(peer))
    got[inside] = 255
    assert (got == 255).all()


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
@pytest.mark.parametrize("dimensions", [(1, 10_000), (10_000, 1), (1, 1)])
def test_a_strip_of_one_colour_keeps_its_colour(dimensions: tuple[int, int], how: str) -> None:
    got = fit_image(Image.new("RGB", dimensions, (9, 99, 199)), 24, how)
    assert got.shape == (24, 24, 3)
    np.testing.assert_array_equal(got[11, 11], (9, 99, 199))
    kept = (got == (9, 99, 199)).all(axis=2).sum()
    assert kept == (24 if how == "pad" and max(dimensions) > 1 else 24 * 24)


def test_the_pixels_belong_to_the_caller() -> None:
    image = Image.new("RGB", (8, 8), "white")
    for how in ("crop", "pad", "squash"):
        fit_image(image, 8, how)[:] = 0
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_what_fits_no_picture_is_named() -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match=r"Unknown way to fit a picture 'corp'\. Did you mean 'crop'"):
        fit_image(image, 8, "corp")
    with pytest.raises(ValueError, match="Unknown resampling 'nearest'"):
        fit_image(image, 8, "crop", "nearest")
    with pytest.raises(ValueError, match=r"crop_fraction is above 0 and at most 1, not 1\.5"):
        fit_image(image, 8, "crop", "bicubic", 1.5)
    with pytest.raises(ValueError, match="takes an RGB picture, as load_image gives it, not L"):
        fit_image(image.convert("L"), 8, "crop")
