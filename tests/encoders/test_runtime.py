"""The runtimes, with small towers made on the spot."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from crossmodal.encoders.runtime import InputSpec, Tower, Way, cache, choice, choose_backend, run_tower
from crossmodal.errors import EncoderError
from crossmodal.machine import usable_processors

DIM, SIZE, WORDS = 12, 32, 50


class ImageTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = nn.Conv2d(3, 16, 5, stride=3)
        self.norm = nn.BatchNorm2d(16)
        self.project = nn.Linear(16, DIM)

    def forward(self, pixels):
        x = (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        return functional.normalize(self.project(self.norm(self.convolve(x)).relu().mean((2, 3))), dim=-1)


class TextTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.project = nn.Linear(32, DIM)

    def forward(self, ids, mask):
        x = self.embed(ids)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        weight = mask.unsqueeze(-1).float()
        return functional.normalize(self.project((x * weight).sum(1) / weight.sum(1)), dim=-1)


def seeded(build):
    def make():
        torch.manual_seed(7)
        return build().eval()

    return make


def image_tower(build=ImageTower, fingerprint="a" * 64):
    inputs = (InputSpec("uint8", (None, SIZE, SIZE, 3)),)
    return Tower(
        encoder="tiny", modality="image", fingerprint=fingerprint, dim=DIM, inputs=inputs, build=seeded(build)
    )


def text_tower():
    tokens = InputSpec("int64", (None, None))
    return Tower(
        encoder="tiny",
        modality="text",
        fingerprint="a" * 64,
        dim=DIM,
        inputs=(tokens, tokens),
        build=seeded(TextTower),
    )


def prepared_folder():
    from crossmodal.encoders.runtime.openvino import version

    return cache.tower_folder(image_tower(), f"openvino-{version()}-float32")


def broken():
    raise AssertionError("the tower must not be built again")


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (21, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def texts():
    """Batches of 1 to 40 texts, each batch of one length."""
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, WORDS, (rows, length)) for rows, length in [(1, 3), (40, 7), (17, 20), (2, 64)]]
    return [(i, np.ones_like(i)) for i in ids]


def reference(tower, inputs):
    with torch.no_grad():
        return tower.build()(*map(torch.from_numpy, inputs)).numpy()


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_gives_what_the_plain_module_gives(backend, pictures, texts):
    for tower, batches in [(image_tower(), [(pictures,), (pictures[:1],)]), (text_tower(), texts)]:
        results = run_tower(tower, Way(backend=backend))(batches)
        for inputs, embeddings in zip(batches, results, strict=True):
            assert embeddings.dtype == np.float32
            np.testing.assert_allclose(embeddings, reference(tower, inputs), atol=2e-6)


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_no_batches_and_empty_batches_give_empty_results(backend, pictures):
    run = run_tower(image_tower(), Way(backend=backend))
    assert run([]) == []
    assert run([(pictures[:0],)])[0].shape == (0, DIM)


def test_openvino_gives_the_same_bits_in_any_batch_and_order(pictures, texts):
    images, words = (
        run_tower(image_tower(), Way(backend="openvino")),
        run_tower(text_tower(), Way(backend="openvino")),
    )
    together = images([(pictures,)])[0]
    alone = np.concatenate([images([(pictures[i : i + 1],)])[0] for i in range(len(pictures))])
    assert np.array_equal(together, alone)
    assert np.array_equal(images([(pictures[::-1],)])[0], together[::-1])
    for (ids, mask), whole in zip(texts, words(texts), strict=True):
        for rows in [slice(0, 1), slice(None, None, -1), slice(0, 5), slice(1, None)]:
            if len(ids[rows]):
                assert np.array_equal(words([(ids[rows], mask[rows])])[0], whole[rows])


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_many_threads_at_once_get_their_own_results(backend, pictures):
    run = run_tower(image_tower(), Way(backend=backend))
    expected = run([(pictures,)])[0]
    fresh = run_tower(image_tower(), Way(backend=backend))
    with ThreadPoolExecutor(8) as pool:
        starts = [i % (len(pictures) - 3) for i in range(64)]
        results = list(pool.map(lambda start: fresh([(pictures[start : start + 3],)])[0], starts))
    for start, embeddings in zip(starts, results, strict=True):
        np.testing.assert_allclose(embeddings, expected[start : start + 3], atol=1e-6)


def test_a_signal_ends_nothing_after_another_thread_let_a_tower_go():
    code = (
        "import importlib.util, signal, sys, threading, numpy as np\n"
        "spec = importlib.util.spec_from_file_location('towers', sys.argv[1])\n"
        "towers = importlib.util.module_from_spec(spec); spec.loader.exec_module(towers)\n"
        "run = [towers.run_tower(towers.image_tower(), towers.Way(backend='openvino'))]\n"
        "run[0]([(np.zeros((2, towers.SIZE, towers.SIZE, 3), np.uint8),)])\n"
        "thread = threading.Thread(target=run.clear); thread.start(); thread.join()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('heard'))\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "heard\n")


def test_openvino_computes_in_float32_where_the_processor_would_offer_less(pictures):
    run = run_tower(image_tower(), Way(backend="openvino"))
    run([(pictures,)])
    compiled = run._requests.compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == usable_processors()


def test_a_tower_is_prepared_once_and_that_is_announced(pictures, caplog):
    caplog.set_level(logging.INFO, "crossmodal")
    first = run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0]
    assert [r.getMessage() for r in caplog.records] == [
        "Preparing the image tower of tiny for this machine, once"
    ]
    caplog.clear()
    second = run_tower(image_tower(broken), Way(backend="openvino"))([(pictures,)])[0]
    assert np.array_equal(first, second)
    assert not caplog.records


def test_towers_of_different_fingerprints_never_share_a_cache(pictures):
    class Other(ImageTower):
        def forward(self, pixels):
            return -super().forward(pixels)

    first = run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0]
    other = run_tower(image_tower(Other, fingerprint="b" * 64), Way(backend="openvino"))([(pictures,)])[0]
    np.testing.assert_allclose(other, -first, atol=1e-6)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut_in_half, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["tower.xml", "tower.bin", cache.MANIFEST])
def test_a_torn_cache_is_prepared_anew(harm, name, pictures, caplog):
    first = run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0]
    folder = prepared_folder()
    harm(folder / name)
    caplog.set_level(logging.INFO, "crossmodal")
    assert np.array_equal(run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0], first)
    assert "Preparing" in caplog.text
    assert cache.is_whole(folder)


@pytest.mark.parametrize("harm", [cut_in_half, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_torn_memory_of_compiling_changes_nothing(harm, pictures):
    first = run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0]
    compiled = list((prepared_folder() / "compiled").iterdir())
    assert compiled
    for path in compiled:
        path.chmod(0o600)
        harm(path)
    assert np.array_equal(run_tower(image_tower(broken), Way(backend="openvino"))([(pictures,)])[0], first)


def test_without_a_cache_folder_it_works_and_says_so_once(tmp_path, monkeypatch, pictures, caplog):
    expected = run_tower(image_tower(), Way(backend="openvino"))([(pictures,)])[0]
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "a file" / "cache"))
    run = run_tower(image_tower(), Way(backend="openvino"))
    for _ in range(2):
        np.testing.assert_allclose(run([(pictures,)])[0], expected, atol=1e-6)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "CROSSMODAL_CACHE" in warnings[0]
    assert "\n" not in warnings[0]


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path):
    def write(folder):
        (folder / "tower.bin").write_bytes(b"part")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cache.write_whole(tmp_path / "towers" / "image", write)
    assert list((tmp_path / "towers").iterdir()) == []


def test_what_killed_processes_left_goes_at_the_next_preparation_and_young_folders_stay(tmp_path):
    towers = tmp_path / "towers"
    for name in (".new-old", ".new-young"):
        (towers / name / "new").mkdir(parents=True)
        (towers / name / "new" / "tower.bin").write_bytes(b"part")
    os.utime(towers / ".new-old", (0, 0))
    cache.write_whole(towers / "image", lambda folder: (folder / "tower.bin").write_bytes(b"x") and None)
    assert sorted(path.name for path in towers.iterdir()) == [".new-young", "image"]


def test_who_comes_second_keeps_what_the_first_prepared(tmp_path):
    folder = tmp_path / "towers" / "image"

    def write_second(target):
        cache.write_whole(folder, lambda first: (first / "tower.bin").write_bytes(b"first") and None)
        (target / "tower.bin").write_bytes(b"second")

    cache.write_whole(folder, write_second)
    assert (folder / "tower.bin").read_bytes() == b"first"
    assert cache.is_whole(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_two_processes_prepare_the_same_tower_at_once(tmp_path, cache_root):
    code = (
        "import importlib.util, sys, numpy as np\n"
        "spec = importlib.util.spec_from_file_location('towers', sys.argv[1])\n"
        "towers = importlib.util.module_from_spec(spec); spec.loader.exec_module(towers)\n"
        "pictures = np.zeros((2, towers.SIZE, towers.SIZE, 3), np.uint8)\n"
        "run = towers.run_tower(towers.image_tower(), towers.Way(backend='openvino'))\n"
        "np.save(sys.argv[2], run([(pictures,)])[0])\n"
    )
    outputs = [tmp_path / "0.npy", tmp_path / "1.npy"]
    workers = [subprocess.Popen([sys.executable, "-c", code, __file__, str(out)]) for out in outputs]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert np.array_equal(*map(np.load, outputs))
    folder = prepared_folder()
    assert cache.is_whole(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_auto_takes_openvino_without_an_accelerator_and_torch_with_one(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "crossmodal")
    monkeypatch.setattr(choice, "accelerator", lambda: "")
    assert choose_backend("auto") == "openvino"
    monkeypatch.setattr(choice, "accelerator", lambda: "cuda")
    assert choose_backend("auto") == "torch"
    assert [r.getMessage().split(",")[0] for r in caplog.records] == ["Backend openvino", "Backend torch"]
    assert choose_backend("openvino") == "openvino"


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(
        EncoderError, match=r"Unknown backend 'opencv'. Did you mean 'openvino'\? Known: auto, "
    ):
        choose_backend("opencv")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the device files of Linux")
def test_hidden_gpus_are_no_accelerator_and_torch_stays_out():
    code = (
        "import sys; from crossmodal.encoders.runtime import choose_backend\n"
        "assert choose_backend('auto') == 'openvino'; assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no NVIDIA GPU here")
def test_torch_on_a_gpu_agrees_with_the_processor(pictures, texts):
    for tower, batches in [(image_tower(), [(pictures,)]), (text_tower(), texts)]:
        run = run_tower(tower, Way(backend="torch"))
        assert run.device == "cuda"
        for inputs, embeddings in zip(batches, run(batches), strict=True):
            np.testing.assert_allclose(embeddings, reference(tower, inputs), atol=2e-6)
