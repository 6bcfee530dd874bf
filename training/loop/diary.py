"""What a run tells of itself: ``metrics.jsonl``, the trackers that were named, and ``report.html``."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from training.data.facts import DataCheck
from training.loop.embedding import Embedder
from training.loop.folder import RunFolder
from training.loop.state import Progress
from training.loop.validation import Validated
from training.recipe import Recipe
from training.records.metrics_log import MetricsLog
from training.records.queries import image_to_text, text_to_image
from training.records.report import Report, write_report
from training.settings import flat


class Diary:
    """Writes it all; only the main process does.

    :param embedder: of the examples for validation, if there are any.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        check: DataCheck,
        embedder: Embedder | None,
        accelerator: Accelerator,
    ) -> None:
        self._folder = folder
        self._recipe = recipe
        self._check = check
        self._examples = None if embedder is None else embedder.examples
        self._accelerator = accelerator
        self._metrics = MetricsLog(folder.metrics)
        self._best: Validated | None = None

    def open(self, step: int) -> None:
        """Go on behind a step, without what was written of later ones.

        :raises StorageError: when the disk refuses.
        """
        if self._accelerator.is_main_process:
            self._metrics.cut_back(step)
        if self._recipe.run.trackers:
            self._accelerator.init_trackers("crossmodal", config=dict(flat(self._recipe.to_dict())))

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Note figures of a step.

        :raises StorageError: when the disk refuses.
        """
        if self._accelerator.is_main_process:
            self._metrics.write(step, figures)
        if self._recipe.run.trackers:
            self._accelerator.log(dict(figures), step=step)

    def best(self, validated: Validated) -> None:
        """Remember what the best validation saw, for the report."""
        self._best = validated

    def report(self, progress: Progress, encoder: str) -> None:
        """Write ``report.html``, whole or not at all.

        :raises StorageError: when the disk refuses.
        """
        if not self._accelerator.is_main_process:
            return
        seen, examples = self._best, self._examples
        shown = None if seen is None or examples is None else (examples, seen.images, seen.texts)
        write_report(
            Report(
                title=f"{self._folder.path.name}: {encoder}",
                metrics=self._metrics.read(),
                facts={
                    "encoder": encoder,
                    "steps": f"{progress.step:,}",
                    "seconds": f"{progress.seconds:,.0f}",
                },
                recipe=dict(flat(self._recipe.to_dict())),
                check=self._check.lines(),
                best_step=progress.best_step,
                examples=examples,
                text_to_image=None if shown is None else text_to_image(*shown),
                image_to_text=None if shown is None else image_to_text(*shown),
            ),
            self._folder.report,
        )
