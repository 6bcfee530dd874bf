"""The family `towers`: specs, checkpoints, and the export to timm's and transformers' own layouts."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.hf.quiet import quiet_transformers
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.encoders.towers.preprocessing import preprocessing_of, restore_preprocessing
from crossmodal.encoders.towers.spec import parse_spec
from crossmodal.encoders.weights import file_digest, load_weights

if TYPE_CHECKING:
    from crossmodal.encoders.towers.image_source import ImageSource
    from crossmodal.encoders.towers.model import TwinTowers
    from crossmodal.encoders.towers.text_source import TextSource

FAMILY = "towers"
WEIGHTS = "model.safetensors"

_log = logging.getLogger(__name__)


def blueprint(rest: str) -> Blueprint:
    """Read ``IMAGE+TEXT?options``; the heads start from a seed, and the log says that they are untrained.

    :raises EncoderError: when a part is unknown, cannot be read or does not fit, or needs a network in vain.
    """
    from crossmodal.encoders.towers.image_source import find_image
    from crossmodal.encoders.towers.text_source import find_text

    spec = parse_spec(rest)
    options = spec.options
    image = find_image(spec.image, options.image_size)
    text = find_text(spec.text, options.text_pool)
    preprocessing = preprocessing_of(image.data)
    architecture = {
        "image": {**image.architecture, "pool": options.image_pool},
        "text": {"config": text.config, "pool": text.pool},
        "head": options.head,
        "dim": options.dim,
    }
    _log.warning("The heads of %s are untrained: it finds nothing until it is trained on pairs", spec)
    return Blueprint(
        name=str(spec),
        family=FAMILY,
        architecture=architecture,
        dim=options.dim,
        fingerprint=fingerprint(
            architecture=architecture,
            image_weights=image.digest(),
            text_weights=text.digest(),
            seed=options.seed,
            preprocessing=preprocessing.to_dict(),
            tokenizer=file_digest(text.tokenizer),
            text_limit=text.limit,
        ),
        preprocessing=preprocessing,
        tokenizer=Tokenizer(lambda: text.tokenizer, text.limit),
        load=partial(_load_pretrained, image, text, architecture, options.seed),
    )


def restore(config: dict[str, Any], folder: Path) -> Blueprint:
    """Read a checkpoint folder of this family.

    :raises EncoderError: when its weights do not fit; when they are loaded.
    """
    architecture = config["architecture"]
    biased = config.get("temperature", {}).get("logit_bias") is not None
    tokenizer = folder / "tokenizer.json"
    return Blueprint(
        name=str(folder),
        family=FAMILY,
        architecture=architecture,
        dim=architecture["dim"],
        fingerprint=fingerprint(
            architecture=architecture,
            weights=file_digest(folder / WEIGHTS),
            preprocessing=config["preprocessing"],
            tokenizer=file_digest(tokenizer),
            text_limit=config["tokenizer"]["limit"],
        ),
        preprocessing=restore_preprocessing(config["preprocessing"]),
        tokenizer=Tokenizer(lambda: tokenizer, config["tokenizer"]["limit"]),
        load=partial(_load_saved, architecture, folder / WEIGHTS, biased),
    )


def export(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    """Write ``image/`` as timm does, ``text/`` as transformers does, and the rest as ``heads.safetensors``.

    ``timm.create_model("local-dir:FOLDER/image", pretrained=True)`` and
    ``transformers.AutoModel.from_pretrained("FOLDER/text")`` read the towers back bit for bit.
    """
    from safetensors.torch import save_file
    from timm.models import save_for_hf
    from transformers import PreTrainedTokenizerFast

    owner = cast("TwinTowers", model.owner)
    facts = blueprint.architecture
    image, text = folder / "image", folder / "text"
    save_for_hf(
        owner.image.tower,
        str(image),
        model_config={
            "num_classes": 0,
            "pretrained_cfg": {"num_classes": 0, **_image_config(facts["image"])},
        },
        model_args=dict(facts["image"]["arguments"]),
        safe_serialization=True,
    )
    with quiet_transformers():
        cast(Any, owner.text.tower).save_pretrained(text)
    blueprint.tokenizer.save(text)
    PreTrainedTokenizerFast(
        tokenizer_file=str(text / "tokenizer.json"), model_max_length=blueprint.tokenizer.limit
    ).save_pretrained(text)
    rest = {
        name: tensor.contiguous()
        for name, tensor in owner.state_dict().items()
        if not name.startswith(("image.tower.", "text.tower."))
    }
    kinds = {"head": facts["head"], "image_pool": facts["image"]["pool"], "text_pool": facts["text"]["pool"]}
    save_file(rest, folder / "heads.safetensors", metadata=kinds)


def _image_config(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give what timm's data config takes from the checkpoint and not from timm's list."""
    told = facts["config"] or {}
    return {**told, "input_size": [3, *facts["size"]], "mean": facts["mean"], "std": facts["std"]}


def _load_pretrained(
    image: "ImageSource", text: "TextSource", architecture: dict[str, Any], seed: int
) -> TwinModel:
    from crossmodal.encoders.towers.model import join

    return _twin(join(image.load(), text.load(), architecture, seed))


def _load_saved(architecture: dict[str, Any], weights: Path, biased: bool) -> TwinModel:
    import torch

    from crossmodal.encoders.towers.image_source import build_image_tower
    from crossmodal.encoders.towers.model import join
    from crossmodal.encoders.towers.text_source import build_text_tower

    with torch.random.fork_rng(devices=[]):
        image = build_image_tower(architecture["image"])
        text = build_text_tower(architecture["text"]["config"])
    owner = join(image, text, architecture)
    if biased:
        owner.logit_bias = torch.nn.Parameter(torch.zeros(()))
    load_weights(owner, weights)
    return _twin(owner)


def _twin(owner: "TwinTowers") -> TwinModel:
    return TwinModel(owner=owner, image=owner.image, text=owner.text)
