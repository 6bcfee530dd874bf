"""What `lite` is, in names and numbers. No torch: a text query needs these and no tower's code."""

from typing import Literal

ARCHITECTURE = "efficientnet-lite0 + all-MiniLM-L6-v2 + heads, 2"
"""Names the towers' code; whatever changes their embeddings for the same weights changes the number."""

IMAGE_SIZE = 224
FIT: Literal["crop", "pad", "squash"] = "pad"
RESAMPLE: Literal["bicubic", "bilinear"] = "bicubic"
CROP_FRACTION = 1.0
TEXT_LIMIT = 256  # tokens, as all-MiniLM-L6-v2's authors cut them
DIM = 384
TRUST = 0.8
"""What a certain classification takes off the correction, which was trained on drawings: on a photograph that
the image tower knows, the label mapping leads."""
FAR = 8.0
"""Features farther from what was seen in training, in standard deviations, count as that far."""
