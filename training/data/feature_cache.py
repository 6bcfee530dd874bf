"""What frozen towers made, on disk: rows by the digest of what they were made from, in whole shards.

A shard is written beside its place and renamed into it, and holds a checksum: one that a bad disk has torn is
seen, and made again. An interrupted run goes on where it stopped, and a data set that has grown needs only
what is new. The cache may be deleted at any time.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crossmodal.encoders.base import Embeddings

SHARD_ROWS = 512
"""Rows that an interruption may cost at most."""

KEY_BYTES = 16

_SUFFIX = ".safetensors"

_log = logging.getLogger(__name__)

Make = Callable[[Sequence[int]], tuple[Embeddings, NDArray[np.bool_]]]
"""Makes the rows of these places: float32 (R, *shape), and which of them could be made: (R,)."""

Count = Callable[[int, int], None]
"""Called with how many rows are there, and how many there will be."""


def key_of(*facts: object) -> bytes:
    """Give the key of a row that these facts decide."""
    return hashlib.blake2b(repr(facts).encode(), digest_size=KEY_BYTES).digest()


class FeatureCache:
    """The rows that one tower made, each of one shape, kept in one dtype.

    :param folder: the tower's own; other towers have others.
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._folder = folder
        self._shape = tuple(shape)
        self._dtype = dtype
        self._writes = True

    def rows(self, keys: Sequence[bytes], make: Make, told: Count | None = None) -> Tensor:
        """Give the rows of keys, (N, *shape); what is not on disk is made, and zeros where that fails.

        :param make: is given places in ``keys``, ``SHARD_ROWS`` of them at most, no two of one key.
        """
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        out = torch.zeros((len(keys), *self._shape), dtype=self._dtype)
        missing = self._read(dict(places), out)
        known = len(places) - len(missing)
        for start in range(0, len(missing), SHARD_ROWS):
            if told:
                told(known + start, len(places))
            some = missing[start : start + SHARD_ROWS]
            made, good = make([places[key][0] for key in some])
            features = torch.from_numpy(made).to(self._dtype)
            kept = np.flatnonzero(good)
            for row in kept.tolist():
                out[places[some[row]]] = features[row]
            if len(kept):
                self._write([some[row] for row in kept], features[torch.from_numpy(kept)])
        if told:
            told(len(places), len(places))
        return out

    def _read(self, wanted: dict[bytes, list[int]], out: Tensor) -> list[bytes]:
        """Put what is on disk in its places; give the keys that are not."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.is_dir() else ():
            shard = self._shard(path)
            if shard is None:
                continue
            keys, features = shard
            for row, key in enumerate(keys):
                for place in wanted.pop(key, ()):
                    out[place] = features[row]
        return list(wanted)

    def _shard(self, path: Path) -> tuple[list[bytes], Tensor] | None:
        """Read a shard; one that is torn or of another kind is removed."""
        try:
            with safe_open(path, "pt") as file:
                keys, features = file.get_tensor("keys"), file.get_tensor("features")
                checksum = (file.metadata() or {}).get("checksum")
            if checksum != _checksum(keys, features):
                raise ValueError("its checksum does not fit")
            if features.dtype != self._dtype or features.shape[1:] != self._shape:
                raise ValueError(f"it holds {features.dtype} {tuple(features.shape[1:])}")
        except (OSError, SafetensorError, ValueError) as error:
            _log.warning("%s is torn (%s) and is made again", path, error)
            path.unlink(missing_ok=True)
            return None
        return [row.tobytes() for row in keys.numpy()], features

    def _write(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Keep rows; where the disk refuses, say so once and go on without."""
        if not self._writes:
            return
        table = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, KEY_BYTES)
        checksum = _checksum(table, features)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as scratch:
                new = Path(scratch) / "shard"
                save_file({"keys": table, "features": features}, new, metadata={"checksum": checksum})
                with new.open("r+b") as file:
                    os.fsync(file.fileno())
                new.replace(self._folder / f"{checksum}{_SUFFIX}")
        except (OSError, SafetensorError) as error:
            self._writes = False
            _log.warning(
                "What the frozen tower makes cannot be kept in %s (%s), and is made again at each start; "
                "set CROSSMODAL_CACHE to a folder with room",
                *(self._folder, error),
            )


def _checksum(keys: Tensor, features: Tensor) -> str:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for tensor in (keys, features):
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
