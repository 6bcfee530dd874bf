"""How fast each parameter moves: against timm's own layer-wise decay, and by the names of other libraries."""

import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from crossmodal.encoders import read_blueprint
from training.model.parameter_groups import layers_of, make_optimiser, parameter_groups
from training.model.settings import ModelSettings, OptimiserSettings
from training.model.trainable import make_trainable


def rates_of(groups) -> dict[str, tuple[float, float]]:
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def grouped(spec: str, **settings: float) -> dict[str, tuple[float, float]]:
    model = make_trainable(read_blueprint(spec), ModelSettings(encoder=spec))
    return rates_of(parameter_groups(model, OptimiserSettings(**settings)))


def test_a_tower_of_timm_decays_as_timm_has_it():
    net = timm.create_model("test_vit")
    theirs = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(net, layer_decay=0.5, no_weight_decay_list=["none"])
        for p in group["params"]
    }
    for parameter, (layer, last) in layers_of(net).items():
        assert 0.5 ** (last - layer) == theirs[parameter]
    assert len(layers_of(net)) == len(theirs)


def test_layers_of_open_clip_decay_from_the_last_to_the_embeddings(tiny_clip):
    rates = grouped(tiny_clip, lr=1.0, layer_decay=0.5)
    expected = {
        "owner.visual.conv1.weight": 0.125,
        "owner.visual.class_embedding": 0.125,
        "owner.visual.positional_embedding": 0.125,
        "owner.visual.transformer.resblocks.0.attn.in_proj_weight": 0.25,
        "owner.visual.transformer.resblocks.1.mlp.c_fc.bias": 0.5,
        "owner.visual.ln_post.weight": 1.0,
        "owner.visual.proj": 1.0,
        "owner.token_embedding.weight": 0.125,
        "owner.transformer.resblocks.0.ln_1.weight": 0.25,
        "owner.transformer.resblocks.1.ln_1.weight": 0.5,
        "owner.text_projection": 1.0,
    }
    assert {name: rates[name][0] for name in expected} == expected


def test_layers_of_transformers_decay_likewise(tiny_hf):
    rates = grouped(tiny_hf, lr=1.0, layer_decay=0.5)
    by_part = {
        "embeddings.word_embeddings": 0.125,
        "embeddings.patch_embeddings": 0.125,
        "layer.0.": 0.25,
        "layer.1.": 0.5,
        "text_projection": 1.0,
        "visual_projection": 1.0,
    }
    for part, rate in by_part.items():
        seen = {rates[name][0] for name in rates if part in name}
        assert seen in ({rate}, set()), part
    assert any("layer.0." in name or "layers.0." in name for name in rates)


def test_heads_and_temperature_have_rates_of_their_own_and_nothing_narrow_decays(tiny):
    spec = tiny()
    model = make_trainable(read_blueprint(spec), ModelSettings(encoder=spec))
    settings = OptimiserSettings(
        lr=1e-5, head_lr=1e-3, temperature_lr=1e-2, weight_decay=0.3, layer_decay=0.9
    )
    rates = rates_of(parameter_groups(model, settings))
    assert rates["owner.image.head.project.weight"] == (1e-3, 0.3)
    assert rates["logit_scale"] == (1e-2, 0.0)
    assert max(rate for name, (rate, _) in rates.items() if ".tower." in name) <= 1e-5
    for module_name, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            full = f"{module_name}.{name}"
            if full in rates and (name == "bias" or isinstance(module, nn.LayerNorm)):
                assert rates[full][1] == 0.0, full


def test_the_optimiser_holds_each_trained_parameter_once(tiny_clip):
    model = make_trainable(read_blueprint(tiny_clip), ModelSettings(encoder=tiny_clip))
    optimiser = make_optimiser(model, OptimiserSettings())
    held = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.trained().values())
    assert isinstance(optimiser, torch.optim.AdamW)
