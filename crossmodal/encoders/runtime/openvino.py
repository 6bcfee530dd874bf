"""Towers run by OpenVINO on the CPU. Torch is needed only once, to convert a tower; the result is kept.

A converted tower lies in the cache as OpenVINO's own two files, ``tower.xml`` and ``tower.bin``, beside what
OpenVINO itself remembers of compiling it (``compiled/``), so that a later start takes tenths of a second.
"""

import contextlib
import json
import logging
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.calibration import FACTS, read_facts
from crossmodal.encoders.runtime import cache, int8
from crossmodal.encoders.runtime.base import Inputs, Quantisation, Runner, Tower
from crossmodal.encoders.runtime.memory import Rows
from crossmodal.encoders.runtime.requests import Requests
from crossmodal.encoders.runtime.silent_openvino import core, ov
from crossmodal.errors import EncoderError
from crossmodal.machine import usable_processors

MOST_ROWS = 16
"""Rows of one request to a transformer, which share the reading of its weights. Several requests run at once,
so a convolutional tower, whose weights are few, gains nothing from rows bundled: it takes them one by one. So
does any tower in int8, where OpenVINO's results were seen to change with the number of rows."""

_log = logging.getLogger(__name__)


class OpenVinoRunner(Runner):
    """Runs a tower through OpenVINO; in float32 even where the processor would offer bfloat16, unless asked.

    In float32 the embedding of a picture is, on the processors tried, bit for bit the same whatever else is
    in the batch, and so is that of a text among others of its length; the tests hold both.
    """

    backend = "openvino"

    def __init__(self, tower: Tower, dtype: str = "float32") -> None:
        super().__init__(tower)
        self.dtype = dtype
        self._rows = Rows(MOST_ROWS, f"the {tower.modality} tower of {tower.encoder}")
        self._requests: Requests | None = None
        self._quantisation: Quantisation | None = None
        self._running = threading.Lock()

    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Run all batches at once, cut into requests; callers from several threads take turns."""
        results = [np.empty((len(inputs[0]), self.tower.dim), np.float32) for inputs in batches]
        with self._running:
            requests = self._opened()
            while not self._run_all(requests, batches, results):
                pass  # with fewer rows in a request
        if self.dtype != "float32":
            for out in results:
                out /= np.linalg.norm(out, axis=1, keepdims=True)
        return results

    def quantise(self, quantisation: Quantisation) -> None:
        """Take what an int8 tower is made of; it is made at the first call, or read from the cache.

        :raises EncoderError: when a tower made before is neither whole where it was kept, nor in the cache.
        """
        self._quantisation = quantisation
        kept = quantisation.kept
        if kept is not None and not any(self._is_this(place) for place in (kept, self._folder())):
            raise EncoderError(
                f"The int8 tower of {self.tower.encoder} is missing from {kept}, torn, or of other weights, "
                "and this machine's cache has none; index again, with --dtype int8, into a new collection"
            )

    def keep(self, folder: Path) -> None:
        """Write an int8 tower into a folder, whole or not at all: its calibration cannot be made again.

        :raises OSError: when the disk refuses.
        """
        if self._quantisation is None:
            return
        with self._running:
            model = self._prepared()
        if isinstance(model, Path):
            cache.copy_whole(model.parent, folder)
        else:
            cache.write_whole(folder, lambda target: self._save(model, target))
        self._quantisation = replace(self._quantisation, pixels=None, kept=folder)

    def _run_all(self, requests: Requests, batches: Sequence[Inputs], results: Sequence[Embeddings]) -> bool:
        """Run batches in requests of as many rows as memory has room for, and say whether it had."""
        rows = self._rows.now
        try:
            requests.run(
                ([array[start : start + rows] for array in inputs], out[start : start + rows])
                for inputs, out in zip(batches, results, strict=True)
                for start in range(0, len(out), rows)
            )
        except (RuntimeError, MemoryError) as error:
            self._rows.fewer(min(rows, max(map(len, results))), error)
            return False
        return True

    def _opened(self) -> Requests:
        """Compile the tower at the first call."""
        if self._requests is None:
            try:
                compiled = _compile(self._prepared(), self.dtype)
            except (RuntimeError, MemoryError) as error:
                self._rows.fewer(1, error)
                raise
            shape = compiled.inputs[0].partial_shape
            self._rows.now = min(self._rows.now, shape[0].get_max_length())
            self._requests = Requests(compiled)
        return self._requests

    def _prepared(self) -> ov.Model | Path:
        """Give the tower's file in the cache, converting it first where that was not done before.

        Where the cache cannot be written, the model itself is given.
        """
        folder = self._folder()
        if cache.is_whole(folder):
            return folder / "tower.xml"
        model = self._made()
        try:
            cache.write_whole(folder, lambda target: self._save(model, target))
        except OSError as error:
            _log.warning(
                "The prepared %s tower cannot be kept in %s (%s) and will be made again at each start; "
                "set CROSSMODAL_CACHE to a folder with room",
                *(self.tower.modality, folder, error.strerror or error),
            )
            return model
        if self._quantisation is not None:  # the pixels are not wanted any more
            self._quantisation = replace(self._quantisation, pixels=None, kept=folder)
        return folder / "tower.xml"

    def _folder(self) -> Path:
        """Name the tower's folder in the cache; of an int8 tower each calibration has its own."""
        tower = self.tower
        if self._quantisation is not None:
            tower = replace(tower, fingerprint=self._quantisation.fingerprint)
        return cache.tower_folder(tower, f"openvino-{version()}-{self.dtype}")

    def _is_this(self, folder: Path) -> bool:
        """Tell whether a folder holds this very int8 tower, whole."""
        return read_facts(folder) == self._facts() and cache.is_whole(folder)

    def _facts(self) -> dict[str, str]:
        """Say what an int8 tower was made of."""
        assert self._quantisation is not None
        return {"base": self.tower.fingerprint, "fingerprint": self._quantisation.fingerprint}

    def _made(self) -> ov.Model:
        """Make the tower: from torch, and quantised where that is wanted; or read it where it is kept."""
        if self._quantisation is not None and self._quantisation.kept is not None:
            return core().read_model(self._quantisation.kept / "tower.xml")
        _log.info(
            "Preparing the %s tower of %s for this machine, once", self.tower.modality, self.tower.encoder
        )
        model = _convert(self.tower, one_by_one=self.dtype == "int8")
        if self.dtype != "int8":
            return model
        assert self._quantisation is not None, "an int8 tower is calibrated first"
        assert self._quantisation.pixels is not None
        return int8.quantise(model, self._quantisation.pixels, transformer=not _is_convolutional(model))

    def _save(self, model: ov.Model, folder: Path) -> None:
        """Write the tower's two files, and beside them what an int8 tower was made of.

        :raises OSError: where OpenVINO says RuntimeError, as it does for a full disk.
        """
        try:
            ov.save_model(model, folder / "tower.xml", compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError("OpenVINO could not write it; is the disk full?") from error
        if self._quantisation is not None:
            (folder / FACTS).write_text(json.dumps(self._facts()))


def version() -> str:
    """Give OpenVINO's version and build, as far as it may stand in a folder's name."""
    return "-".join(str(ov.get_version()).split("-")[:2])


def _convert(tower: Tower, *, one_by_one: bool = False) -> ov.Model:
    """Build a tower in torch and convert it, for so many rows in a request as suit it, or for one.

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
    rows = ov.Dimension(1) if one_by_one or _is_convolutional(model) else ov.Dimension(1, MOST_ROWS)
    shapes = [ov.PartialShape([rows, *(size or -1 for size in spec.shape[1:])]) for spec in tower.inputs]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return model


def _is_convolutional(model: ov.Model) -> bool:
    """Tell whether most of a tower's layers are convolutions: a transformer has one, or none."""
    kinds = Counter(op.get_type_name() for op in model.get_ops())
    return kinds["Convolution"] + kinds["GroupConvolution"] > kinds["MatMul"]


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


def _compile(model: ov.Model | Path, dtype: str) -> ov.CompiledModel:
    """Compile for as many requests at once as the processors carry.

    Threads stay free to move: bound to one processor each, they wait there behind the decoding threads.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": usable_processors(),
        "ENABLE_CPU_PINNING": False,
    }
    if isinstance(model, Path) and cache.is_writable(model.parent):
        # OPTIMIZE_SIZE leaves the weights in tower.bin, whose checksum is ours
        settings |= {"CACHE_DIR": str(model.parent / "compiled"), "CACHE_MODE": "OPTIMIZE_SIZE"}
    return core().compile_model(model, "CPU", settings)
