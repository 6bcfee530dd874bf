"""What `lite` is, in names and numbers. No torch: a text query needs these and no tower's code."""

from typing import Literal

ARCHITECTURE = "efficientnet-lite0 and -lite2 + all-MiniLM-L6-v2 + heads, 3"
"""Names the towers' code; whatever changes their embeddings for the same weights changes the number."""

NETS = {"lite0": 224, "lite2": 260}
"""The image tower's nets, and the side in pixels of what each of them sees."""
IMAGE_SIZE = 260
FIT: Literal["crop", "pad", "squash"] = "pad"
RESAMPLE: Literal["bicubic", "bilinear"] = "bicubic"
CROP_FRACTION = 1.0
TEXT_LIMIT = 256  # tokens, as all-MiniLM-L6-v2's authors cut them
DIM = 384
TEXT_CONFIG = {
    "hidden_size": DIM,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "vocab_size": 30522,
}
"""What in the configuration of all-MiniLM-L6-v2 differs from transformers' BertConfig."""
TRUST = 0.8
"""What a certain classification takes off the correction, which was trained on drawings: on a photograph that
the image tower knows, the label mapping leads."""
FAR = 8.0
"""Features farther from what was seen in training, in standard deviations, count as that far."""
