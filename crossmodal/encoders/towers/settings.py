"""The names that specs and checkpoints use for what the sides of a twin are made of. No torch."""

IMAGE_POOLS = ("native", "cls", "mean", "generalised")
"""How an image model's features become one: as timm's own model does it, or by a pooling of ours."""

TEXT_POOLS = ("cls", "mean", "generalised")
HEADS = ("linear", "mlp")
