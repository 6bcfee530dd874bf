"""What a spec of this family names: an architecture, and where on this disk its weights and tokenizer lie."""

import difflib
import json
import logging
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from crossmodal.encoders.open_clip.tokenizer import TOKENIZER_FILES
from crossmodal.errors import EncoderError, unknown

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CONFIG = "open_clip_config.json"
PREFERRED_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Which file of a folder holds the weights, in the order in which open_clip looks for it."""

_NEAREST = 3
_Got = TypeVar("_Got")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model on disk, and the spec that finds it again from any folder.

    ``model_cfg`` and ``preprocess_cfg`` are open_clip's own, the latter with every default filled in.
    ``tokenizer`` is the folder of a Hugging Face tokenizer, None where open_clip's own serves, and
    ``hf_text_config`` the configuration of a text tower that is a Hugging Face model.
    """

    spec: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: Path
    tokenizer: Path | None
    hf_text_config: dict[str, Any] | None


def read_spec(rest: str) -> Source:
    """Find what follows ``open_clip:``, fetching from the hub what the hub holds.

    :raises EncoderError: when it is unknown, not there, cannot be fetched, or not open_clip's.
    """
    scheme, colon, place = rest.partition(":")
    if colon and scheme in ("local-dir", "hf-hub"):
        if not place:
            raise EncoderError(f"open_clip:{rest} names nothing; expected open_clip:{scheme}:PLACE")
        return _read_folder(Path(place)) if scheme == "local-dir" else _read_repo(place)
    architecture, _, which = rest.partition("/")
    model_cfg = _built_in(architecture)
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not which:
        weights = f"{architecture}/TAG with one of its tags ({', '.join(tags)})" if tags else ""
        either = f"{weights} or " if weights else ""
        raise EncoderError(
            f"open_clip:{rest} names no weights; expected open_clip:{either}{architecture}/FILE.safetensors"
        )
    tag = open_clip.get_pretrained_cfg(architecture, which)
    if tag:
        return _read_tag(architecture, which, model_cfg, tag)
    path = Path(which).expanduser().absolute()
    if path.suffix not in WEIGHT_SUFFIXES and not path.exists():
        raise EncoderError(unknown(f"tag of {architecture}", which, tags) + "; nor is it a file")
    if not path.is_file():
        raise EncoderError(f"No file of weights at {path}; expected one with {_either(WEIGHT_SUFFIXES)}")
    return _source(f"{architecture}/{path}", model_cfg, {}, path, None)


def _built_in(architecture: str) -> dict[str, Any]:
    """Give the configuration of an architecture that open_clip knows by name."""
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        by_lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(architecture.lower(), by_lower, n=_NEAREST, cutoff=0.0)
        nearest = ", ".join(by_lower[name] for name in near)
        raise EncoderError(
            f"Unknown open_clip architecture {architecture!r}. Nearest of {len(known)}: {nearest}; "
            "open_clip.list_models() names all"
        )
    return dict(open_clip.get_model_config(architecture))


def _read_tag(architecture: str, tag: str, model_cfg: dict[str, Any], tag_cfg: dict[str, Any]) -> Source:
    from open_clip import download_pretrained

    spec = f"{architecture}/{tag}"
    if tag_cfg.get("quick_gelu") and not model_cfg.get("quick_gelu"):
        _log.info("%s was trained with QuickGELU, so %s is built with it", spec, architecture)
        model_cfg["quick_gelu"] = True
    weights = _fetch(f"open_clip:{spec}", lambda: download_pretrained(tag_cfg))
    return _source(spec, model_cfg, tag_cfg, Path(weights), None)


def _read_repo(repo: str) -> Source:
    from open_clip.pretrained import (
        download_pretrained_from_hf,
    )

    spec = f"hf-hub:{repo}"
    config_file = _fetch(f"open_clip:{spec}", lambda: download_pretrained_from_hf(repo, filename=CONFIG))
    model_cfg, preprocess_cfg = _read_config(Path(config_file))
    weights = _fetch(f"open_clip:{spec}", lambda: download_pretrained_from_hf(repo))
    return _source(spec, model_cfg, preprocess_cfg, Path(weights), None)


def _read_folder(folder: Path) -> Source:
    folder = folder.expanduser().absolute()
    if not (folder / CONFIG).is_file():
        raise EncoderError(f"{folder} holds no {CONFIG}; expected a folder as open_clip writes it")
    model_cfg, preprocess_cfg = _read_config(folder / CONFIG)
    return _source(f"local-dir:{folder}", model_cfg, preprocess_cfg, _find_weights(folder), folder)


def _find_weights(folder: Path) -> Path:
    for name in PREFERRED_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    # Files of any name come after those, safetensors before what has to be unpickled.
    for suffix in (".safetensors", ".bin", ".pth"):
        found = sorted(folder.glob(f"*{suffix}"))
        if found:
            return found[0]
    raise EncoderError(f"{folder} holds no weights; expected a file such as {PREFERRED_WEIGHTS[0]}")


def _read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} cannot be read as JSON ({error}); fetch it again") from error
    model_cfg = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model_cfg, dict):
        raise EncoderError(f"{file} is no configuration of open_clip: it has no 'model_cfg'")
    preprocess_cfg = config.get("preprocess_cfg") or {}
    if not isinstance(preprocess_cfg, dict):
        raise EncoderError(f"{file} is no configuration of open_clip: its 'preprocess_cfg' is no object")
    return model_cfg, preprocess_cfg


def _source(
    spec: str,
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    weights: Path,
    folder: Path | None,
) -> Source:
    """Bring together what was found; ``folder`` is where a Hugging Face tokenizer has to lie, if known."""
    name = f"open_clip:{spec}"
    if weights.suffix not in WEIGHT_SUFFIXES:
        raise EncoderError(f"{weights} is no file of weights; expected one with {_either(WEIGHT_SUFFIXES)}")
    _check(name, model_cfg)
    model_cfg = deepcopy(model_cfg)
    text_cfg = model_cfg["text_cfg"]
    tokenizer, hf_text_config = None, None
    if text_cfg.get("hf_tokenizer_name"):
        tokenizer = folder or _tokenizer_folder(name, text_cfg["hf_tokenizer_name"])
    elif folder is None and "siglip" in name.lower().partition("/")[0]:
        raise EncoderError(f"{name} names no tokenizer; expected 'hf_tokenizer_name' in its text_cfg")
    if text_cfg.get("hf_model_name"):
        if Path(text_cfg["hf_model_name"]).is_dir():
            text_cfg["hf_model_name"] = str(Path(text_cfg["hf_model_name"]).absolute())
        hf_text_config = _hf_text_config(name, text_cfg["hf_model_name"])
    return Source(
        spec=spec,
        model_cfg=model_cfg,
        preprocess_cfg=complete_preprocess_cfg(model_cfg, preprocess_cfg),
        weights=weights,
        tokenizer=tokenizer,
        hf_text_config=hf_text_config,
    )


def _check(name: str, model_cfg: dict[str, Any]) -> None:
    expected = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    for key, kind in expected.items():
        if not isinstance(model_cfg.get(key), kind):
            seen = repr(model_cfg.get(key))
            raise EncoderError(f"The model_cfg of {name} has {seen:.40} as {key}; expected {kind.__name__}")


def complete_preprocess_cfg(model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> dict[str, Any]:
    """Fill in open_clip's defaults; the size is always the tower's own."""
    from open_clip.transform import (
        PreprocessCfg,
        merge_preprocess_dict,
    )

    merged = merge_preprocess_dict(asdict(PreprocessCfg()), preprocess_cfg)
    merged["size"] = model_cfg["vision_cfg"].get("image_size", PreprocessCfg.size)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in merged.items()}


# ---- From the hub ----------------------------------------------------------------------------------------


def _tokenizer_folder(name: str, tokenizer: str) -> Path:
    """Give the folder of a Hugging Face tokenizer: as it is, or fetched from the hub, its files only."""
    from huggingface_hub import snapshot_download

    if Path(tokenizer).is_dir():
        return Path(tokenizer).absolute()
    files = list(TOKENIZER_FILES)
    folder = Path(_fetch(name, lambda: snapshot_download(tokenizer, allow_patterns=files)))
    if not any((folder / file).is_file() for file in files if file != "config.json"):
        raise EncoderError(f"{name} needs the tokenizer {tokenizer}, but {folder} holds none; fetch it again")
    return folder


def _hf_text_config(name: str, model: str) -> dict[str, Any]:
    from transformers import PretrainedConfig

    config, _ = _fetch(name, lambda: PretrainedConfig.get_config_dict(model))
    # Neither where it came from nor code that it would bring along.
    return {key: value for key, value in config.items() if key[0] != "_" and key != "auto_map"}


def _fetch(name: str, fetch: Callable[[], _Got]) -> _Got:
    """Fetch from the hub, or from its cache; whatever stands in the way becomes one line."""
    try:
        return fetch()
    except Exception as error:  # of many classes, by what is missing: network, repository, permission, disk
        raise EncoderError(
            f"{name} has to come from the Hugging Face hub, and that failed ({_first_cause(error):.200}). "
            "Without network, name weights you have (open_clip:ARCH/FILE, open_clip:local-dir:FOLDER) or use "
            "the encoder lite"
        ) from error


def _first_cause(error: BaseException) -> str:
    """Say what an error began with: of a failed download the last ones tell only that it failed."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the hub's cache does not hold it"
    return " ".join(str(error).split()) or type(error).__name__


def _either(things: Iterable[str]) -> str:
    *most, last = things
    return f"{', '.join(most)} or {last}"
