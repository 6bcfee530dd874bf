"""Losses over groups of pictures and texts, by name. A new one is a file here and a line in ``LOSSES``."""

from collections.abc import Callable

from crossmodal.errors import TrainingError, unknown
from training.losses.base import PairLoss, Relation, Temperature
from training.losses.infonce import InfoNce
from training.losses.settings import LossSettings
from training.losses.siglip import SigLip
from training.losses.triplet import Triplet
from training.losses.weighted import WeightedSum

__all__ = ["LOSSES", "LossSettings", "PairLoss", "Relation", "Temperature", "make_loss"]

LOSSES: dict[str, Callable[[LossSettings], PairLoss]] = {
    "infonce": InfoNce.from_settings,
    "siglip": SigLip.from_settings,
    "triplet": Triplet.from_settings,
}


def make_loss(settings: LossSettings) -> PairLoss:
    """Make the loss that settings name.

    :raises TrainingError: when there is none of that name.
    """
    for name in settings.kinds:
        if name not in LOSSES:
            raise TrainingError(unknown("loss", name, LOSSES))
    losses = [LOSSES[name](settings) for name in settings.kinds]
    weights = settings.weights or (1.0,) * len(losses)
    return losses[0] if weights == (1.0,) else WeightedSum(losses, weights)
