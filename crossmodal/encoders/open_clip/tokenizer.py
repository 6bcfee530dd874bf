"""Texts become token ids by open_clip's own tokenizers; what the text tower would not look at is cut off."""

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossmodal.encoders.tokenizer import encodable
from crossmodal.encoders.weights import file_digest
from crossmodal.errors import EncoderError

TOKENIZER_FILES = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""What a Hugging Face tokenizer may consist of; ``config.json`` can name its class."""
SUBFOLDER = "tokenizer"
DEFAULT_LIMIT = 77


@dataclass(frozen=True, slots=True)
class Reading:
    """How far into its row of ids a text tower looks.

    ``all``: at every place, padding too. ``greatest``: up to the first of the greatest ids, where it pools,
    behind a causal mask. ``mark``: likewise up to the first ``id``. ``masked``: everywhere but at ``id``.
    """

    how: Literal["all", "greatest", "mark", "masked"]
    id: int = 0

    def cut(self, row: list[int]) -> list[int]:
        """Leave out the end that the tower does not look at; at least one token stays."""
        if self.how == "greatest":
            return row[: row.index(max(row)) + 1]
        if self.how == "mark":
            return row[: row.index(self.id) + 1 if self.id in row else 1]
        end = len(row)
        while self.how == "masked" and end > 1 and row[end - 1] == self.id:
            end -= 1
        return row[:end]


def reading_of(model_cfg: Mapping[str, Any], hf_text_config: Mapping[str, Any] | None) -> Reading:
    """Tell how far a text tower looks, from what it is built from."""
    text_cfg = model_cfg["text_cfg"]
    if hf_text_config is not None:
        from transformers import AutoConfig

        pad = AutoConfig.for_model(**hf_text_config).pad_token_id
        return Reading("all") if pad is None else Reading("masked", pad)
    if text_cfg.get("no_causal_mask") or text_cfg.get("embed_cls"):
        return Reading("all")
    pool = text_cfg.get("pool_type", "argmax")
    if pool == "argmax":
        return Reading("greatest")
    return Reading("mark", text_cfg.get("eos_id", 2)) if pool == "eos" else Reading("all")


class OpenClipTokenizer:
    """open_clip's ``SimpleTokenizer``, or its ``HFTokenizer`` over a folder's files, made at the first text.

    ``settings`` are plain values: ``kind`` (``simple`` or ``hf``), ``limit``, ``mode`` and ``options``.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path | None, reading: Reading) -> None:
        self.limit: int = settings["limit"]
        self.padded = reading.how == "all"
        self._settings = dict(settings)
        self._folder = folder
        self._reading = reading
        self._owner: Any = None
        self._using = threading.Lock()  # a call of HFTokenizer sets truncation and padding for all

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Give each text's token ids, end marks included.

        :raises EncoderError: when something among them is no text, or the tokenizer's files cannot be read.
        """
        mended = encodable(texts)
        if not mended:
            return []
        with self._using:
            rows: list[list[int]] = self._made()(mended).tolist()
        return [self._reading.cut(row) for row in rows]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Give how many tokens each text would take if nothing were cut, end marks included."""
        mended = encodable(texts)
        with self._using:
            owner = self._made()
            if self._settings["kind"] == "simple":
                return [len(owner.encode(text)) + 2 for text in mended]
            clips = owner.tokenizer_mode == "clips"  # which sets three marks of its own
            rows = [
                owner.tokenizer(owner.clean_fn(text), add_special_tokens=not clips, verbose=False).input_ids
                for text in mended
            ]
        return [len(row) + (3 if clips else 0) for row in rows]

    def save(self, folder: Path) -> dict[str, Any]:
        """Copy the tokenizer's files into a subfolder, and give what else it takes to restore it."""
        if self._folder is not None:
            self.copy_files(folder / SUBFOLDER)
        return dict(self._settings)

    def copy_files(self, folder: Path) -> None:
        """Copy the files it was read from, where there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in self._files():
            shutil.copyfile(file, folder / file.name)

    def facts(self) -> dict[str, Any]:
        """Give all that decides the ids, as plain values for JSON."""
        files = {file.name: file_digest(file) for file in self._files()}
        return {**self._settings, "files": files}

    def _files(self) -> list[Path]:
        if self._folder is None:
            return []
        return [self._folder / name for name in TOKENIZER_FILES if (self._folder / name).is_file()]

    def _made(self) -> Any:
        if self._owner is None:
            from open_clip.tokenizer import (
                HFTokenizer,
                SimpleTokenizer,
            )

            options, mode = self._settings["options"], self._settings["mode"]
            try:
                if self._settings["kind"] == "simple":
                    self._owner = SimpleTokenizer(context_length=self.limit, **options)
                else:  # whatever a configuration asks for, a tokenizer brings no code of its own
                    options = {**options, "trust_remote_code": False}
                    self._owner = HFTokenizer(
                        str(self._folder), context_length=self.limit, tokenizer_mode=mode, **options
                    )
            except Exception as error:  # of any class, by what is wrong with which file
                reason = " ".join(str(error).split()) or type(error).__name__
                place = self._folder or "open_clip"
                raise EncoderError(f"The tokenizer in {place} cannot be read: {reason:.200}") from error
        return self._owner


def tokenizer_settings(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of the tokenizer that open_clip makes for an architecture."""
    text_cfg = model_cfg["text_cfg"]
    return {
        "kind": "hf" if text_cfg.get("hf_tokenizer_name") else "simple",
        "limit": text_cfg.get("context_length", DEFAULT_LIMIT),
        "mode": text_cfg.get("tokenizer_mode"),
        "options": text_cfg.get("tokenizer_kwargs") or {},
    }
