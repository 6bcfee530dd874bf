"""Where an image model comes from: timm's names, a file of weights, a folder, or the parts of `lite`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossmodal.encoders.lite import weights as lite_weights
from crossmodal.encoders.towers.hub import fetch
from crossmodal.encoders.weights import file_digest, fill, read_weights
from crossmodal.errors import EncoderError, unknown

if TYPE_CHECKING:
    from torch import nn

LITE = "efficientnet_lite0"
"""The smaller image net of `lite`. timm has a model of this name as well, which its tag tells apart."""

_LITE_NET = "lite0"
_LITE_MODEL = "tf_efficientnet_lite0.in1k"
_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
_WRAPPED = ("module.", "_orig_mod.", "module.")
_TOLD = (
    *("input_size", "fixed_input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"),
    *("pool_size", "global_pool", "num_classes", "classifier", "first_conv"),
)
"""What a folder may tell of a model beyond what timm knows by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """An image model: how timm builds it, how its authors prepare pictures, and the file of its weights.

    ``architecture`` is what ``build_image_tower`` takes; ``data`` is timm's data config.
    """

    architecture: dict[str, Any]
    data: dict[str, Any]
    weights: Path | None

    def digest(self) -> str:
        """Give the sha256 of the weights."""
        return lite_weights.IMAGE_SHA256[_LITE_NET] if self.weights is None else file_digest(self.weights)

    def load(self) -> "nn.Module":
        """Build the model with its weights, without its classifier.

        :raises EncoderError: when the weights cannot be read or do not fit.
        """
        if self.weights is None:
            from crossmodal.encoders.lite.model import load_efficientnet

            net = load_efficientnet(_LITE_NET)
            net.reset_classifier(0)
            return cast("nn.Module", net)
        tower = build_image_tower(self.architecture)
        fill(tower, _fitting(read_weights(self.weights, strip=_WRAPPED), tower), self.weights)
        return tower


def find_image(image: str, size: int | None) -> ImageSource:
    """Find an image model: ``NAME`` or ``NAME.TAG`` of timm's, ``NAME/FILE``, ``local-dir:`` or ``hf-hub:``.

    :param size: in pixels, where it is not to be the model's own.
    :raises EncoderError: when timm does not know it, or its weights are neither here nor to be had.
    """
    source, colon, place = image.partition(":")
    if colon and source in ("hf-hub", "hf_hub"):
        return _from_folder(fetch(place, ["config.json", *_WEIGHTS]), size)
    if colon and source == "local-dir":
        return _from_folder(Path(place).expanduser(), size)
    name, slash, file = image.partition("/")
    model = _known(_LITE_MODEL if image == LITE else name)
    config = _config_of(model)
    if image == LITE:
        weights = None
    elif slash:
        weights = Path(file).expanduser()
        if not weights.is_file():
            raise EncoderError(f"No such file of weights: {weights}; write NAME/FILE, or NAME for timm's own")
    else:
        weights = _fetched(model, config)
    return _source(model, None, config, {}, size, weights)


def build_image_tower(architecture: Mapping[str, Any]) -> "nn.Module":
    """Build a timm model without its classifier, its weights still random."""
    from timm.models import create_model

    config = architecture["config"]
    net: nn.Module = create_model(
        architecture["model"], pretrained=False, pretrained_cfg=config, **architecture["arguments"]
    )
    return net


def _source(
    model: str,
    told: dict[str, Any] | None,
    config: dict[str, Any],
    arguments: dict[str, Any],
    size: int | None,
    weights: Path | None,
) -> ImageSource:
    """Settle size and data config; ``told`` stays None where timm knows the model by its name."""
    from timm.data import resolve_data_config

    data = resolve_data_config({"img_size": size} if size else {}, pretrained_cfg=config)
    arguments = {**arguments, "num_classes": 0}
    if config.get("fixed_input_size") or "img_size" in arguments:
        arguments["img_size"] = list(data["input_size"][1:])
    architecture = {
        "model": model,
        "config": told,
        "arguments": arguments,
        "size": list(data["input_size"][1:]),
        "mean": list(data["mean"]),
        "std": list(data["std"]),
    }
    return ImageSource(architecture=architecture, data=data, weights=weights)


def _known(name: str) -> str:
    """Give timm's full name of a model, tag included.

    :raises EncoderError: when timm has no such model, with the nearest few.
    """
    import difflib

    from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained

    bare, _, tag = name.partition(".")
    if is_model(bare) and (not tag or name in list_pretrained(bare + ".*")):
        config = get_pretrained_cfg(bare)
        return f"{bare}.{config.tag}" if not tag and config is not None and config.tag else name
    names = list_pretrained(bare + ".*") if is_model(bare) else list_models()
    near = difflib.get_close_matches(name, [LITE, *names], n=5, cutoff=0.4)
    raise EncoderError(
        unknown("image model of timm", name, near or [LITE]).replace("Known:", "Near it:")
        + "; timm.list_models() lists all"
    )


def _config_of(model: str) -> dict[str, Any]:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    return {} if config is None else dict(config.to_dict())


def _fetched(model: str, config: Mapping[str, Any]) -> Path:
    """Fetch the weights that timm names for a model."""
    repository, file = config.get("hf_hub_id"), config.get("hf_hub_filename")
    if not repository:
        raise EncoderError(
            f"timm has no weights for {model} on the Hugging Face hub; "
            f"name a file of weights: {model.partition('.')[0]}/FILE"
        )
    return _weights_in(fetch(repository, [file] if file else list(_WEIGHTS)), file)


def _weights_in(folder: Path, file: str | None = None) -> Path:
    names = [file] if file else list(_WEIGHTS)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise EncoderError(f"{folder} holds no weights; expected {' or '.join(names)}")


def _from_folder(folder: Path, size: int | None) -> ImageSource:
    """Read the layout in which timm saves models for the hub, as its ``local-dir:`` does."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        told = config.get("pretrained_cfg", config)
        kept = {name: told[name] for name in _TOLD if told.get(name) is not None}
        kept["num_classes"] = config.get("num_classes", kept.get("num_classes", 1000))
        name, arguments = str(config["architecture"]), dict(config.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"{folder} is no folder of a timm model: config.json must name an architecture "
            f"({type(error).__name__}: {error})"
        ) from error
    _known(name)
    return _source(name, kept, kept, arguments, size, _weights_in(folder))


def _fitting(state: dict[str, Any], net: Any) -> dict[str, Any]:
    """Bring weights to the model's layout and size by its module's filter, and leave the classifier out."""
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:
        state = adapt(state, net)
    classifiers = net.pretrained_cfg.get("classifier") or ()
    left = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in left}
