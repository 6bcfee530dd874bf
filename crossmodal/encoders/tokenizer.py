"""Texts become token ids, by the tokenizer file that came with the text tower."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossmodal.errors import EncoderError

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """A ``tokenizer.json``, read at the first text. Of each text ``limit`` tokens are kept, end marks too.

    Whatever the file says about padding and truncation is set aside. ``locate`` gives the file.
    """

    def __init__(self, locate: Callable[[], Path], limit: int) -> None:
        self.limit = limit
        self._locate = locate
        self._tokenizer: tokenizers.Tokenizer | None = None
        self._loading = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Give each text's token ids, unpadded.

        :raises EncoderError: when something among them is no text.
        """
        for text in texts:
            if not isinstance(text, str):
                raise EncoderError(f"A text must be a str, but {type(text).__name__} was given: {text!r:.80}")
        encodings = self._loaded().encode_batch_fast([_encodable(text) for text in texts])
        return [encoding.ids for encoding in encodings]

    def _loaded(self) -> "tokenizers.Tokenizer":
        with self._loading:
            if self._tokenizer is None:
                from tokenizers import Tokenizer as File

                tokenizer = File.from_file(os.fspath(self._locate()))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self.limit)
                self._tokenizer = tokenizer
            return self._tokenizer


def _encodable(text: str) -> str:
    """Mend a text that UTF-8 cannot hold: surrogate pairs are joined, lone ones become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
