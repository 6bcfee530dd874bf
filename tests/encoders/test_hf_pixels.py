"""Pictures on their way through image processors of transformers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import transformers as hf
from PIL import Image

from crossmodal.encoders.hf.pixels import ProcessorPixels, build_processor, describe_processor
from crossmodal.encoders.preprocessing import MARGIN
from crossmodal.errors import EncoderError
from crossmodal.images import load_image

SIZE = 32


def cropping():
    return hf.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def squashing():
    return hf.SiglipImageProcessor(size={"height": SIZE, "width": 24})


def blurred(width, height, seed=0):
    grain = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)


def untouched(processor, picture):
    out = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    return out[0].transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize("make", [cropping, squashing])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (31, 33), (64, 64), (250, 32), (400, 300)])
def test_pixels_are_what_the_processor_makes_before_it_rescales(make, size):
    pixels, picture = describe_processor("x", make()), blurred(*size)
    assert pixels(picture).shape == (*pixels.shape, 3)
    assert pixels(picture).dtype == np.uint8
    np.testing.assert_array_equal(pixels(picture), untouched(make(), picture))


@pytest.mark.parametrize("make", [cropping, squashing])
def test_settings_restore_the_same_processor(make):
    pixels = describe_processor("x", make())
    again = ProcessorPixels.from_dict(pixels.to_dict())
    np.testing.assert_array_equal(again(blurred(90, 50)), pixels(blurred(90, 50)))
    assert again.to_dict() == pixels.to_dict()
    np.testing.assert_allclose(pixels.mean, make().image_mean, atol=1e-6)
    np.testing.assert_allclose(pixels.std, make().image_std, atol=1e-6)


@pytest.mark.parametrize("make", [cropping, squashing])
def test_a_large_jpeg_decoded_at_a_smaller_scale_has_all_but_the_same_pixels(make, tmp_path):
    path = tmp_path / "large.jpg"
    blurred(640, 480).save(path, quality=90)
    pixels = describe_processor("x", make())
    assert load_image(path, at_least=MARGIN * SIZE).size == (320, 240)
    difference = np.abs(pixels(path).astype(int) - untouched(make(), Image.open(path)))
    assert 0 < difference.max() <= 2


def test_of_a_long_strip_only_the_middle_is_resized():
    strip = Image.new("RGB", (60_000, 2), "red")
    strip.paste("blue", (29_998, 0, 30_002, 2))
    pixels = describe_processor("x", cropping())(strip)
    np.testing.assert_allclose(
        pixels[:, 4:-4, 2], untouched(cropping(), strip.crop((29_900, 0, 30_100, 2)))[:, 4:-4, 2], atol=2
    )


def test_any_thread_may_call():
    pixels, pictures = describe_processor("x", cropping()), [blurred(40 + n, 90 - n, n) for n in range(40)]
    pixels = ProcessorPixels.from_dict(pixels.to_dict())
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(pixels, pictures))
    for picture, one in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(one, untouched(cropping(), picture))


class Squaring:
    """An image processor that does to values what no mean and deviation can."""

    def __call__(self, images, return_tensors):
        return {"pixel_values": [np.full((3, 8, 8), np.asarray(images)[0, 0, 0] ** 2.0)]}


def test_a_processor_that_bends_values_is_refused():
    with pytest.raises(EncoderError, match="does more to the values of pixels than scale and shift"):
        describe_processor("x", Squaring())


def test_only_image_processors_are_built():
    for name in ("CLIPModel", "NoSuchImageProcessor", None):
        with pytest.raises(EncoderError, match=f"has no image processor {name!r}"):
            build_processor({"image_processor_type": name})
