"""Small copies of pictures for the page: made in threads, kept while there is room, never written to disk."""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from crossmodal.errors import CrossmodalError
from crossmodal.images import load_image

SIDE = 320
KEPT = 2000
"""So many small copies are kept in memory, about 30 MB."""

ReadUri = Callable[[str], bytes]


class Thumbnails:
    """Gives pictures as ``data:`` addresses, so that the page needs no access to any file.

    Shape: ``side`` pixels on the longer side, or the picture's own size if it is smaller.
    """

    def __init__(self, read: ReadUri, *, side: int = SIDE, keep: int = KEPT) -> None:
        self._read = read
        self._side = side
        self._keep = keep
        self._made: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="thumbnail")

    def addresses(self, uris: Sequence[str]) -> list[str]:
        """Give a ``data:`` address for each picture, empty where it can no longer be read."""
        return list(self._pool.map(self._address, uris))

    def _address(self, uri: str) -> str:
        with self._lock:
            if uri in self._made:
                self._made.move_to_end(uri)
                return self._made[uri]
        made = self._make(uri)
        if made:
            with self._lock:
                self._made[uri] = made
                if len(self._made) > self._keep:
                    self._made.popitem(last=False)
        return made

    def _make(self, uri: str) -> str:
        try:
            return as_address(load_image(self._read(uri), at_least=self._side), self._side)
        except (CrossmodalError, OSError):
            return ""


def as_address(picture: Image.Image, side: int) -> str:
    """Give a picture of at most ``side`` pixels as a ``data:`` address of JPEG bytes."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=86)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
