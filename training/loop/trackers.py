"""Trackers of experiments, through Accelerate: TensorBoard, trackio and wandb, where they are installed."""

from importlib.util import find_spec

from crossmodal.errors import MissingPackageError, TrainingError, unknown

PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}
"""The package of each tracker."""


def check_trackers(names: tuple[str, ...]) -> list[str]:
    """Give the names of trackers, once they are known and installed.

    :raises TrainingError: when there is no such tracker.
    :raises MissingPackageError: when one is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise TrainingError(unknown("tracker", name, PACKAGES))
        if find_spec(PACKAGES[name]) is None:
            raise MissingPackageError(f"The tracker {name} is not installed: pip install {PACKAGES[name]}")
    return list(names)
