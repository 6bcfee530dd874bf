"""Ten epochs of heads on features made once, against towers run again in each epoch, for `bench_training.py`.

The towers are those of `lite`, frozen in both; what is timed on the one side is one epoch as peers do it
(pictures decoded, both towers run by torch without a graph, heads trained), times ten; on the other side the
making of the features, from an empty cache, and ten epochs on them.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table

from crossmodal.encoders import read_blueprint
from crossmodal.sources import open_source
from training import read_recipe
from training.data.batches import BatchLoader, FeatureLoader
from training.data.examples import read_examples
from training.data.features import features_of
from training.data.plan import BatchPlan
from training.loop.objective import Objective
from training.loop.step import Stepper
from training.loop.supply import Loader
from training.losses import make_loss
from training.model.parameter_groups import make_optimiser
from training.model.trainable import make_trainable
from training.negatives.ignored import IgnoredPairs

TARGET = 20.0
EPOCHS = 10
SETS = ("batch.size=256", f"run.epochs={EPOCHS}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both ways, on the same pairs of the sample."""
    recipe = read_recipe("heads", SETS)
    blueprint = read_blueprint(recipe.model.encoder)
    examples = read_examples(open_source("sample:train")).take(range(options.pictures))
    model = make_trainable(blueprint, recipe.model)
    plan = BatchPlan(examples, recipe.batch, seed=0)

    def seconds_of(loader: Loader, epochs: int) -> float:
        accelerator = Accelerator(cpu=True)
        objective = Objective(make_loss(recipe.loss), model, IgnoredPairs(examples), None, accelerator)
        stepper = Stepper(
            *(model.train(), objective, make_optimiser(model, recipe.optimiser), recipe.optimiser),
            accelerator=accelerator,
            total=EPOCHS * plan.steps,
            keys=examples.keys,
            seed=0,
            chunk=0,
            most_scale=100.0,
        )
        began = time.perf_counter()
        for epoch in range(epochs):
            for batch in loader.load(plan.batches(epoch)):
                stepper.take(epoch * plan.steps + batch.step, [batch])
        return time.perf_counter() - began

    each = seconds_of(BatchLoader(examples, blueprint.preprocessing, blueprint.tokenizer), 1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        features = features_of(examples, model.twin(), blueprint, folder=Path(folder))
        encoding = time.perf_counter() - began
    cached = seconds_of(FeatureLoader(examples, features.images, features.texts), EPOCHS)
    ratio = EPOCHS * each / (encoding + cached)
    return {
        "pictures": len(examples),
        "towers_each_epoch_s": EPOCHS * each,
        "encoding_once_s": encoding,
        "epochs_on_features_s": cached,
        "ratio": ratio,
        "ratio_without_encoding": EPOCHS * each / cached,
        "met": ratio >= TARGET,
    }


def table(figures: dict[str, Any]) -> Table:
    """Lay the figures out."""
    title = f"{EPOCHS} epochs of heads: {figures['ratio']:.0f} times shorter"
    layout = Table(title=f"{title} (target: {TARGET:.0f} at least), {figures['pictures']:,} pictures")
    layout.add_column("")
    layout.add_column("seconds", justify="right")
    layout.add_row("towers run in each epoch (one measured)", f"{figures['towers_each_epoch_s']:.1f}")
    layout.add_row("features made once, from an empty cache", f"{figures['encoding_once_s']:.1f}")
    layout.add_row(f"{EPOCHS} epochs on them", f"{figures['epochs_on_features_s']:.2f}")
    return layout
