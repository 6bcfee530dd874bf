"""Picture files as bytes, each with a look of its own."""

import io
from collections.abc import Callable

import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Give the bytes of a small picture file; another number is another picture: ``picture(3, "jpeg")``."""

    def make(number: int = 0, kind: str = "png") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 6), (number * 53 % 256, number * 19 % 256, number % 256)).save(buffer, kind)
        return buffer.getvalue()

    return make
