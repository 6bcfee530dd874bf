"""Towers run by OpenVINO on the CPU. Torch is needed only once, to convert a tower; the result is kept.

A converted tower lies in the cache as OpenVINO's own two files, ``tower.xml`` and ``tower.bin``, beside what
OpenVINO itself remembers of compiling it (``compiled/``), so that a later start takes tenths of a second.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime import cache
from crossmodal.encoders.runtime.base import Inputs, Runner, Tower
from crossmodal.encoders.runtime.silent_openvino import ov
from crossmodal.machine import usable_processors

MOST_ROWS = {"image": 1, "text": 16}
"""Rows of one request. Several requests run at once, so pictures gain nothing from being bundled, and one by
one they cannot influence each other; texts are short and share the reading of the weights."""

_log = logging.getLogger(__name__)


class OpenVinoRunner(Runner):
    """Runs a tower through OpenVINO, in float32 even where the processor would offer bfloat16.

    The embedding of a picture is bit for bit the same whatever else is in the batch, and so, on the
    processors tried, is that of a text among others of its length; the tests hold both.
    """

    backend = "openvino"

    def __init__(self, tower: Tower) -> None:
        super().__init__(tower)
        self._requests: ov.AsyncInferQueue | None = None
        self._running = threading.Lock()

    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Run all batches at once, cut into requests; callers from several threads take turns."""
        rows = MOST_ROWS[self.tower.modality]
        results = [np.empty((len(inputs[0]), self.tower.dim), np.float32) for inputs in batches]
        with self._running:
            if self._requests is None:
                self._requests = self._open()
            for inputs, out in zip(batches, results, strict=True):
                for start in range(0, len(out), rows):
                    piece = slice(start, start + rows)
                    self._requests.start_async([array[piece] for array in inputs], userdata=out[piece])
            self._requests.wait_all()
        return results

    def _open(self) -> ov.AsyncInferQueue:
        """Compile the tower, converting it first where that was not done before."""
        folder = cache.tower_folder(self.tower, f"openvino-{version()}")
        if cache.is_whole(folder):
            return _requests(_compile(folder / "tower.xml"))
        _log.info(
            "Preparing the %s tower of %s for this machine, once", self.tower.modality, self.tower.encoder
        )
        model = _convert(self.tower)
        try:
            cache.write_whole(folder, lambda target: _save(model, target / "tower.xml"))
        except OSError as error:
            _log.warning(
                "The prepared %s tower cannot be kept in %s (%s) and will be made again at each start; "
                "set CROSSMODAL_CACHE to a folder with room",
                *(self.tower.modality, folder, error.strerror or error),
            )
            return _requests(_compile(model))
        return _requests(_compile(folder / "tower.xml"))


def version() -> str:
    """Give OpenVINO's version and build, as far as it may stand in a folder's name."""
    return "-".join(str(ov.get_version()).split("-")[:2])


def _convert(tower: Tower) -> ov.Model:
    """Build a tower in torch and convert it.

    The frontend is called directly, for ``openvino.convert_model`` sends usage statistics over the network.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    module = tower.build().eval()
    examples = tuple(torch.from_numpy(spec.example()) for spec in tower.inputs)
    with torch.inference_mode(), _quiet():
        decoder = TorchScriptPythonDecoder(module, example_input=examples)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    rows = MOST_ROWS[tower.modality]
    shapes = [[rows if rows == 1 else -1, *(size or -1 for size in spec.shape[1:])] for spec in tower.inputs]
    model.reshape(dict(zip(model.inputs, map(ov.PartialShape, shapes), strict=True)))
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what tracing stirs up: a warning at every shape it reads, and at its own old age."""
    models = logging.getLogger("transformers")  # whose models warn when all their attributes are looked at
    level = models.level
    models.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        models.setLevel(level)


def _save(model: ov.Model, path: Path) -> None:
    """Write the converted tower's two files, its weights in float32.

    :raises OSError: where OpenVINO says RuntimeError, as it does for a full disk.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError("OpenVINO could not write it; is the disk full?") from error


def _compile(model: ov.Model | Path) -> ov.CompiledModel:
    """Compile for as many requests at once as the processors carry.

    Threads stay free to move: bound to one processor each, they wait there behind the decoding threads.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": usable_processors(),
        "ENABLE_CPU_PINNING": False,
    }
    if isinstance(model, Path) and cache.is_writable(model.parent):
        # OPTIMIZE_SIZE leaves the weights in tower.bin, whose checksum is ours
        settings |= {"CACHE_DIR": str(model.parent / "compiled"), "CACHE_MODE": "OPTIMIZE_SIZE"}
    return ov.Core().compile_model(model, "CPU", settings)


def _requests(compiled: ov.CompiledModel) -> ov.AsyncInferQueue:
    """Make the pool of requests, each of which writes its result into the rows it was started with."""
    requests = ov.AsyncInferQueue(compiled)
    requests.set_callback(lambda request, rows: np.copyto(rows, request.get_output_tensor(0).data))
    return requests
