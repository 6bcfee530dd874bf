"""The folder of a run: its recipe, its best and its last checkpoint, and what is told of it."""

from pathlib import Path

from crossmodal.errors import TrainingError
from crossmodal.refusals import storage_errors
from training.loop.state import Saved, has_state, read_state
from training.recipe import Recipe, differences
from training.settings import from_plain

RECIPE = "recipe.toml"
BEST = "best"
LAST = "last"
METRICS = "metrics.jsonl"
REPORT = "report.html"
SNAPSHOTS = "snapshots"


class RunFolder:
    """Where a run writes.

    ``best`` is the checkpoint that validation found best, ``last`` the one to go on from.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.best = self.path / BEST
        self.last = self.path / LAST
        self.metrics = self.path / METRICS
        self.report = self.path / REPORT
        self.snapshots = self.path / SNAPSHOTS

    def refuse_if_used(self) -> None:
        """Make sure that nothing lies in the folder.

        :raises TrainingError: otherwise.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} is a file; choose a folder for the run")
        if self.path.is_dir() and any(self.path.iterdir()):
            has = "holds a run; go on with --resume" if (self.path / RECIPE).exists() else "is not empty"
            raise TrainingError(f"{self.path} {has}, or choose a new folder")

    def go_on(self, recipe: Recipe) -> Saved | None:
        """Give the state of the run that lies here, or None where it was not yet saved.

        :raises TrainingError: when there is no run, or it has another recipe; what differs is listed.
        """
        if not (self.path / RECIPE).is_file():
            raise TrainingError(f"{self.path} holds no run to resume; leave --resume out to begin one")
        if not has_state(self.last):
            return None
        saved = read_state(self.last)
        if changed := differences(from_plain(Recipe, saved.recipe), recipe):
            raise TrainingError(
                f"{self.path} was begun with another recipe ({'; '.join(changed)}). "
                f"Resume with {self.path / RECIPE}, or begin in a new folder"
            )
        return saved

    def begin(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in it.

        :raises StorageError: when the disk refuses.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RECIPE).write_text(recipe.to_toml())
