"""Texts become token ids, by the tokenizer file that came with the text tower."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.errors import EncoderError

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """A ``tokenizer.json``, read at the first text. Of each text ``limit`` tokens are kept, end marks too.

    Whatever the file says about padding and truncation is set aside. ``locate`` gives the file.
    """

    padded = False

    def __init__(self, locate: Callable[[], Path], limit: int) -> None:
        self.limit = limit
        self._locate = locate
        self._tokenizer: tokenizers.Tokenizer | None = None
        self._loading = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Give each text's token ids, unpadded.

        :raises EncoderError: when something among them is no text.
        """
        encodings = self._loaded().encode_batch_fast(encodable(texts))
        return [encoding.ids for encoding in encodings]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Give how many tokens each text would take if nothing were cut, end marks included."""
        tokenizer = self._loaded()
        encodings = tokenizer.encode_batch(encodable(texts))
        marks = tokenizer.num_special_tokens_to_add(is_pair=False)
        beyond = [sum(len(rest.ids) - marks for rest in encoding.overflowing) for encoding in encodings]
        return [len(encoding.ids) + more for encoding, more in zip(encodings, beyond, strict=True)]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizer's file into a folder, and give what else it takes to restore it."""
        shutil.copyfile(self._locate(), folder / "tokenizer.json")
        return {"kind": "tokenizer.json", "limit": self.limit}

    def _loaded(self) -> "tokenizers.Tokenizer":
        with self._loading:
            if self._tokenizer is None:
                from tokenizers import Tokenizer as File

                tokenizer = File.from_file(os.fspath(self._locate()))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self.limit)
                self._tokenizer = tokenizer
            return self._tokenizer


def encodable(texts: Sequence[str]) -> list[str]:
    """Mend texts that UTF-8 cannot hold: surrogate pairs are joined, lone ones become U+FFFD.

    :raises EncoderError: when something among them is no text.
    """
    for text in texts:
        if not isinstance(text, str):
            raise EncoderError(f"A text must be a str, but {type(text).__name__} was given: {text!r:.80}")
    return [_mended(text) for text in texts]


def _mended(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
