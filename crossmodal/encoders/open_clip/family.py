"""The family ``open_clip``: its specs, its part of checkpoint folders, and open_clip's own format."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.open_clip.specs import CONFIG, PREFERRED_WEIGHTS, read_spec
from crossmodal.encoders.open_clip.tokenizer import (
    SUBFOLDER,
    OpenClipTokenizer,
    reading_of,
    tokenizer_settings,
)
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.weights import file_digest
from crossmodal.errors import EncoderError

FAMILY = "open_clip"
_FIT: dict[str, Literal["crop", "pad", "squash"]] = {
    "shortest": "crop",
    "longest": "pad",
    "squash": "squash",
}
_WEIGHTS = "model.safetensors"
_TEXT_CONFIG = "hf_text_config"


def blueprint(rest: str) -> Blueprint:
    """Read ``ARCH/TAG``, ``ARCH/FILE``, ``hf-hub:ORG/REPO`` or ``local-dir:FOLDER``.

    :raises EncoderError: when it is unknown, cannot be read or fetched, or does not fit.
    """
    source = read_spec(rest)
    architecture = {"model_cfg": source.model_cfg, "preprocess_cfg": source.preprocess_cfg}
    if source.hf_text_config is not None:
        architecture[_TEXT_CONFIG] = source.hf_text_config
    settings = tokenizer_settings(source.model_cfg)
    return _blueprint(f"{FAMILY}:{source.spec}", architecture, source.weights, settings, source.tokenizer)


def restore(config: dict[str, Any], folder: Path) -> Blueprint:
    """Read a checkpoint folder of this family.

    :raises EncoderError: when something in it is missing, torn or does not fit.
    """
    settings = config.get("tokenizer")
    if not isinstance(settings, dict) or not {"kind", "limit", "mode", "options"} <= set(settings):
        raise EncoderError(f"{folder} does not say what its tokenizer is: {settings!r:.80}; save it again")
    if not (folder / _WEIGHTS).is_file():
        raise EncoderError(f"{folder} holds no {_WEIGHTS}; copy the whole folder")
    tokenizer = folder / SUBFOLDER if settings["kind"] == "hf" else None
    if tokenizer is not None and not tokenizer.is_dir():
        raise EncoderError(f"{folder} holds no {SUBFOLDER} folder; copy the whole folder")
    return _blueprint(str(folder), config.get("architecture"), folder / _WEIGHTS, settings, tokenizer)


def export(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    """Write a folder that ``open_clip.create_model("local-dir:FOLDER")`` reads back bit for bit."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    architecture = json.loads(json.dumps(dict(blueprint.architecture)))
    text_cfg, text_config = architecture["model_cfg"]["text_cfg"], architecture.get(_TEXT_CONFIG)
    if text_config is not None and Path(text_cfg["hf_model_name"]).is_absolute():
        home = folder.absolute() / _TEXT_CONFIG  # where open_clip is told to look
        home.mkdir(exist_ok=True)
        (home / "config.json").write_text(json.dumps(text_config, indent=2) + "\n")
        text_cfg["hf_model_name"] = str(home)
    config = {key: architecture[key] for key in ("model_cfg", "preprocess_cfg")}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    assert isinstance(blueprint.tokenizer, OpenClipTokenizer), "a blueprint of another family"
    blueprint.tokenizer.copy_files(folder)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.owner.state_dict().items()}
    save_file(state, folder / PREFERRED_WEIGHTS[0])


def _blueprint(
    name: str, architecture: Any, weights: Path, settings: Mapping[str, Any], tokenizer_folder: Path | None
) -> Blueprint:
    try:
        model_cfg, preprocess_cfg = architecture["model_cfg"], architecture["preprocess_cfg"]
        hf_text_config = architecture.get(_TEXT_CONFIG)
        preprocessing = _preprocessing(name, preprocess_cfg)
        tokenizer = OpenClipTokenizer(settings, tokenizer_folder, reading_of(model_cfg, hf_text_config))
        dim = int(model_cfg["embed_dim"])
    except EncoderError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"The configuration of {name} is torn: {error!r:.120}; fetch it again") from error
    return Blueprint(
        name=name,
        family=FAMILY,
        architecture=architecture,
        dim=dim,
        fingerprint=fingerprint(
            family=FAMILY,
            model_cfg=_without_places(model_cfg),
            hf_text_config=hf_text_config,
            weights=file_digest(weights),
            preprocessing=preprocessing.to_dict(),
            normalisation=[preprocess_cfg["mean"], preprocess_cfg["std"]],
            tokenizer=tokenizer.facts(),
        ),
        preprocessing=preprocessing,
        tokenizer=tokenizer,
        load=partial(_load, name, model_cfg, preprocess_cfg, hf_text_config, weights),
    )


def _load(*parts: Any) -> TwinModel:
    from crossmodal.encoders.open_clip.model import load_model  # torch is needed only to build

    return load_model(*parts)


def _without_places(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where parts were found: their content is in the fingerprint by itself."""
    places = ("hf_tokenizer_name", "hf_model_name", "hf_model_pretrained")
    text_cfg = {key: value for key, value in model_cfg["text_cfg"].items() if key not in places}
    return {**model_cfg, "text_cfg": text_cfg}


def _preprocessing(name: str, preprocess_cfg: Mapping[str, Any]) -> Preprocessing:
    """Make what ``open_clip.image_transform`` would, up to mean and deviation, which are the tower's."""
    size, fit = preprocess_cfg["size"], preprocess_cfg["resize_mode"]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise EncoderError(f"{name} takes pictures of size {size}; only squares of pixels are supported")
    if fit not in _FIT:
        raise EncoderError(f"{name} resizes pictures by {fit!r}; expected one of {', '.join(_FIT)}")
    # "random" is for training; where nothing is drawn open_clip takes bicubic for it
    bilinear = preprocess_cfg["interpolation"] == "bilinear"
    grey = preprocess_cfg["fill_color"]
    return Preprocessing(
        size=sides.pop(),
        fit=_FIT[fit],
        resample="bilinear" if bilinear else "bicubic",
        fill=(grey, grey, grey),
        exact=True,
    )
