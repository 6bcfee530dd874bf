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
    read = 1
    """So many of its arrays, the first ones, are what ``decode`` needs."""

    @abstractmethod
    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the arrays that hold vectors of ``dim`` dimensions, in the order of ``encode``."""

    @abstractmethod
    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Give L2-normalised vectors, float32 (N, D), in this form."""

    @abstractmethod
    def numbers(self, arrays: Sequence[Array], out: Vectors) -> None:
        """Write the vectors into ``out``, float32 (N, D), but for a factor of each that ``factors`` gives."""

    def factors(self, arrays: Sequence[Array]) -> Vectors | None:
        """Give what the numbers of each vector are multiplied by, float32 (N, 1); None where that is 1."""
        return None

    def decode(self, arrays: Sequence[Array], out: Vectors) -> Vectors:
        """Write the vectors into ``out``, float32 (N, D), and give it."""
        self.numbers(arrays, out)
        if (factors := self.factors(arrays)) is not None:
            np.multiply(out, factors, out=out)
        return out


class Float32(Form):
    """As they are."""

    storage = "float32"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the one array: vectors (N, D)."""
        return (Part(name="vectors", dtype=np.dtype(np.float32), width=dim),)

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Give the vectors themselves."""
        return (vectors,)

    def numbers(self, arrays: Sequence[Array], out: Vectors) -> None:
        """Copy the vectors."""
        out[:] = arrays[0]


class Float16(Form):
    """Each number rounded to half precision: 11 bits of it."""

    storage = "float16"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give the one array: vectors (N, D)."""
        return (Part(name="vectors", dtype=np.dtype(np.float16), width=dim),)

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Round to half precision."""
        return (vectors.astype(np.float16),)

    def numbers(self, arrays: Sequence[Array], out: Vectors) -> None:
        """Write what the halves say, exactly; they are finite.

        By shifting bits into place, as NumPy's own conversion takes a number at a time: 100,000 rows of 384
        in 7 ms, not 50.
        """
        bits = out.view(np.int32)
        np.copyto(bits, arrays[0].view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _HALF_IN_SINGLE, out=bits)
        np.multiply(out, _EXPONENT_MISSING, out=out)


class Int8(Form):
    """Whole numbers from -127 to 127 and one scale for each vector.

    The largest number of a vector becomes 127 or -127, and the scale makes its length 1 again, so that the
    inner product of two is the cosine of what was kept.
    """

    storage: Storage = "int8"
    read = 2

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

    def numbers(self, arrays: Sequence[Array], out: Vectors) -> None:
        """Write the codes."""
        np.copyto(out, arrays[1])

    def factors(self, arrays: Sequence[Array]) -> Vectors | None:
        """Give the scales."""
        return arrays[0]


class Binary(Int8):
    """A bit for each number, set where it is above nought, to search; int8 beside it, to score again.

    As Hugging Face's "binary and scalar embedding quantization" has it (Shakir, Aarsen and Lee, 2024). The
    bits are those of the codes, so that a table of codes is enough to make them again.
    """

    storage = "binary"

    def parts(self, dim: int) -> tuple[Part, ...]:
        """Give scales (N, 1) and codes (N, D), read by row, and bits (N, D / 8, rounded up)."""
        scales, codes = (
            Part(name=part.name, dtype=part.dtype, width=part.width, read_by_row=True)
            for part in super().parts(dim)
        )
        return scales, codes, Part(name="bits", dtype=np.dtype(np.uint8), width=-(-dim // 8))

    def encode(self, vectors: Vectors) -> tuple[Array, ...]:
        """Round to the nearest code, and take the signs of the codes."""
        scales, codes = super().encode(vectors)
        return scales, codes, signs(codes)


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
        arrays = self._take(at)
        return self.form.decode(arrays, np.empty((len(arrays[0]), self.shape[1]), np.float32))

    def read(self, at: slice | NDArray[np.int64], buffer: Vectors) -> Vectors:
        """Give some rows as float32 (n, D), at the start of ``buffer``."""
        arrays = self._take(at)
        return self.form.decode(arrays, buffer[: len(arrays[0])])

    def read_apart(self, at: slice | NDArray[np.int64], buffer: Vectors) -> tuple[Vectors, Vectors | None]:
        """Give the numbers of some rows, (n, D), at the start of ``buffer``, and their factors (n, 1)."""
        arrays = self._take(at)
        numbers = buffer[: len(arrays[0])]
        self.form.numbers(arrays, numbers)
        return numbers, self.form.factors(arrays)

    def _take(self, at: slice | NDArray[np.int64]) -> list[Array]:
        """Give some rows of the arrays that are read as numbers."""
        at = slice(*at.indices(len(self))) if isinstance(at, slice) else at
        return [array[at] for array in self.arrays[: self.form.read]]

    @property
    def bits(self) -> NDArray[np.uint8]:
        """What a binary form is searched by: (N, D / 8, rounded up)."""
        assert self.form.storage == "binary"
        bits: NDArray[np.uint8] = self.arrays[-1][: len(self)]
        return bits
