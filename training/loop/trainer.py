"""The loop: steps, validation, what is kept, and when to stop."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from crossmodal.encoders.blueprint import Blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from training.data.batches import Batch
from training.loop.averages import Averages
from training.loop.diary import Diary
from training.loop.embedding import Embedder
from training.loop.folder import RunFolder
from training.loop.mining import Miner
from training.loop.settings import RunSettings
from training.loop.signals import Listener, Stopped
from training.loop.state import Progress, Saved, moments, restore_moments, write_state
from training.loop.step import Stepper, Taken
from training.loop.supply import Supply, moved
from training.loop.validation import validate
from training.model.trainable import Trainable
from training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a run stands, for whoever watches: ``pairs`` a second, and rSum where validation has just been."""

    step: int
    steps: int
    loss: float
    pairs_per_second: float
    rsum: float | None = None

    @property
    def note(self) -> str:
        """Say it in a few words."""
        best = "" if self.rsum is None else f", best rSum {self.rsum:.1f}"
        return f"{self.pairs_per_second:,.0f} pairs/s, loss {self.loss:.3f}{best}"


class Memory(Protocol):
    """A part of training that remembers something from step to step."""

    def state(self) -> dict[str, Tensor]:
        """Give all that is remembered, as tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


class Trainer:
    """Runs a recipe from wherever it stands to its end.

    Only the main process validates, saves and logs; the others wait for what it decides.

    :param embedder: of the examples for validation.
    :param memories: what else remembers something from step to step, by name.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        folder: RunFolder,
        blueprint: Blueprint,
        model: Trainable,
        stepper: Stepper,
        supply: Supply,
        embedder: Embedder | None,
        averages: Averages,
        miner: Miner,
        accelerator: Accelerator,
        memories: Mapping[str, Memory],
        diary: Diary,
        watch: Callable[[Standing], None],
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.blueprint = blueprint
        self.model = model
        self.stepper = stepper
        self.supply = supply
        self.embedder = embedder
        self.averages = averages
        self.miner = miner
        self.accelerator = accelerator
        self.memories: dict[str, Memory] = {"averages": averages, "mined": miner, **memories}
        self.diary = diary
        self.watch = watch
        self.progress = Progress()
        self._began = 0.0
        self._before = 0.0
        self._seen = 0

    def restore(self, saved: Saved) -> None:
        """Stand where a saved run stood.

        :raises TrainingError: when the state is of another model.
        """
        self.model.load_state(saved.part("model"))
        restore_moments(self.model, self.stepper.optimiser, saved.part("optimiser"))
        for name, memory in self.memories.items():
            memory.load_state(saved.part(name))
        self.progress = saved.progress
        self.progress.finished &= self.progress.step >= self.stepper.total

    def run(self) -> Progress:
        """Train to the end, or until validation has not become better for long enough.

        :raises TrainingError: when a loss is no number; the last checkpoint stays as it was.
        :raises StorageError: when the disk refuses; checkpoints that were there stay.
        :raises Stopped: when a signal asked for it; what was learnt is saved.
        """
        self._began, self._before = time.monotonic(), self.progress.seconds
        self.model.train()
        self.diary.open(self.progress.step or -1)  # at the very beginning nothing that was written counts
        if self.progress.step == 0:
            self._validate()
        with Listener() as listener:
            for batches in self._remaining():
                taken = self.stepper.take(self.progress.step, batches)
                self.progress.step += 1
                self.averages.after_step()
                self._note(taken, batches)
                if self._due(self.settings.validate_every):
                    self._validate()
                stop = listener.agreed(self.accelerator)
                if stop or self._due(self.settings.save_every or self.settings.validate_every):
                    self._save_last()
                if stop:
                    kept = f"{self.progress.step:,} of {self.stepper.total:,} steps are kept"
                    raise Stopped(f"{kept}; run the same command with --resume to go on", stop)
        self._finish()
        return self.progress

    @property
    def settings(self) -> RunSettings:
        """How long to train, and when to look."""
        return self.recipe.run

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return self.supply.steps // self.settings.accumulate

    def _remaining(self) -> Iterator[list[Batch]]:
        """Give what each step that is left learns from; newly mined negatives join from their step on."""
        each, patience = self.settings.accumulate, self.settings.patience
        batches: Iterator[Batch] | None = None
        while self.progress.step < self.stepper.total and not (patience and self.progress.stale >= patience):
            epoch, step = divmod(self.progress.step, self.steps_per_epoch)
            if self.miner.mine(self.progress.step) or batches is None or step == 0:
                self.supply.negatives = self.miner.negatives
                batches = self.supply.batches(epoch, step * each)
            yield [moved(next(batches), self.accelerator.device) for _ in range(each)]

    def _due(self, every: int) -> bool:
        """Tell whether something is to be done after this step: every so many, or with 0 once an epoch."""
        step = self.progress.step
        return step % (every or self.steps_per_epoch) == 0 or step == self.stepper.total

    def _validate(self) -> None:
        """Measure what the averages make of the model, and keep it if it is the best so far."""
        if self.accelerator.is_main_process:
            self.averages.keep(self.progress.step)
        with self.averages.applied():
            self.progress.stale = 0 if self._measure() else self.progress.stale + 1

    def _measure(self, what: str = "") -> bool:
        """Measure the model as it stands, and tell whether it was kept as the best; unmeasured, it is."""
        rsum = None
        if self.embedder is not None:
            if self.accelerator.is_main_process:
                validated = validate(self.embedder, self.model, self.accelerator)
                rsum = validated.report.rsum
                self.diary.write(self.progress.step, validated.figures() | ({"of": what} if what else {}))
                if self._is_better(rsum):
                    self.diary.best(validated)
            [rsum] = broadcast_object_list([rsum])
        better = self._is_better(rsum)
        if better:
            self.progress.best, self.progress.best_step = rsum, self.progress.step
            if self.accelerator.is_main_process:
                save_checkpoint(self.model.twin(), self.blueprint, self.folder.best)
        self.accelerator.wait_for_everyone()
        return better

    def _is_better(self, rsum: float | None) -> bool:
        return rsum is None or self.progress.best is None or rsum > self.progress.best

    def _finish(self) -> None:
        """Try what may be better than the last weights, and save the state of the finished run."""
        if self.embedder is not None and not self.progress.finished:
            for what in self.averages.candidates(self.progress.step):
                self._measure(what)
        self.progress.finished = True
        self._save_last()

    def _save_last(self) -> None:
        """Save what it takes to go on, at once or not at all, and write the report of it."""
        self.progress.seconds = self._before + time.monotonic() - self._began
        self.diary.report(self.progress, self.blueprint.name)
        if self.accelerator.is_main_process:
            parts = {
                "model": self.model.state(),
                "optimiser": moments(self.model, self.stepper.optimiser),
                **{name: memory.state() for name, memory in self.memories.items()},
            }
            save_checkpoint(
                self.model.twin(),
                self.blueprint,
                self.folder.last,
                also=lambda folder: write_state(
                    folder,
                    progress=self.progress,
                    recipe=self.recipe.to_dict(),
                    encoder={"name": self.blueprint.name, "fingerprint": self.blueprint.fingerprint},
                    processes=self.accelerator.num_processes,
                    parts=parts,
                ),
            )
        self.accelerator.wait_for_everyone()

    def _note(self, taken: Taken, batches: list[Batch]) -> None:
        """Log a step, and tell whoever watches."""
        self._seen += sum(len(batch.images) for batch in batches) * self.accelerator.num_processes
        figures = {"loss": taken.loss, "gradient": taken.gradient, "scale": taken.scale, "rate": taken.rate}
        self.diary.write(self.progress.step, figures)
        if self.accelerator.is_main_process:
            pace = self._seen / (time.monotonic() - self._began)
            step, steps, best = self.progress.step, self.stepper.total, self.progress.best
            self.watch(Standing(step=step, steps=steps, loss=taken.loss, pairs_per_second=pace, rsum=best))
