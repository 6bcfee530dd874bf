"""Training of twin encoders on pairs, through Accelerate."""

from training.loop.session import Outcome, train
from training.loop.signals import Stopped
from training.loop.trainer import Standing
from training.recipe import Recipe, read_recipe

__all__ = ["Outcome", "Recipe", "Standing", "Stopped", "read_recipe", "train"]
