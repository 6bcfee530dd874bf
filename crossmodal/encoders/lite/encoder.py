"""The encoder `lite`, put together: towers and tokenizer on a backend. Torch comes only to build a tower."""

from functools import partial
from typing import TYPE_CHECKING

from crossmodal.encoders.blueprint import fingerprint
from crossmodal.encoders.lite import settings, weights
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.runtime import InputSpec, Tower, Way, run_tower
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.encoders.twin import TwinEncoder

if TYPE_CHECKING:
    from torch import nn

TOKENS = InputSpec("int64", (None, None))
PIXELS = InputSpec("uint8", (None, settings.IMAGE_SIZE, settings.IMAGE_SIZE, 3))


def load_lite(way: Way) -> TwinEncoder:
    """Make the encoder `lite`. Weights are read, and checked, when a tower is first needed."""
    preprocessing = Preprocessing(
        size=settings.IMAGE_SIZE,
        fit=settings.FIT,
        resample=settings.RESAMPLE,
        crop_fraction=settings.CROP_FRACTION,
    )
    heads = weights.heads_sha256()
    identity = lite_fingerprint(preprocessing, heads)
    tower = partial(Tower, encoder="lite", fingerprint=identity, dim=settings.DIM)
    image_tower = tower(modality="image", inputs=(PIXELS,), build=partial(_build_image_tower, heads))
    text_tower = tower(modality="text", inputs=(TOKENS, TOKENS), build=partial(_build_text_tower, heads))
    return TwinEncoder(
        name="lite",
        fingerprint=identity,
        preprocessing=preprocessing,
        tokenizer=Tokenizer(weights.tokenizer_file, settings.TEXT_LIMIT),
        image_tower=run_tower(image_tower, way),
        text_tower=run_tower(text_tower, way),
        batch_size=way.batch_size,
    )


def lite_fingerprint(preprocessing: Preprocessing, heads_sha256: str) -> str:
    """Fingerprint `lite` from the checksums of its weights and all else that its embeddings depend on."""
    return fingerprint(
        architecture=settings.ARCHITECTURE,
        image_weights=weights.IMAGE_SHA256,
        text_weights=weights.TEXT_SHA256,
        heads=heads_sha256,
        trust=settings.TRUST,
        far=settings.FAR,
        preprocessing=preprocessing.to_dict(),
        text_limit=settings.TEXT_LIMIT,
    )


def _build_image_tower(heads_sha256: str) -> "nn.Module":
    from crossmodal.encoders.lite.model import build_image_tower

    return build_image_tower(heads_sha256)


def _build_text_tower(heads_sha256: str) -> "nn.Module":
    from crossmodal.encoders.lite.model import build_text_tower

    return build_text_tower(heads_sha256)
