"""From a source of pairs and a recipe to a trained encoder in a folder."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from crossmodal.encoders import read_blueprint
from crossmodal.encoders.blueprint import Blueprint
from crossmodal.errors import TrainingError
from crossmodal.sources import open_source
from training.data.check import Checked, check_examples
from training.data.examples import Examples, read_examples
from training.data.plan import BatchPlan
from training.loop.averages import Averages
from training.loop.diary import Diary
from training.loop.embedding import Embedder
from training.loop.folder import RunFolder
from training.loop.mining import Miner
from training.loop.objective import Objective
from training.loop.split import prepare_split
from training.loop.state import Saved
from training.loop.step import Stepper
from training.loop.supply import Supply
from training.loop.trackers import check_trackers
from training.loop.trainer import Standing, Trainer
from training.losses import make_loss
from training.model.parameter_groups import make_optimiser
from training.model.trainable import Trainable, make_trainable
from training.negatives.ignored import IgnoredPairs
from training.negatives.near_duplicates import near_duplicates
from training.negatives.queues import PairQueues
from training.recipe import Recipe

PATIENCE = timedelta(hours=2)
"""So long the other processes wait while the first one validates and saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a training: where the best model is, at which step it was found, and its rSum."""

    best: str
    steps: int
    best_step: int
    rsum: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values for JSON."""
        return asdict(self)

    def line(self) -> str:
        """Say it in a line."""
        measured = "without validation" if self.rsum is None else f"rSum {self.rsum:.1f} on validation"
        return (
            f"{self.best}: {measured}, from step {self.best_step:,} of {self.steps:,}, {self.seconds:,.0f} s"
        )


def train(
    source: str,
    output: Path,
    recipe: Recipe,
    *,
    validation: str | None = None,
    resume: bool = False,
    columns: Mapping[str, str | None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    watch: Callable[[Standing], None] = lambda standing: None,
) -> Outcome:
    """Train an encoder on pairs; the model that validation found best is in ``output/best``.

    :param validation: the source that is measured on; a share of the training groups where left out.
    :param resume: go on where the run in ``output`` stopped, with the same result as if it never had.
    :param columns: names of columns, as ``open_source`` takes them.
    :param tell: is given lines about the data and the run.
    :param watch: is called after each step.
    :raises TrainingError: when the recipe does not fit the data, the model or the run in ``output``; or when
        a loss is no number, and then the last checkpoint stays as it was.
    :raises CrossmodalError: when source, encoder or disk refuse.
    :raises Stopped: on Ctrl-C or SIGTERM; the state is saved.
    """
    folder = RunFolder(output)
    saved = None
    if resume:
        saved = folder.go_on(recipe)
    else:
        folder.refuse_if_used()
    accelerator = _accelerator(recipe, output)
    if not recipe.model.encoder:
        raise TrainingError(
            "The recipe names no encoder to start from; add --set model.encoder=SPEC, such as "
            "towers:efficientnet_lite0+minilm, open_clip:ViT-B-32/FILE or hf:REPO"
        )
    blueprint = read_blueprint(recipe.model.encoder)
    if saved is not None:
        _refuse_other_run(saved, blueprint, accelerator)
    pairs = _read_pairs(source, validation, columns or {}, recipe, blueprint)
    if accelerator.is_main_process:
        for line in pairs.check.lines():
            tell(line)
    trainer = _prepare(recipe, folder, blueprint, pairs, accelerator, watch)
    if saved is not None:
        trainer.restore(saved)
    if accelerator.is_main_process:
        folder.begin(recipe)
    progress = trainer.run()
    accelerator.end_training()
    return Outcome(
        best=str(folder.best),
        steps=progress.step,
        best_step=progress.best_step,
        rsum=progress.best,
        seconds=round(progress.seconds, 1),
    )


def _accelerator(recipe: Recipe, output: Path) -> Accelerator:
    trackers = check_trackers(recipe.run.trackers)
    AcceleratorState._reset_state()  # it is one for a process, which may train twice, in another precision
    return Accelerator(
        mixed_precision="bf16" if recipe.run.precision == "bfloat16" else "no",
        log_with=trackers or None,
        project_dir=output if trackers else None,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def _refuse_other_run(saved: Saved, blueprint: Blueprint, accelerator: Accelerator) -> None:
    """Refuse to go on from another encoder than the run began with, or on another number of processes.

    :raises TrainingError: so.
    """
    if saved.encoder["fingerprint"] != blueprint.fingerprint:
        raise TrainingError(
            f"The encoder {blueprint.name} is not what this run began with: its files have changed. "
            "Bring them back, or begin in a new folder"
        )
    if saved.processes != accelerator.num_processes:
        raise TrainingError(
            f"The run was on {saved.processes} processes, and now there are {accelerator.num_processes}; "
            "chance falls otherwise there. Resume on as many, or begin in a new folder"
        )


def _read_pairs(
    source: str,
    validation: str | None,
    columns: Mapping[str, str | None],
    recipe: Recipe,
    blueprint: Blueprint,
) -> Checked:
    """Read and check the pairs; without a source for validation, hold a share of the groups out for it."""
    training = read_examples(open_source(source, **columns))
    theirs = None if validation is None else read_examples(open_source(validation, **columns))
    checked = check_examples(training, theirs, settings=recipe.check, tokenizer=blueprint.tokenizer)
    if validation is not None or not recipe.run.held_out:
        return checked
    left, held = hold_out(checked.training, recipe.run.held_out, recipe.run.seed)
    return replace(checked, training=left, validation=held)


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Split examples by their groups, so that no group is on both sides.

    :raises TrainingError: when a side would be empty.
    """
    groups = np.unique(examples.groups)
    count = round(share * len(groups))
    if not 0 < count < len(groups):
        raise TrainingError(
            f"{share:.0%} of {len(groups)} groups cannot be held out for validation; "
            "give --validation SOURCE, or set run.held_out to 0 to train without"
        )
    held = np.isin(examples.groups, np.random.default_rng(seed).permutation(groups)[:count])
    return examples.take(np.flatnonzero(~held)), examples.take(np.flatnonzero(held))


def _prepare(
    recipe: Recipe,
    folder: RunFolder,
    blueprint: Blueprint,
    pairs: Checked,
    accelerator: Accelerator,
    watch: Callable[[Standing], None],
) -> Trainer:
    """Put a trainer together, as it stands before the first step."""
    run = recipe.run
    torch.manual_seed(run.seed)  # adapters, and weights from scratch, begin by chance
    model = make_trainable(blueprint, recipe.model).to(accelerator.device)
    training = prepare_split(pairs.training, model, blueprint, recipe)
    validation = None
    if pairs.validation is not None:
        validation = prepare_split(pairs.validation, model, blueprint, recipe, plain=True).embedder
    plan = BatchPlan(
        training.examples,
        recipe.batch,
        seed=run.seed,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    ignored = _ignored(training.embedder, model, recipe, accelerator)
    queues = None
    if recipe.queue.size:
        queues = PairQueues(recipe.queue, blueprint.dim, accelerator.device, mask=ignored.mask)
    stepper = Stepper(
        model,
        Objective(make_loss(recipe.loss), model, ignored, queues, accelerator),
        make_optimiser(model, recipe.optimiser),
        recipe.optimiser,
        accelerator=accelerator,
        total=run.epochs * (plan.steps // run.accumulate),
        keys=training.examples.keys,
        seed=run.seed,
        chunk=run.chunk,
        most_scale=recipe.loss.max_scale,
    )
    return Trainer(
        recipe=recipe,
        folder=folder,
        blueprint=blueprint,
        model=model,
        stepper=stepper,
        supply=Supply(plan, training.loader),
        embedder=validation,
        averages=Averages(model, recipe.averaging, folder.snapshots),
        miner=Miner(model, training.embedder, recipe.mining, accelerator),
        accelerator=accelerator,
        memories={} if queues is None else {"queues": queues},
        diary=Diary(folder, recipe, pairs.check, validation, accelerator),
        watch=watch,
    )


def _ignored(embedder: Embedder, model: Trainable, recipe: Recipe, accelerator: Accelerator) -> IgnoredPairs:
    """Find which pairs are no negatives: with equal captions, and where it is asked for of alike pictures."""
    threshold = recipe.negatives.near_duplicates
    if not threshold:
        return IgnoredPairs(embedder.examples)
    images, _ = embedder(model, accelerator)
    return IgnoredPairs(embedder.examples, near_duplicates(images, threshold))
