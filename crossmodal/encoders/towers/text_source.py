"""Where a text model comes from: a folder of transformers or sentence-transformers, the hub, `lite`."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossmodal.encoders.lite import weights as lite_weights
from crossmodal.encoders.towers.hub import LOCAL, fetch
from crossmodal.encoders.towers.sentences import SentenceSettings, read_sentence_settings
from crossmodal.encoders.towers.settings import TEXT_POOLS
from crossmodal.encoders.weights import check_safetensors, file_digest
from crossmodal.errors import EncoderError, first_few, unknown

if TYPE_CHECKING:
    from torch import nn

LITE = "minilm"
"""The text tower of `lite`, all-MiniLM-L6-v2."""

USUAL_LIMIT = 512

_log = logging.getLogger(__name__)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", re.ASCII)
_WANTED = ["*.json", "*.safetensors", "pytorch_model*.bin"]
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_ASIDE = ("_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version")
"""What a configuration says of its history, not of the model."""

_POSITIONS = ("max_position_embeddings", "n_positions", "max_positions")
_COUNTED_FROM_PADDING = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text", "xlm-roberta")
"""Parts of the names of models whose first position comes behind the number of the padding token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """A text model: its configuration in plain values, its folder, its limit in tokens, its own pooling."""

    config: dict[str, Any]
    folder: Path
    limit: int
    pool: str

    @property
    def tokenizer(self) -> Path:
        """The file of its tokenizer."""
        return self.folder / "tokenizer.json"

    def digest(self) -> dict[str, str]:
        """Give the sha256 of each file of weights."""
        return {path.name: file_digest(path) for path in _weight_files(self.folder)}

    def load(self) -> "nn.Module":
        """Read the model with its weights, in float32.

        :raises EncoderError: when they cannot be read, would run code, or are not those of this model.
        """
        import torch

        kind, arguments = _class_of(self.config)
        try:
            with _quiet():
                net, seen = kind.from_pretrained(
                    self.folder,
                    output_loading_info=True,
                    dtype=torch.float32,
                    local_files_only=True,
                    **arguments,
                )
        except Exception as error:  # transformers, torch and safetensors each raise their own
            reason = " ".join(str(error).split()) or type(error).__name__
            if "weights_only" in reason:
                reason = "its weights hold more than tensors and would run code; save them as safetensors"
            raise EncoderError(f"The text model in {self.folder} cannot be read: {reason:.200}") from error
        lacking = sorted(seen["missing_keys"])
        if lacking:
            raise EncoderError(
                f"The weights in {self.folder} do not fit its config.json: "
                f"{len(lacking)} tensors are missing ({first_few(lacking)}); fetch or save them again"
            )
        return _encoding_only(net)


def find_text(text: str, pool: str | None) -> TextSource:
    """Find a text model: ``minilm``, a folder, or a name on the hub.

    :param pool: how to pool, where not as its own files say.
    :raises EncoderError: when it is neither here nor to be had, is no text model, or lacks a file.
    """
    if text == LITE:
        folder = lite_weights.text_folder()
    elif (folder := Path(text).expanduser()).is_dir():
        folder = folder.absolute()
    elif _HUB_NAME.fullmatch(text):
        folder = fetch(text, _WANTED)
    else:
        raise EncoderError(f"No such folder of a text model: {text}; {LOCAL}")
    settings = read_sentence_settings(folder)
    home = settings.transformer or folder
    config = _read_config(home)
    _check_files(home, settings)
    return TextSource(
        config=config,
        folder=home,
        limit=_limit(home, config, settings),
        pool=pool or _own_pool(settings, home),
    )


def build_text_tower(config: Mapping[str, Any]) -> "nn.Module":
    """Build a text model from its configuration, its weights still random.

    :raises EncoderError: when transformers does not know such a model.
    """
    from transformers import AutoConfig

    kind, arguments = _class_of(config)
    return _encoding_only(kind(AutoConfig.for_model(**config), **arguments))


def _encoding_only(net: Any) -> "nn.Module":
    """Have a model that could also write give its states alone: what it would keep cannot be converted."""
    net.config.use_cache = False
    return cast("nn.Module", net.eval())


def _class_of(config: Mapping[str, Any]) -> tuple[Any, dict[str, bool]]:
    """Give the class that is the text encoder of such a model, without the pooler that it may add on top."""
    import inspect

    from transformers import CONFIG_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    name = config["model_type"]
    if name not in CONFIG_MAPPING:
        raise EncoderError(unknown("model_type", name, CONFIG_MAPPING).partition(" Known:")[0])
    for mapping in (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING):
        if CONFIG_MAPPING[name] in mapping:
            kind = mapping[CONFIG_MAPPING[name]]
            break
    else:
        raise EncoderError(f"transformers has no encoder for model_type {name!r}; name a text model")
    if mapping is MODEL_MAPPING and config.get("is_encoder_decoder"):
        raise EncoderError(f"model_type {name!r} is an encoder with a decoder; name a text encoder")
    pooler = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return kind, {"add_pooling_layer": False} if pooler else {}


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        kept = {name: value for name, value in config.items() if name not in _ASIDE}
    except (OSError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"{folder} is no folder of a text model: its config.json cannot be read ({error})"
        ) from error
    if not isinstance(kept.get("model_type"), str):
        raise EncoderError(f"{folder} is no folder of a text model: its config.json names no model_type")
    if "vision_config" in kept:
        raise EncoderError(
            f"{folder} holds a model of pictures and texts ({kept['model_type']}); "
            "use hf:FOLDER, or name a text model"
        )
    _class_of(kept)
    return kept


def _check_files(folder: Path, settings: SentenceSettings) -> None:
    """Check that weights and tokenizer are there, and that the tokenizer does what the model wants."""
    if not _weight_files(folder):
        raise EncoderError(f"{folder} holds no weights; expected model.safetensors or pytorch_model.bin")
    for path in _weight_files(folder):
        if path.suffix == ".safetensors":
            check_safetensors(path)
    if not (folder / "tokenizer.json").is_file():
        raise EncoderError(
            f"{folder} holds no tokenizer.json; write one with "
            f"transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    _check_tokenizer(folder / "tokenizer.json", settings)


def _check_tokenizer(path: Path, settings: SentenceSettings) -> None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise EncoderError(f"{path} is torn or no tokenizer ({error}); fetch it again") from error
    if not tokenizer.encode("").ids:
        raise EncoderError(
            f"{path} gives an empty text no token at all, not even an end mark; give it a post-processor"
        )
    normalizer = tokenizer.normalizer
    if settings.lower_case and (normalizer is None or normalizer.normalize_str("A") != "a"):
        raise EncoderError(
            f"{path} leaves texts as they are, but the model wants them in lower case (do_lower_case); "
            "add a Lowercase normalizer to it"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the progress bar and the report that transformers writes about what it read."""
    from transformers.utils import logging as reports

    level, shown = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if shown:
            reports.enable_progress_bar()


def _weight_files(folder: Path) -> list[Path]:
    """List the files of weights that transformers would read: safetensors before what torch wrote."""
    for pattern in _WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _limit(folder: Path, config: Mapping[str, Any], settings: SentenceSettings) -> int:
    """Give how many tokens of a text are kept: as the model's files say, and no more than it can take."""
    from transformers import AutoConfig

    settled = AutoConfig.for_model(**config)  # a file leaves out what is as usual for its kind
    found = (getattr(settled, name, None) for name in _POSITIONS)
    positions = next((number for number in found if isinstance(number, int)), USUAL_LIMIT)
    if any(part in config["model_type"] for part in _COUNTED_FROM_PADDING):
        positions -= 1 + int(settled.pad_token_id)
    told = settings.limit
    if told is None:
        try:
            told = json.loads((folder / "tokenizer_config.json").read_bytes()).get("model_max_length")
        except (OSError, ValueError, AttributeError):
            told = None
    return int(min(told, positions)) if isinstance(told, int | float) and told > 0 else int(positions)


def _own_pool(settings: SentenceSettings, folder: Path) -> str:
    """Give the pooling that the model was trained with; a mean over its tokens where it does not say."""
    for name in settings.left_out:
        _log.warning(
            "Of the text model in %s its module %s is left out; the projection head takes its place",
            *(folder, name),
        )
    if settings.pool in (None, *TEXT_POOLS):
        return settings.pool or "mean"
    raise EncoderError(
        f"The text model in {folder} pools by {settings.pool!r}, which towers do not have; "
        f"choose one of {', '.join(TEXT_POOLS)}: ?text_pool=mean"
    )
