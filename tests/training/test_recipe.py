"""Recipes: what is written comes back, what is not known is refused, and what was shipped can be read."""

import dataclasses
import tomllib

import pytest

from crossmodal.errors import TrainingError
from training.losses import make_loss
from training.recipe import Recipe, differences, known_recipes, read_recipe
from training.settings import flat, from_plain

SHIPPED = {"heads", "finetune", "lit", "lora", "scratch", "siglip", "vse++"}


def test_all_recipes_of_the_issue_are_shipped():
    assert set(known_recipes()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_is_read_and_comes_back_the_same_from_its_own_toml(name, tmp_path):
    recipe = read_recipe(name)
    make_loss(recipe.loss)
    file = tmp_path / "again.toml"
    file.write_text(recipe.to_toml())
    assert read_recipe(str(file)) == recipe
    assert tomllib.loads(recipe.to_toml()) == recipe.to_dict()


def test_every_value_is_printed():
    printed = {path for path, _ in flat(tomllib.loads(read_recipe("heads").to_toml()))}
    missing = {
        f"{table.name}.{field.name}"
        for table in dataclasses.fields(Recipe)
        for field in dataclasses.fields(getattr(read_recipe("heads"), table.name))
        if not dataclasses.is_dataclass(getattr(getattr(read_recipe("heads"), table.name), field.name))
    } - printed
    assert missing == {"model.scale", "model.bias", "optimiser.head_lr", "optimiser.temperature_lr"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimiser.lr=2e-5", 2e-5),
        ("optimiser.lr=1", 1.0),
        ("run.epochs=7", 7),
        ("optimiser.head_lr=none", None),
        ("optimiser.head_lr=1e-3", 1e-3),
        ("model.checkpointing=true", True),
        ("model.encoder=hf:some/where=1", "hf:some/where=1"),
        ("run.trackers=tensorboard, wandb", ("tensorboard", "wandb")),
        ("run.trackers=['wandb']", ("wandb",)),
        ("loss.weights=1,0.5", (1.0, 0.5)),
        ("model.lora.rank=4", 4),
    ],
)
def test_what_is_set_has_the_type_of_its_field(override, expected):
    sets = [override, "loss.kind=infonce+triplet"] if "weights" in override else [override]
    recipe = read_recipe("heads", sorted(sets, reverse=True))
    value: object = recipe
    for name in override.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lr=1",
            r"'optimizer.lr'. Did you mean 'optimiser.lr'\? Known: augment.crop, .*optimiser.lr",
        ),
        ("optimiser.lrr=1", r"Did you mean 'optimiser.lr'"),
        ("optimiser.lr=fast", "optimiser.lr is a number, got 'fast'"),
        ("run.epochs=1.5", "run.epochs is a whole number, got '1.5'"),
        ("run.epochs=0", "run: epochs is 1 or more, got 0"),
        ("model.checkpointing=yes", "model.checkpointing is true or false, got 'yes'"),
        ("run.precision=half", "Unknown run.precision 'half'.* Known: bfloat16, float32"),
        ("model.lora=3", "model.lora is a table of the recipe; set one of its keys: model.lora.rank"),
        ("run.epochs", "--set takes key=value, got 'run.epochs'"),
    ],
)
def test_what_cannot_be_set_is_answered_with_what_can(override, message):
    with pytest.raises(TrainingError, match=message):
        read_recipe("heads", [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[run]\nepoch = 3", "Unknown key in the recipe 'run.epoch'. Did you mean 'run.epochs'"),
        ("run = 3", "run is a table of the recipe, got 3"),
        ("[run]\nepochs = '3'", "run.epochs is a whole number, got '3'"),
        ("[run]\nepochs = true", "run.epochs is a whole number, got True"),
        ("[run]\ntrackers = 'wandb'", "run.trackers is a list, got 'wandb'"),
        ("[run\n", "is no TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_answered_in_one_line(content, message, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(TrainingError, match=message) as error:
        read_recipe(str(file))
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(TrainingError, match=r"Unknown recipe 'head'\. Did you mean 'heads'"):
        read_recipe("head")
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_recipe(str(tmp_path / "none.toml"))


def test_only_how_long_and_what_is_told_may_differ_when_a_run_goes_on():
    before = read_recipe("heads")
    assert differences(before, before) == []
    longer = read_recipe("heads", ["run.epochs=99", "run.trackers=wandb", "run.patience=2"])
    assert differences(before, longer) == []
    other = read_recipe("heads", ["optimiser.lr=0.5", "model.scale=3", "run.epochs=99"])
    rate = f"optimiser.lr: {before.optimiser.lr} -> 0.5"
    assert sorted(differences(before, other)) == ["model.scale: none -> 3.0", rate]


def test_a_whole_number_will_do_for_any_number():
    recipe = from_plain(Recipe, {"optimiser": {"lr": 1}})
    assert recipe.optimiser.lr == 1.0
    assert isinstance(recipe.optimiser.lr, float)
