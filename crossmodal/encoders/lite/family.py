"""The family `lite`: the encoder that is always there, and what training makes of it."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.lite import settings, weights
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.encoders.weights import file_digest, load_weights
from crossmodal.errors import EncoderError

if TYPE_CHECKING:
    from crossmodal.encoders.lite.model import LiteTwin

FAMILY = "lite"
WEIGHTS = "model.safetensors"


def blueprint(rest: str) -> Blueprint:
    """Read the spec ``lite``. Weights are read, and checked, when a tower is first needed.

    :raises EncoderError: when something follows the name.
    """
    if rest:
        raise EncoderError(f"Encoder 'lite' takes nothing after its name, got {f'lite:{rest}'!r}. Use: lite")
    preprocessing = Preprocessing(
        size=settings.IMAGE_SIZE,
        fit=settings.FIT,
        resample=settings.RESAMPLE,
        crop_fraction=settings.CROP_FRACTION,
    )
    return Blueprint(
        name="lite",
        family=FAMILY,
        architecture={
            "towers": settings.ARCHITECTURE,
            "hidden": weights.hidden(),
            "trust": settings.TRUST,
        },
        dim=settings.DIM,
        fingerprint=fingerprint(
            architecture=settings.ARCHITECTURE,
            image_weights=weights.IMAGE_SHA256,
            text_weights=weights.TEXT_SHA256,
            heads=weights.heads_sha256(),
            nets=settings.NETS,
            trust=settings.TRUST,
            far=settings.FAR,
            preprocessing=preprocessing.to_dict(),
            text_limit=settings.TEXT_LIMIT,
        ),
        preprocessing=preprocessing,
        tokenizer=Tokenizer(weights.tokenizer_file, settings.TEXT_LIMIT),
        load=_load_shipped,
    )


def restore(config: dict[str, Any], folder: Path) -> Blueprint:
    """Read a checkpoint folder of this family.

    :raises EncoderError: when its weights do not fit; when they are loaded.
    """
    architecture, tokenizer = config["architecture"], folder / "tokenizer.json"
    return Blueprint(
        name=str(folder),
        family=FAMILY,
        architecture=architecture,
        dim=settings.DIM,
        fingerprint=fingerprint(
            architecture=[settings.ARCHITECTURE, architecture],
            weights=file_digest(folder / WEIGHTS),
            preprocessing=config["preprocessing"],
            tokenizer=file_digest(tokenizer),
            text_limit=config["tokenizer"]["limit"],
        ),
        preprocessing=Preprocessing(
            **config["preprocessing"] | {"fill": tuple(config["preprocessing"]["fill"])}
        ),
        tokenizer=Tokenizer(lambda: tokenizer, config["tokenizer"]["limit"]),
        load=partial(_load_saved, architecture, folder / WEIGHTS),
    )


def export(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    """Refuse: no other library has a layout for such a model.

    :raises EncoderError: always.
    """
    raise EncoderError(
        f"{blueprint.name} is of the family 'lite', for which no other library has a layout; "
        "write a checkpoint: crossmodal convert ENCODER FOLDER"
    )


def _load_shipped() -> TwinModel:
    from crossmodal.encoders.lite.model import load_twin

    return _twin(load_twin(weights.heads_file().read_bytes()))


def _load_saved(architecture: dict[str, Any], path: Path) -> TwinModel:
    import torch

    from crossmodal.encoders.lite.model import LiteTwin, TextBackbone, new_efficientnet

    with torch.random.fork_rng(devices=[]):
        nets = {name: new_efficientnet(name) for name in architecture["hidden"]}
        owner = LiteTwin(nets, TextBackbone(), architecture["hidden"], architecture["trust"])
    load_weights(owner, path)
    return _twin(owner.eval())


def _twin(owner: "LiteTwin") -> TwinModel:
    return TwinModel(owner=owner, image=owner.image, text=owner.text)
