"""What transformers makes of a model's small files, worked out once and kept in the cache.

Defaults that a file leaves out, the normaliser that a tokenizer's class adds to its file, the size that an
image processor's pictures come out in: only transformers knows them, and with it comes torch. The next start
reads what was found out: ``facts.json`` beside the tokenizer's files.
"""

import atexit
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossmodal.encoders.blueprint import fingerprint
from crossmodal.encoders.hf.kinds import dimensions, kind_of, text_positions
from crossmodal.encoders.hf.pixels import ProcessorPixels, describe_processor
from crossmodal.encoders.hf.quiet import quiet_transformers
from crossmodal.encoders.hf.repository import check_side_files, lasting, one_line, read_config, side_files
from crossmodal.encoders.hf.tokens import FolderTokenizer, TokenSettings
from crossmodal.encoders.runtime import cache
from crossmodal.errors import EncoderError, MissingPackageError
from crossmodal.machine import cache_root

_FACTS = "facts.json"
_FORMAT = 2
_LIBRARIES = ("tokenizers", "torchvision", "transformers")
_HERE = {"local_files_only": True, "trust_remote_code": False}
_UNLIMITED = 10**9
"""From here on a tokenizer's length only says that nobody set one."""

_PROBES = (
    "",
    " ",
    "a red apple",
    "A Cat's  naïve café, 12½ km;\n\tTEST!?",
    "🍎🍏👩‍👩‍👧",
    "تفاحة حمراء",
    "红苹果和猫",
    "<s></s><pad><|endoftext|>[SEP][MASK]",
    "long words " * 200,
)
"""Texts by which the tokenizer's file is held against the tokenizer itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The parts of a model that its small files decide. ``architecture`` is its full configuration."""

    architecture: dict[str, Any]
    dim: int
    preprocessing: ProcessorPixels
    tokenizer: FolderTokenizer


def prepare(name: str, folder: Path) -> Prepared:
    """Read a model's small files with the help of transformers, or what it said of them the last time.

    :param name: the spec of the model, for messages.
    :raises EncoderError: when something is missing or torn, or the model is none that can be run.
    :raises MissingPackageError: when its tokenizer takes a package that is not installed.
    """
    config = read_config(name, folder)
    kind_of(name, config.get("model_type"))
    check_side_files(name, folder)
    versions = {library: version(library) for library in _LIBRARIES}
    key = fingerprint(format=_FORMAT, config=lasting(config), files=side_files(folder), versions=versions)
    target = cache_root() / "hf" / key[:32]
    if not cache.is_whole(target):
        target = _write(target, name, folder)
    facts = json.loads((target / _FACTS).read_bytes())
    return Prepared(
        architecture=facts["architecture"],
        dim=facts["dim"],
        preprocessing=ProcessorPixels.from_dict(facts["preprocessing"]),
        tokenizer=FolderTokenizer(target, TokenSettings.from_dict(facts["tokenizer"])),
    )


def _write(target: Path, name: str, folder: Path) -> Path:
    """Work out the facts and keep them; where the cache takes nothing, for this process only."""
    with tempfile.TemporaryDirectory() as scratch:
        facts = _facts(name, folder, Path(scratch))

        def fill(place: Path) -> None:
            for file in Path(scratch).iterdir():
                (place / file.name).write_bytes(file.read_bytes())
            (place / _FACTS).write_text(json.dumps(facts))

        try:
            cache.write_whole(target, fill)
        except OSError:
            kept = tempfile.TemporaryDirectory()
            atexit.register(kept.cleanup)
            fill(Path(kept.name))
            return Path(kept.name)
    return target


def _facts(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Ask transformers all there is to know; the tokenizer's files go to ``scratch``."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **_HERE)
            processor = AutoImageProcessor.from_pretrained(folder, **_HERE)
            tokenizer = AutoTokenizer.from_pretrained(folder, **_HERE)
            tokenizer.save_pretrained(scratch)
    except ImportError as error:
        raise MissingPackageError(f"{name}: {_needed(error)}") from error
    except Exception as error:  # of whatever class transformers stumbles over torn or odd files
        raise EncoderError(f"{name} cannot be read by transformers: {one_line(error)}") from error
    architecture = lasting(json.loads(config.to_json_string(use_diff=False)))
    tokens = _token_settings(name, architecture, tokenizer, scratch)
    return {
        "architecture": architecture,
        "dim": dimensions(architecture),
        "preprocessing": describe_processor(name, processor).to_dict(),
        "tokenizer": tokens.to_dict(),
    }


def _needed(error: ImportError) -> str:
    if "sentencepiece" in str(error).lower():
        return "its tokenizer needs the package sentencepiece. Install it: pip install sentencepiece protobuf"
    return one_line(error)


def _token_settings(name: str, architecture: dict[str, Any], tokenizer: Any, folder: Path) -> TokenSettings:
    kind = kind_of(name, architecture["model_type"])
    limits = (kind.text_limit, text_positions(architecture), tokenizer.model_max_length)
    known = [limit for limit in limits if limit is not None and limit < _UNLIMITED]
    if not known:
        raise EncoderError(
            f"{name}: neither its model nor its tokenizer says how long a text may be; "
            "set model_max_length in its tokenizer_config.json"
        )
    limit, pad_id = min(known), tokenizer.pad_token_id or 0
    return TokenSettings(
        limit=limit,
        padded=kind.padded,
        masked=kind.padded and "attention_mask" in tokenizer.model_input_names,
        pad_id=pad_id,
        ends_with_pad=tokenizer("")["input_ids"][-1:] == [pad_id],
        pad_side=tokenizer.padding_side,
        fast=_file_suffices(tokenizer, folder, limit),
        files=tuple(sorted(path.name for path in folder.iterdir())),
    )


def _file_suffices(tokenizer: Any, folder: Path, limit: int) -> bool:
    """Tell whether ``tokenizer.json`` by itself gives what the tokenizer gives."""
    from crossmodal.encoders.tokenizer import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        return False
    with quiet_transformers():
        expected = tokenizer(list(_PROBES), truncation=True, max_length=limit)["input_ids"]
    return Tokenizer(lambda: file, limit)(_PROBES) == [list(ids) for ids in expected]
