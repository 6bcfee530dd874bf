"""Augmentations are torchvision's, drawn from a generator of their own, and change what they say."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandAugment, RandomResizedCrop, TrivialAugmentWide

from crossmodal.encoders.preprocessing import Preprocessing
from training.data.augment import AugmentSettings, augment_image, augment_text, chance_of, crop_box
from training.data.operations import GREY, randaugment, trivialaugment

PLAIN = Preprocessing(size=32, fit="squash", resample="bilinear")


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_policies_equal_torchvisions_for_the_same_draws(picture, policy, monkeypatch):
    seen = set()
    for seed in range(150):
        if policy == "randaugment":
            ours = randaugment(picture, 2, 13, np.random.default_rng(seed))
            theirs = RandAugment(2, 13, fill=GREY)
        else:
            ours = trivialaugment(picture, np.random.default_rng(seed))
            theirs = TrivialAugmentWide(fill=GREY)
        chance = np.random.default_rng(seed)
        draw = lambda high, *_, chance=chance, **__: torch.tensor([chance.integers(high)])  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", draw)
            expected = theirs(picture)
        np.testing.assert_array_equal(np.array(ours), np.array(expected))
        seen.add(np.array(ours).tobytes())
    assert len(seen) > 60, "the draws differ from seed to seed"


def test_a_crop_lies_inside_keeps_its_share_of_the_area_and_its_proportions():
    chance = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        left, top, right, bottom = crop_box((200, 150), 0.3, chance)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        across, down = right - left, bottom - top
        shares.append(across * down / (200 * 150))
        assert 3 / 4 - 0.02 < across / down < 4 / 3 + 0.02
    assert min(shares) > 0.29
    assert max(shares) > 0.9
    torch.manual_seed(0)
    theirs = [
        RandomResizedCrop.get_params(Image.new("1", (200, 150)), [0.3, 1], [3 / 4, 4 / 3]) for _ in shares
    ]
    expected = np.mean([down * across for _, _, down, across in theirs]) / (200 * 150)
    assert np.mean(shares) == pytest.approx(expected, abs=0.03)


def test_of_a_long_strip_the_middle_is_taken():
    assert crop_box((1000, 30), 0.9, np.random.default_rng(0)) == (480, 0, 520, 30)
    assert crop_box((30, 1000), 0.9, np.random.default_rng(0)) == (0, 480, 30, 520)
    assert crop_box((1, 1), 0.5, np.random.default_rng(0)) == (0, 0, 1, 1)


def test_without_augmentation_pixels_are_the_encoders_own(picture):
    pixels = augment_image(picture, PLAIN, AugmentSettings(), np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, PLAIN(picture))


def test_flip_mirrors_about_half_of_the_pictures(picture):
    plain = PLAIN(picture)
    flipped = 0
    for example in range(200):
        pixels = augment_image(picture, PLAIN, AugmentSettings(flip=True), chance_of(0, 0, example, 0))
        flipped += np.array_equal(pixels, plain[:, ::-1])
        assert np.array_equal(pixels, plain) or np.array_equal(pixels, plain[:, ::-1])
    assert 70 < flipped < 130


def test_the_same_seed_epoch_and_example_give_the_same_picture_from_any_thread(picture):
    settings = AugmentSettings(crop=0.4, flip=True, policy="trivialaugment")

    def view(epoch, example):
        return augment_image(picture, PLAIN, settings, chance_of(3, epoch, example, 0)).tobytes()

    places = [(epoch, example) for epoch in range(3) for example in range(20)]
    alone = [view(*place) for place in places]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda place: view(*place), places)) == alone
    assert len(set(alone)) > 55


def test_words_are_dropped_at_the_rate_asked_for_and_one_stays():
    words = [f"w{i}" for i in range(40)]
    settings = AugmentSettings(word_dropout=0.25)
    kept = [augment_text(" ".join(words), settings, chance_of(0, e, 0, 1)).split() for e in range(300)]
    assert all(sorted(some, key=words.index) == some for some in kept), "their order stays"
    assert math.isclose(np.mean([len(some) for some in kept]) / 40, 0.75, abs_tol=0.02)
    harsh = AugmentSettings(word_dropout=0.99)
    assert {len(augment_text("a b c", harsh, chance_of(0, e, 0, 1)).split()) for e in range(50)} == {1}
    assert augment_text("", harsh, chance_of(0, 0, 0, 1)) == ""


def test_captions_go_into_templates_at_the_share_asked_for():
    settings = AugmentSettings(templates=("a photo of {}", "{}, drawn"), template_share=0.5)
    texts = [augment_text("{x} dog", settings, chance_of(0, e, 0, 1)) for e in range(400)]
    assert set(texts) == {"{x} dog", "a photo of {x} dog", "{x} dog, drawn"}
    assert 160 < texts.count("{x} dog") < 240


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"crop": 0.0}, "crop is a share"),
        ({"word_dropout": 1.0}, "word_dropout"),
        ({"magnitude": 31}, "0 to 30"),
        ({"templates": ("a photo",)}, "one {}"),
        ({"template_share": 2.0}, "template_share"),
    ],
)
def test_settings_out_of_range_say_what_is_expected(settings, says):
    with pytest.raises(ValueError, match=says):
        AugmentSettings(**settings)
