"""How fast each parameter moves, by its layer and by what it is; and which of them decay."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from training.model.settings import OptimiserSettings
from training.model.trainable import Trainable

_FIRST = ("embed", "token", "conv1", "stem", "ln_pre", "pre_layrnorm", "norm_pre")
"""What names the parts of a tower before its layers, in open_clip, transformers and timm."""


def make_optimiser(model: Trainable, settings: OptimiserSettings) -> torch.optim.AdamW:
    """Make AdamW over all that is trained; each group remembers its own ``top_lr``, for schedules."""
    groups = parameter_groups(model, settings)
    betas = settings.beta1, settings.beta2
    device = next(model.parameters()).device.type
    fused = device in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.epsilon, fused=fused)


def parameter_groups(model: Trainable, settings: OptimiserSettings) -> list[dict[str, Any]]:
    """Sort what is trained into groups of equal rate and decay, each with the ``names`` of its parameters.

    Norms, biases and the temperature, which have no width, have no weight decay.
    """
    rates = _rates(model, settings)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.trained().items():
        rate = rates.get(id(parameter), settings.lr)
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        new: dict[str, Any] = {"params": [], "names": [], "lr": rate, "top_lr": rate, "weight_decay": decay}
        group = groups.setdefault((rate, decay), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def layers_of(tower: nn.Module) -> dict[int, tuple[int, int]]:
    """Give the layer of each parameter of a tower, from 0 for the first, and how many there are: by its id.

    timm's models say themselves which layers they have. Elsewhere the longest list of modules is the layers;
    what is named as an embedding lies before them, the rest behind.
    """
    found: dict[int, tuple[int, int]] = {}
    for net in _timm_nets(tower):
        found |= _timm_layers(net)
    rest = [(name, p) for name, p in tower.named_parameters() if id(p) not in found]
    if not rest or found:
        last = max((last for _, last in found.values()), default=0)
        return found | {id(p): (last, last) for _, p in rest}
    prefix, depth = _stack(tower)
    for name, parameter in rest:
        if prefix and name.startswith(prefix):
            layer = 1 + int(name.removeprefix(prefix).partition(".")[0])
        else:
            layer = 0 if any(part in name for part in _FIRST) else depth + 1
        found[id(parameter)] = layer, depth + 1
    return found


def _rates(model: Trainable, settings: OptimiserSettings) -> dict[int, float]:
    """Give the rate of each parameter, by its id."""
    rates: dict[int, float] = {}
    for side in (model.image, model.text):
        for parameter, (layer, last) in layers_of(side).items():
            rates[parameter] = settings.lr * settings.layer_decay ** (last - layer)
    for head in model.heads():
        for weight in head.parameters():
            rates[id(weight)] = settings.lr if settings.head_lr is None else settings.head_lr
    for number in (model.logit_scale, model.logit_bias):
        if number is not None:
            rates[id(number)] = settings.lr if settings.temperature_lr is None else settings.temperature_lr
    return rates


def _stack(tower: nn.Module) -> tuple[str, int]:
    """Find the longest numbered list of modules: the beginning of its parameters' names, and its length."""
    lists = [
        (len(module), f"{name}.")
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and all(child.isdigit() for child, _ in module.named_children())
        and any(True for _ in module.parameters())
    ]
    depth, prefix = max(lists, default=(0, ""), key=lambda found: found[0])
    return prefix, depth


def _timm_nets(module: nn.Module) -> Iterator[Any]:
    """Give the outermost models of timm within a tower."""
    if hasattr(module, "group_matcher") and hasattr(module, "default_cfg"):
        yield module
        return
    for child in module.children():
        yield from _timm_nets(child)


def _timm_layers(net: Any) -> dict[int, tuple[int, int]]:
    from timm.models import group_parameters

    layers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {id(p): (layers[name], last) for name, p in net.named_parameters() if name in layers}
