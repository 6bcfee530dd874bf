"""Texts become token ids by the tokenizer that came with a model."""

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crossmodal.encoders.blueprint import Tokenize
from crossmodal.encoders.hf.quiet import quiet_transformers
from crossmodal.encoders.tokenizer import Tokenizer, encodable


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """What it takes to run a tokenizer that lies in a folder of files.

    ``fast`` says that its ``tokenizer.json`` alone gives the very ids; else transformers must run it.
    ``pad_id`` is what texts are filled up with: to the full ``limit`` where the model looks at its padding
    (``padded``), and an empty text to one token otherwise. With ``masked`` the model is told which tokens are
    padding; ``ends_with_pad`` says that the mark at the end of every text has the same id.
    """

    limit: int
    padded: bool
    masked: bool
    pad_id: int
    ends_with_pad: bool
    pad_side: Literal["left", "right"]
    fast: bool
    files: tuple[str, ...]

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TokenSettings":
        """Restore from what ``to_dict`` gave."""
        names = tuple(Path(name).name for name in settings["files"])
        fields = {key: value for key, value in settings.items() if key != "kind"}
        return cls(**{**fields, "files": names})

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain values for JSON."""
        return {"kind": "transformers", **asdict(self), "files": list(self.files)}


class FolderTokenizer:
    """A tokenizer whose files lie in a folder, as ``save_pretrained`` of transformers wrote them."""

    def __init__(self, folder: Path, settings: TokenSettings) -> None:
        self.limit = settings.limit
        self.padded = settings.padded
        self.settings = settings
        self.folder = folder
        self._inner: Tokenize | _Slow
        if settings.fast:
            self._inner = Tokenizer(lambda: folder / "tokenizer.json", settings.limit)
        else:
            self._inner = _Slow(folder, settings.limit)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Give each text's token ids, at full length where the model looks at its padding.

        :raises EncoderError: when something among them is no text.
        """
        length = self.limit if self.padded else 1
        rows = []
        for ids in self._inner(texts):
            filling = [self.settings.pad_id] * (length - len(ids))
            rows.append(ids + filling if self.settings.pad_side == "right" else filling + ids)
        return rows

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Give how many tokens each text would take if nothing were cut, end marks included."""
        return self._inner.lengths(texts)

    def save(self, folder: Path) -> dict[str, Any]:
        """Copy the tokenizer's files into a folder, and give what else it takes to restore it."""
        for name in self.settings.files:
            shutil.copyfile(self.folder / name, folder / name)
        return self.settings.to_dict()


class _Slow:
    """A tokenizer that only transformers can run, loaded at the first text; one thread at a time."""

    padded = False

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        self._folder = folder
        self._tokenizer: Any = None
        self._running = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return self._run(texts, truncation=True, max_length=self.limit)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._run(texts, truncation=False)]

    def _run(self, texts: Sequence[str], **how: Any) -> list[list[int]]:
        strings = encodable(texts)
        with self._running:
            if self._tokenizer is None:
                self._tokenizer = _load(self._folder)
            if not strings:
                return []
            encoded = self._tokenizer(strings, padding=False, verbose=False, **how)
            return [list(ids) for ids in encoded["input_ids"]]


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
