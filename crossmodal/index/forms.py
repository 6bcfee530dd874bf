"""The forms in which vectors are kept: float32, float16, int8, and bits with int8 beside them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import IndexingError, unknown

Array: TypeAlias = NDArray[Any]
Vectors = NDArray[np.float32]

Storage: TypeAlias = Literal["float32", "float16", "int8", "binary"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

_LARGEST_CODE = 127

# A half's sign, exponent and mantissa, where a float32 has its own; the exponent is 112 too small there.
_HALF_IN_SINGLE = np.int32(-0x70002000)
_EXPONENT_MISSING = np.float32(2.0**112)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One array of a form, ``width`` numbers for each vector.

    What is ``read_by_row`` stays in its mapped file when rows are added: a search reads few rows of it.
    """

    name: str
    dtype: np.dtype[Any]
    width: int
    read_by_row: bool = False

    @property
    def bytes_per_vector(self) -> int:
        """The bytes of one vector."""
        return self.width * self.dtype.itemsize


class Form(ABC):
    """One way of keeping vectors, as arrays with a row for each.

    Encoding what was decoded gives the same arrays again, so vectors may be read, and written back.
    """

    storage: Storage

    @abstractmethod
    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the arrays that hold vectors of ``dim`` dimensions, in the order of ``encode``."""

    @abstractmethod
    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Give L2-normalised vectors, float32 (N, D), in this form."""

    @abstractmethod
    def decode(self, arrays: Sequence[Array], out: Vectors | None = None) -> Vectors:
        """Give float32 (N, D), written into ``out`` if that is given."""


class Float32(Form):
    """As they are."""

    storage = "float32"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the one array: vectors (N, D)."""
        return (Part(name="vectors", dtype=np.dtype(np.float32), width=dim),)

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Give the vectors themselves."""
        return (vectors,)

    def decode(self, arrays: Sequence[Array], out: Vectors | None = None) -> Vectors:
        """Give the vectors themselves."""
        if out is None:
            return arrays[0]
        out[:] = arrays[0]
        return out


class Float16(Form):
    """Each number rounded to half precision: 11 bits of it."""

    storage = "float16"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the one array: vectors (N, D)."""
        return (Part(name="vectors", dtype=np.dtype(np.float16), width=dim),)

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Round to half precision."""
        return (vectors.astype(np.float16),)

    def decode(self, arrays: Sequence[Array], out: Vectors | None = None) -> Vectors:
        """Give what the halves say, exactly; they are finite.

        By shifting bits into place, as NumPy's own conversion takes a number at a time: 100,000 rows of 384
        in 7 ms, not 50.
        """
        out = np.empty(arrays[0].shape, np.float32) if out is None else out
        bits = out.view(np.int32)
        np.copyto(bits, arrays[0].view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _HALF_IN_SINGLE, out=bits)
        np.multiply(out, _EXPONENT_MISSING, out=out)
        return out


class Int8(Form):
    """Whole numbers from -127 to 127 and one scale for each vector.

    The largest number of a vector becomes 127 or -127, and the scale makes its length 1 again, so that the
    inner product of two is the cosine of what was kept.
    """

    storage = "int8"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give scales (N, 1) and codes (N, D)."""
        return (
            Part(name="scales", dtype=np.dtype(np.float32), width=1),
            Part(name="codes", dtype=np.dtype(np.int8), width=dim),
        )

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Round to the nearest code."""
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        codes = np.rint(vectors * (_LARGEST_CODE / largest)).astype(np.int8)
        squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int64)
        return (1 / np.sqrt(squares)).astype(np.float32)[:, None], codes

    def decode(self, arrays: Sequence[Array], out: Vectors | None = None) -> Vectors:
        """Give scale times code."""
        scales, codes = arrays
        out = np.empty(codes.shape, np.float32) if out is None else out
        np.copyto(out, codes)
        np.multiply(out, scales, out=out)
        return out


class Binary(Form):
    """A bit for each number, set where it is above nought, to search; int8 beside it, to score again.

    As Hugging Face's "binary and scalar embedding quantization" has it (Shakir, Aarsen and Lee, 2024). The
    bits are those of the codes, so that a table of codes is enough to make them again.
    """

    storage = "binary"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give scales (N, 1) and codes (N, D), read by row, and bits (N, D / 8, rounded up)."""
        scales, codes = (
            Part(name=part.name, dtype=part.dtype, width=part.width, read_by_row=True)
            for part in Int8().parts(dim)
        )
        return scales, codes, Part(name="bits", dtype=np.dtype(np.uint8), width=-(-dim // 8))

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Round to the nearest code, and take the signs of the codes."""
        scales, codes = Int8().encode(vectors)
        return scales, codes, signs(codes)

    def decode(self, arrays: Sequence[Array], out: Vectors | None = None) -> Vectors:
        """Give scale times code."""
        return Int8().decode(arrays[:2], out)


_FORMS: dict[str, Form] = {form.storage: form for form in (Float32(), Float16(), Int8(), Binary())}


def form_of(storage: str) -> Form:
    """Give a form by its name.

    :raises IndexingError: when there is none of that name.
    """
    if storage not in _FORMS:
        raise IndexingError(unknown("storage", storage, STORAGES))
    return _FORMS[storage]


def signs(vectors: Array) -> NDArray[np.uint8]:
    """Give a bit for each number, set where it is above nought: uint8 (N, D / 8, rounded up)."""
    return np.packbits(vectors > 0, axis=1)


class Stored:
    """Vectors in the form in which they are kept: a sequence of rows that reads as float32.

    ``arrays`` are those of ``form.parts``; the first ``count`` rows of them are there.
    """

    def __init__(self, form: Form, arrays: Sequence[Any], count: int, dim: int) -> None:
        self.form = form
        self.arrays = arrays
        self.shape = (count, dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | NDArray[np.int64]) -> Vectors:
        """Give some rows as float32 (n, D)."""
        return self.read(at)

    def read(self, at: slice | NDArray[np.int64], buffer: Vectors | None = None) -> Vectors:
        """Give some rows as float32 (n, D), at the start of ``buffer`` if that is given."""
        at = slice(*at.indices(len(self))) if isinstance(at, slice) else at
        arrays = [array[at] for array in self.arrays]
        return self.form.decode(arrays, None if buffer is None else buffer[: len(arrays[0])])

    @property
    def bits(self) -> NDArray[np.uint8]:
        """What a binary form is searched by: (N, D / 8, rounded up)."""
        assert self.form.storage == "binary"
        bits: NDArray[np.uint8] = self.arrays[-1][: len(self)]
        return bits
