"""The examples of a split, ready to be drawn and embedded: as pictures, or as features of frozen towers."""

from dataclasses import dataclass, replace

from crossmodal.encoders.blueprint import Blueprint
from training.data.batches import BatchLoader, FeatureLoader
from training.data.examples import Examples
from training.data.features import features_of
from training.loop.embedding import Embedder
from training.loop.supply import Loader
from training.model.trainable import Trainable
from training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Examples, what loads batches of them, and what embeds them all."""

    examples: Examples
    loader: Loader
    embedder: Embedder


def prepare_split(
    examples: Examples, model: Trainable, blueprint: Blueprint, recipe: Recipe, *, plain: bool = False
) -> Split:
    """Make a split ready; where both towers are frozen they are run now, or were at another time.

    :param plain: see each picture as it is only, for nothing is learnt from it.
    """
    seed, augment = recipe.run.seed, recipe.augment
    if not model.splits:
        loader = BatchLoader(
            examples, blueprint.preprocessing, blueprint.tokenizer, augment=augment, seed=seed
        )
        return Split(examples=examples, loader=loader, embedder=Embedder(examples, blueprint))
    settings = replace(recipe.features, views=1) if plain else recipe.features
    features = features_of(examples, model.twin(), blueprint, settings=settings, augment=augment, seed=seed)
    first = features.images[:, 0], features.texts
    return Split(
        examples=features.examples,
        loader=FeatureLoader(features.examples, features.images, features.texts, seed=seed),
        embedder=Embedder(features.examples, blueprint, first),
    )
