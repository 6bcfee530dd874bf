"""int8 image towers: calibrated on given pictures, told apart by them, and kept beside a collection."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from crossmodal import Collection, Record
from crossmodal.collection.collection import load_encoder_of
from crossmodal.encoders import _CATALOGUE, Kept, calibration, load_encoder
from crossmodal.encoders.calibration import choose_pictures
from crossmodal.encoders.pixel_tower import PixelTower
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.runtime import InputSpec, Quantisation, Tower, Way, cache, int8, run_tower
from crossmodal.encoders.runtime.silent_openvino import core
from crossmodal.encoders.twin import TwinEncoder
from crossmodal.errors import CollectionError, EncoderError, MissingPackageError, StorageError
from ui.cli import main

DIM, SIZE = 16, 32


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 5, stride=3)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3)
        self.last = nn.Conv2d(32, 32, 1)
        self.project = nn.Linear(32, DIM)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.project(self.last(x).relu().mean((2, 3)))


class Attention(nn.Module):
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


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(256, DIM)

    def forward(self, ids):
        return nn.functional.normalize(self.embed(ids).mean(1), dim=-1)


class Bytes:
    """A tokenizer: the bytes of a text."""

    limit, padded = 16, False

    def __call__(self, texts):
        return [[1, *text.encode()][: self.limit] for text in texts]

    def lengths(self, texts):
        return [1 + len(text.encode()) for text in texts]


def build_image(seed=7):
    torch.manual_seed(seed)
    return PixelTower(Convolutions(), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)).eval()


def build_text():
    torch.manual_seed(8)
    return Words().eval()


def load_tiny(spec, way, fingerprint="q" * 64, build=build_image):
    shape, ids = InputSpec("uint8", (None, SIZE, SIZE, 3)), InputSpec("int64", (None, None))
    parts = {"encoder": "tiny", "fingerprint": fingerprint, "dim": DIM}
    return TwinEncoder(
        name="tiny",
        fingerprint=fingerprint,
        preprocessing=Preprocessing(size=SIZE, fit="squash", resample="bilinear"),
        tokenizer=Bytes(),
        image_tower=run_tower(Tower(modality="image", inputs=(shape,), build=build, **parts), way),
        text_tower=run_tower(Tower(modality="text", inputs=(ids,), build=build_text, **parts), way),
        batch_size=way.batch_size,
    )


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(_CATALOGUE, "tiny", load_tiny)


@pytest.fixture
def pictures():
    """Smooth pictures of many colours, as quantisation meets them."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 4, 4, 3), np.uint8)
    return list(small.repeat(8, 1).repeat(8, 2))


@pytest.fixture
def quantised(pictures):
    return load_encoder("tiny", dtype="int8", calibration=pictures)


def test_int8_agrees_with_the_plain_module_and_is_not_float32_in_disguise(quantised, pictures):
    with torch.no_grad():
        expected = build_image()(torch.from_numpy(np.stack(pictures))).numpy()
    given = quantised.encode_images(pictures)
    assert (given * expected).sum(1).min() > 0.99
    assert np.abs(given - expected).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-6)
    compiled = quantised._image_tower._requests.compiled.get_runtime_model()
    precisions = {op.get_rt_info()["runtimePrecision"].astype(str) for op in compiled.get_ops()}
    assert precisions & {"u8", "i8"}


def test_a_transformer_too_agrees_with_the_plain_module_in_any_batch(pictures):
    def build():
        torch.manual_seed(9)
        return PixelTower(Attention(), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)).eval()

    shape = InputSpec("uint8", (None, SIZE, SIZE, 3))
    tower = Tower(encoder="t", modality="image", fingerprint="t" * 64, dim=DIM, inputs=(shape,), build=build)
    run = run_tower(tower, Way(backend="openvino", dtype="int8"))
    pixels = np.stack(pictures)
    run.quantise(Quantisation(fingerprint="u" * 64, pixels=pixels))
    given = run([(pixels,)])[0]
    with torch.no_grad():
        expected = build()(torch.from_numpy(pixels)).numpy()
    assert (given * expected).sum(1).min() > 0.95
    assert np.abs(given - expected).max() > 1e-4
    for part in (slice(3, 5), slice(7, 8), slice(None, None, -1)):
        assert np.array_equal(run([(pixels[part],)])[0], given[part])


def test_the_weights_of_products_are_kept_in_int8_and_those_of_spared_convolutions_are_not(
    quantised, tmp_path
):
    quantised.encode_images([np.zeros((SIZE, SIZE, 3), np.uint8)])
    quantised.keep(tmp_path / "kept")
    model = core().read_model(tmp_path / "kept" / "tower.xml")
    kept = {
        tuple(op.output(0).shape): op.get_element_type().get_type_name()
        for op in model.get_ops()
        if op.get_type_name() == "Constant" and np.prod(op.output(0).shape) > 300
    }
    plain = build_image().encode
    assert kept[tuple(plain.project.weight.shape)] == "i8"
    assert kept[tuple(plain.second.weight.shape)] == "i8"
    assert {kept[tuple(part.weight.shape)] for part in (plain.first, plain.last)} == {"f32"}


def test_a_tower_of_convolutions_alone_has_no_products_to_keep_small(pictures):
    def build():
        torch.manual_seed(9)
        part = nn.Sequential(nn.Conv2d(3, 16, 5, stride=3), nn.ReLU(), nn.Conv2d(16, DIM, 10), nn.Flatten())
        return PixelTower(part, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)).eval()

    quantised = load_tiny("tiny", Way(backend="openvino", dtype="int8"), build=build)
    quantised.quantise(pictures)
    with torch.no_grad():
        expected = build()(torch.from_numpy(np.stack(pictures))).numpy()
    assert (quantised.encode_images(pictures) * expected).sum(1).min() > 0.99


def test_texts_stay_in_float32(quantised):
    assert np.array_equal(
        quantised.encode_texts(["a", "b c"]), load_encoder("tiny").encode_texts(["a", "b c"])
    )


def test_the_fingerprint_tells_calibrations_apart_and_the_same_one_is_the_same(quantised, pictures):
    again = load_encoder("tiny", dtype="int8", calibration=iter(pictures))
    other = load_encoder("tiny", dtype="int8", calibration=pictures[:-1])
    exact = load_encoder("tiny")
    assert again.card == quantised.card
    assert len({card.fingerprint for card in (quantised.card, other.card, exact.card)}) == 3
    assert (quantised.card.dtype, quantised.card.backend) == ("int8", "openvino")


def test_the_same_calibration_gives_the_same_bits_from_the_cache_and_made_anew(
    quantised, pictures, monkeypatch
):
    first = quantised.encode_images(pictures)
    with monkeypatch.context() as without:
        without.setattr(int8, "quantise", lambda *_, **__: pytest.fail("was quantised again"))
        cached = load_encoder("tiny", dtype="int8", calibration=pictures)
        assert np.array_equal(cached.encode_images(pictures), first)
    shutil.rmtree(cache.cache_root())
    anew = load_encoder("tiny", dtype="int8", calibration=pictures)
    assert np.array_equal(anew.encode_images(pictures), first)


def test_int8_without_pictures_says_where_they_come_from():
    with pytest.raises(EncoderError, match="crossmodal index SOURCE COLLECTION --dtype int8"):
        load_encoder("tiny", dtype="int8")


def test_pictures_that_cannot_be_read_are_left_out_and_few_are_told(pictures, tmp_path, caplog):
    torn = [b"torn", tmp_path / "nowhere.png"]
    with_torn = load_encoder("tiny", dtype="int8", calibration=[*torn, *pictures[:5]])
    assert with_torn.card == load_encoder("tiny", dtype="int8", calibration=pictures[:5]).card
    assert "calibrated on only 5 pictures" in caplog.records[0].getMessage()
    with pytest.raises(EncoderError, match="of 2 given none could be read"):
        load_encoder("tiny", dtype="int8", calibration=torn)


def test_without_nncf_the_command_that_installs_it_is_given(pictures, monkeypatch):
    def absent(name):
        raise int8.PackageNotFoundError(name)

    monkeypatch.setattr(int8, "version", absent)
    with pytest.raises(MissingPackageError, match=r"pip install 'crossmodal-retrieval\[int8\]'"):
        load_encoder("tiny", dtype="int8", calibration=pictures)


def test_nothing_is_printed_while_quantising(quantised, pictures, capfd):
    quantised.encode_images(pictures[:1])
    assert capfd.readouterr().out == ""


def test_pictures_are_chosen_from_all_of_them_the_same_each_time():
    records = [Record(key=str(i), image=f"{i}.png") for i in range(1000)]
    chosen = choose_pictures(records, 50)
    numbers = [int(name.removesuffix(".png")) for name in chosen]
    assert chosen == choose_pictures(iter(records), 50)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 50
    assert np.histogram(numbers, 4, (0, 1000))[0].min() >= 5
    assert choose_pictures(records, 50, seed=1) != chosen
    assert choose_pictures(records[:3], 50) == ["0.png", "1.png", "2.png"]


# ---- in a collection ------------------------------------------------------------------------------------


@pytest.fixture
def collection(quantised, pictures, tmp_path):
    made = Collection.create(tmp_path / "c", quantised)
    made.add([Record(key=str(i), image=picture, captions=(f"n {i}",)) for i, picture in enumerate(pictures)])
    return made


def found(collection, picture):
    return [(hit.key, hit.score) for hit in collection.search(image=picture, k=3)]


def test_a_collection_opens_in_its_own_dtype_also_when_cache_and_pictures_are_gone(
    collection, pictures, monkeypatch
):
    before = found(collection, pictures[3])
    shutil.rmtree(cache.cache_root())
    monkeypatch.setattr(int8, "nncf_version", lambda: pytest.fail("NNCF is not wanted to open"))
    opened = Collection.open(collection.path)
    assert opened.encoder.card == collection.encoder.card
    assert found(opened, pictures[3]) == before
    assert opened.info().encoder["dtype"] == "int8"


def test_what_is_kept_and_torn_is_replaced_by_the_cache_else_told(collection, pictures):
    before = found(collection, pictures[3])
    kept = collection.path / "encoder" / "tower.bin"
    kept.write_bytes(kept.read_bytes()[:-8])
    assert found(Collection.open(collection.path), pictures[3]) == before
    shutil.rmtree(cache.cache_root())
    with pytest.raises(EncoderError, match=r"int8 tower of tiny is missing from .*encoder, torn") as caught:
        found(Collection.open(collection.path), pictures[3])
    assert "\n" not in str(caught.value)


def test_a_kept_tower_of_other_weights_is_refused(collection, monkeypatch):
    monkeypatch.setitem(_CATALOGUE, "tiny", lambda spec, way: load_tiny(spec, way, fingerprint="r" * 64))
    with pytest.raises(EncoderError, match="of other weights"):
        _ = Collection.open(collection.path).encoder


def test_a_collection_refuses_another_dtype_and_names_both(collection, pictures):
    for other in (load_encoder("tiny"), load_encoder("tiny", dtype="int8", calibration=pictures[:8])):
        with pytest.raises(CollectionError, match="was made with encoder tiny in int8 on openvino"):
            Collection.open(collection.path, other)


def test_a_collection_whose_towers_cannot_be_kept_is_not_made(quantised, tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantised, "keep", full)
    with pytest.raises(StorageError, match="the disk is full"):
        Collection.create(tmp_path / "c", quantised)
    assert not (tmp_path / "c").exists()


def test_a_creation_that_was_killed_while_it_made_the_towers_is_begun_again(
    quantised, pictures, tmp_path, monkeypatch
):
    def killed(folder):
        (folder / "torn").mkdir(parents=True)
        (folder.parent / ".new-torn").mkdir()
        shutil.copytree(folder.parent, tmp_path / "left")  # what a kill at this moment leaves
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quantised, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            Collection.create(tmp_path / "c", quantised)
    made = Collection.create(tmp_path / "left", quantised)
    made.add(Record(key="a", image=pictures[0]))
    shutil.rmtree(cache.cache_root())
    assert [hit.key for hit in Collection.open(made.path).search(image=pictures[0])] == ["a"]
    assert not (made.path / ".new-torn").exists()


def test_a_folder_of_ones_own_that_is_called_encoder_is_left_alone(quantised, tmp_path):
    (tmp_path / "c" / "encoder").mkdir(parents=True)
    with pytest.raises(CollectionError, match="is no collection"):
        Collection.create(tmp_path / "c", quantised)
    assert (tmp_path / "c" / "encoder").exists()


def test_float32_keeps_no_towers(tmp_path):
    Collection.create(tmp_path / "c", load_encoder("tiny"))
    assert not (tmp_path / "c" / "encoder").exists()


def test_an_empty_collection_goes_with_its_towers(quantised, tmp_path):
    made = Collection.create(tmp_path / "c", quantised)
    assert (made.path / "encoder" / "tower.xml").exists()
    assert made.discard_if_empty()
    assert not made.path.exists()


def test_bfloat16_is_remembered_with_its_backend(tmp_path, pictures):
    encoder = load_encoder("tiny", backend="torch", dtype="bfloat16")
    made = Collection.create(tmp_path / "c", encoder)
    made.add(Record(key="a", image=pictures[0]))
    opened = Collection.open(tmp_path / "c")
    assert opened.encoder.card == encoder.card
    assert (opened.encoder.card.backend, opened.encoder.card.dtype) == ("torch", "bfloat16")
    with pytest.raises(CollectionError, match=r"tiny in bfloat16 on torch .* not with tiny \(fingerprint"):
        Collection.open(tmp_path / "c", load_encoder("tiny"))


def test_another_name_for_the_same_encoder_is_loaded_in_the_same_way(collection, monkeypatch):
    monkeypatch.setitem(_CATALOGUE, "alias", load_tiny)
    encoder = load_encoder_of(collection.card, collection.path, name="alias")
    assert encoder.card.fingerprint == collection.card.fingerprint


def test_a_prefix_of_an_int8_encoder_is_kept_and_opened_too(tmp_path, pictures):
    encoder = load_encoder("tiny", dtype="int8", calibration=pictures, dim=8)
    made = Collection.create(tmp_path / "c", encoder)
    made.add([Record(key=str(i), image=picture) for i, picture in enumerate(pictures)])
    before = found(made, pictures[3])
    shutil.rmtree(cache.cache_root())
    assert Collection.open(tmp_path / "c").encoder.card == encoder.card
    assert found(Collection.open(tmp_path / "c"), pictures[3]) == before


def test_captions_that_were_cut_are_counted(collection, pictures):
    captions = ("short", "x" * 15, "x" * 16, "né" * 5, "né" * 6, "n 3")
    report = collection.add(Record(key="long", image=pictures[3], captions=captions))
    assert report.cut == sum(len(caption.encode()) > 15 for caption in captions) == 2
    assert report.to_dict()["texts_cut"] == 2
    assert collection.add(Record(key="long", image=pictures[3], captions=captions)).cut == 0


def test_only_texts_that_could_be_too_long_are_measured(quantised, monkeypatch):
    measured = []
    monkeypatch.setattr(Bytes, "lengths", lambda _, texts: measured.extend(texts) or [20] * len(texts))
    assert quantised.texts_cut(["a" * 12, "a" * 13, "", "é"]) == 2
    assert measured == ["a" * 13, "é"]


def test_few_calibration_pictures_is_measured_by_what_was_decoded(pictures, caplog):
    caplog.set_level(logging.WARNING)
    calibration.decode(pictures, lambda picture: picture)
    assert not caplog.records
    calibration.decode([np.zeros((2, 2, 3), np.uint8)], lambda picture: picture)
    assert len(caplog.records) == 1


def test_kept_names_what_was_made_before(quantised, tmp_path):
    with pytest.raises(EncoderError, match="missing from"):
        load_encoder("tiny", dtype="int8", calibration=Kept(fingerprint="x", folder=tmp_path / "nowhere"))


def test_index_calibrates_on_the_source_once_and_remembers(tmp_path, pictures, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    arguments = ["index", str(folder), str(tmp_path / "c"), "--json"]
    made = CliRunner().invoke(main, [*arguments, "--encoder", "tiny", "--dtype", "int8"])
    assert (made.exit_code, json.loads(made.stdout)["added"]) == (0, len(pictures)), made.stderr
    card = Collection.open(tmp_path / "c").card
    assert card == load_encoder("tiny", dtype="int8", calibration=sorted(folder.iterdir(), key=str)).card
    monkeypatch.setattr(calibration, "choose_pictures", lambda _: pytest.fail("was calibrated again"))
    for again in (arguments, [*arguments, "--dtype", "int8", "--encoder", "tiny"]):
        told = CliRunner().invoke(main, again)
        assert json.loads(told.stdout)["unchanged"] == len(pictures), told.stderr
        assert "tiny runs on openvino, int8, cpu" in told.stderr
