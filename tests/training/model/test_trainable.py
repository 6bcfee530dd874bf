"""What of an encoder moves in training, and what it gives: against the same towers run by themselves."""

import copy

import pytest
import torch
from torch import nn

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.errors import TrainingError
from training.model.lora import merged
from training.model.settings import LoraSettings, ModelSettings
from training.model.trainable import Trainable, make_trainable

TEXTS = ["a red picture", "a", "picture of a small bird on a red bird", "bird"]


def make(spec: str, **settings: object) -> Trainable:
    torch.manual_seed(0)
    return make_trainable(read_blueprint(spec), ModelSettings(encoder=spec, **settings))


def batch_for(spec: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    blueprint = read_blueprint(spec)
    pixels = torch.randint(0, 256, (4, *blueprint.preprocessing.shape, 3), dtype=torch.uint8)
    rows = [torch.tensor(ids) for ids in blueprint.tokenizer(TEXTS)]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return pixels, ids, mask


def one_step(model: Trainable, spec: str) -> None:
    images, texts = model.encode(*batch_for(spec))
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    (-(images @ texts.T).diag().sum() * model.temperature.scale).backward()
    optimiser.step()


@pytest.fixture(params=["towers", "open_clip", "hf"])
def spec(request, tiny, tiny_clip, tiny_hf) -> str:
    return {"towers": tiny(), "open_clip": tiny_clip, "hf": tiny_hf}[request.param]


def test_texts_of_several_lengths_get_the_embeddings_of_the_encoder_itself(spec):
    model = make(spec).eval()
    _, ids, mask = batch_for(spec)
    expected = load_encoder(spec, backend="torch").encode_texts(TEXTS)
    torch.testing.assert_close(
        model.encode_texts(ids, mask), torch.from_numpy(expected), atol=1e-5, rtol=1e-5
    )


def test_all_is_trained_where_nothing_is_locked(spec):
    model = make(spec)
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.trained().values()}
    before = copy.deepcopy(model.state())
    one_step(model, spec)
    moved = [name for name, tensor in model.state().items() if not torch.equal(tensor, before[name])]
    assert any("visual" in name or "vision" in name or "image" in name for name in moved)
    assert any("text" in name or "transformer" in name for name in moved)


def test_a_locked_image_tower_keeps_its_weights_and_statistics_while_its_head_learns(tiny):
    spec = tiny("test_efficientnet")
    model = make(spec, image="locked", batch_norm="train")
    tower = {name: tensor.clone() for name, tensor in model.owner.image.tower.state_dict().items()}
    head = copy.deepcopy(model.owner.image.head.state_dict())
    one_step(model, spec)
    for name, tensor in model.owner.image.tower.state_dict().items():
        assert torch.equal(tensor, tower[name]), name
    assert not torch.equal(model.owner.image.head.project.weight, head["project.weight"])
    assert all(not module.training for module in model.owner.image.tower.modules())
    assert model.owner.image.head.drop.training
    assert model.owner.text.tower.encoder.training


def test_batch_norms_keep_their_statistics_unless_they_are_to_be_trained(tiny):
    spec = tiny("test_efficientnet")
    for choice, moves in (("frozen", False), ("train", True)):
        model = make(spec, batch_norm=choice)
        norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        before, weight = norm.running_mean.clone(), norm.weight.clone()
        one_step(model, spec)
        assert torch.equal(norm.running_mean, before) != moves
        assert not torch.equal(norm.weight, weight)
        assert any(name.endswith("running_mean") for name in model.state()) == moves


def test_of_lite_the_heads_learn_and_all_below_stays():
    model = make("lite", image="locked", text="locked")
    assert model.splits
    kept = ("backbone", "origin", "class_texts", "centre", "spread")
    below = {n: t.clone() for n, t in model.owner.state_dict().items() if any(part in n for part in kept)}
    before = copy.deepcopy(model.state())
    one_step(model, "lite")
    after = model.owner.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in below.items())
    assert all(name == "logit_scale" or ".head." in name for name in before), before.keys()
    assert not any(torch.equal(tensor, before[name]) for name, tensor in model.state().items())


def test_nothing_to_train_is_refused(tiny_clip):
    with pytest.raises(TrainingError, match=r"Nothing of open_clip:.* would be trained"):
        make(tiny_clip, image="locked", text="locked")


def test_adapters_begin_as_nothing_and_are_merged_into_an_ordinary_checkpoint(spec, tmp_path):
    pytest.importorskip("peft")
    plain, model = make(spec).eval(), make(spec, lora=LoraSettings(rank=2))
    batch = batch_for(spec)
    for before, after in zip(plain.encode(*batch), model.eval().encode(*batch), strict=True):
        torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    adapters = {name: p for name, p in model.trained().items() if "lora_" in name}
    for side in (("visual", "vision", "image"), ("text", "transformer.resblocks")):
        assert any(any(part in name for part in side) for name in adapters)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert len(frozen) > len(adapters) // 2
    model.train()
    one_step(model, spec)
    assert all(p.grad is not None for p in adapters.values())
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images, texts = (part.detach() for part in model.eval().encode(*batch))
    save_checkpoint(model.twin(), read_blueprint(spec), tmp_path / "c")
    saved = read_blueprint(str(tmp_path / "c")).load()
    assert saved.owner.state_dict().keys() == plain.owner.state_dict().keys()
    again = make(str(tmp_path / "c")).eval()
    assert not torch.allclose(images, plain.encode(*batch)[0], atol=1e-4)
    for before, after in zip((images, texts), again.encode(*batch), strict=True):
        torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)
    assert merged(plain.owner) is plain.owner


def test_activations_computed_again_give_the_same_gradient(spec):
    gradients = []
    for checkpointing in (False, True):
        model = make(spec, checkpointing=checkpointing)
        torch.manual_seed(3)
        batch = batch_for(spec)
        images, texts = model.encode(*batch)
        (images @ texts.T).diag().sum().backward()
        gradients.append({n: p.grad for n, p in model.trained().items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4, msg=name)


def test_from_scratch_forgets_every_weight_and_not_the_temperature(spec):
    came, drawn = make(spec), make(spec, scratch=True)
    for name, parameter in came.named_parameters():
        if parameter.ndim >= 2:
            assert not torch.allclose(parameter, drawn.get_parameter(name), atol=1e-3), name
    assert torch.equal(came.logit_scale, drawn.logit_scale)
    images, _ = drawn.encode(*batch_for(spec))
    assert torch.isfinite(images).all()


def test_a_bias_begins_where_it_is_told_and_is_kept_by_checkpoints_of_towers(tiny, tiny_clip, tmp_path):
    for spec in (tiny(), tiny_clip):
        model = make(spec, scale=10.0, bias=-10.0)
        assert float(model.temperature.scale.detach()) == pytest.approx(10)
        assert float(model.temperature.bias.detach()) == -10
        assert any("logit_bias" in name for name in model.trained())
        save_checkpoint(model.twin(), read_blueprint(spec), tmp_path / "c")
        read_blueprint(str(tmp_path / "c")).load()
    model = make(tiny(), scale=10.0, bias=-10.0)
    save_checkpoint(model.twin(), read_blueprint(tiny()), tmp_path / "d")
    again = make(str(tmp_path / "d"), scale=20.0, bias=-20.0)
    assert float(again.temperature.bias.detach()) == -10
    assert float(again.temperature.scale.detach()) == pytest.approx(10)


def test_a_state_of_another_model_is_refused(tiny, tiny_clip):
    with pytest.raises(TrainingError, match="of another model"):
        make(tiny()).load_state(make(tiny_clip).state())
