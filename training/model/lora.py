"""Low-rank adapters on both towers, through peft; a checkpoint has them merged into their layers."""

import copy
from typing import Any, cast

from torch import nn

from crossmodal.errors import MissingPackageError, TrainingError
from training.model.settings import LoraSettings


def add_adapters(model: Any, settings: LoraSettings) -> None:
    """Put adapters beside the linear layers, and attentions, of both towers; only they are trained then.

    :raises TrainingError: when there is no such layer.
    :raises MissingPackageError: when peft is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise MissingPackageError("Adapters need peft: pip install 'crossmodal-retrieval[lora]'") from error
    owner = model.owner
    targets = _targets(model)
    if not targets:
        raise TrainingError("The towers have no linear layer for adapters; set model.lora.rank to 0")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # which may be a fraction, whatever peft's types say
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    LoraModel(owner, config, "default")  # changes the owner's layers in their places


def merged(owner: nn.Module) -> nn.Module:
    """Give the owner, or where it has adapters a copy of it with ordinary layers that hold their sum."""
    from importlib.util import find_spec

    if find_spec("peft") is None:
        return owner
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in owner.modules()):
        return owner
    whole = copy.deepcopy(owner)
    done: set[int] = set()
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer) and id(module) not in done:
            done |= {id(part) for part in module.modules()}
            whole.set_submodule(name, _ordinary(module))
    return whole


def _ordinary(layer: Any) -> nn.Module:
    """Give the layer under an adapter, with the adapter in its weights; attentions have their own way."""
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return cast(
            nn.Module,
            layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None),
        )
    layer.merge()
    return cast(nn.Module, layer.get_base_layer())


def _targets(model: Any) -> list[str]:
    """Name the layers that get adapters: linear ones and whole attentions, but none of the heads.

    A layer is put in its place through its parent, which must be the very one that a tower runs.
    """
    owner = model.owner
    heads = {id(module) for head in model.heads() for module in head.modules()}
    run = {id(module) for side in (model.image, model.text) for module in side.modules()}
    within: set[int] = set()
    names = []
    for name, module in owner.named_modules():
        parent = owner.get_submodule(name.rpartition(".")[0])
        if id(module) in heads | within or id(parent) not in run:
            continue
        if isinstance(module, nn.MultiheadAttention):
            within |= {id(part) for part in module.modules()}
            names.append(name)
        elif isinstance(module, nn.Linear):
            names.append(name)
    return names
