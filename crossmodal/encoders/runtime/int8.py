"""Towers in int8: NNCF's quantisation after training, calibrated on pictures of the user's own.

It is NNCF's, and runs in OpenVINO; NNCF is wanted only to quantise, once, and not to run what is quantised.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from crossmodal.encoders.runtime.silent_openvino import ov
from crossmodal.errors import MissingPackageError

RECIPE = (
    "nncf, mixed; neither first nor last nor depthwise convolutions, of products the weights; "
    "transformers smoothed by a half, 3"
)
"""Names how towers are quantised; whatever changes the result for the same pictures changes the number."""

SMOOTHING = 0.5
"""How much of a transformer's outliers moves from activations into weights, as SmoothQuant's authors have it
(Xiao et al. 2023, https://arxiv.org/abs/2211.10438); NNCF's own 0.95 loses more where there are none."""

CONVOLUTIONS = ("Convolution", "GroupConvolution")

SPARED = ["MatMul", "Softmax", "ReduceMean", "Add", "Subtract", "Multiply", "Divide"]
"""What else is computed in float32 there: all that is no convolution, near the end."""


def nncf_version() -> str:
    """Give the version of NNCF, which is not imported for that: it takes seconds.

    :raises MissingPackageError: when it is not installed.
    """
    try:
        return version("nncf")
    except PackageNotFoundError:
        raise MissingPackageError(
            "To quantise a tower to int8 needs the package nncf: pip install 'crossmodal-retrieval[int8]'"
        ) from None


def quantise(model: ov.Model, pixels: NDArray[Any], *, transformer: bool) -> ov.Model:
    """Quantise a converted image tower.

    :param pixels: the pictures it is calibrated on, uint8 (N, H, W, 3).
    :param transformer: whether its work is attention; NNCF then smooths activations and spares norms.
    """
    with _quiet():
        import nncf  # after silent_openvino, which keeps what reports its use out of NNCF, too
    from openvino._offline_transformations import apply_moc_transformations

    # Norms must be folded into the convolutions before them, or each adds its own error.
    apply_moc_transformations(model, cf=False, smart_reshape=False)
    spared = nncf.IgnoredScope(names=_spared(model), types=SPARED, validate=False)
    with _quiet():
        quantised = nncf.quantize(
            model,
            nncf.Dataset([picture[None] for picture in pixels]),
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=None if transformer else spared,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
            ),
        )
        return quantised if transformer else _small_products(quantised)


def _small_products(model: ov.Model) -> ov.Model:
    """Keep the weights of products in int8, to be widened as they are read; all else stays as it is.

    Heads may have more weights than the convolutions under them, and each picture reads them all: in float32
    that took a quarter of the time of `lite`.
    """
    import nncf

    convolutions = nncf.IgnoredScope(types=list(CONVOLUTIONS), validate=False)
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=convolutions)


def _spared(model: ov.Model) -> list[str]:
    """Name the convolutions that lose most by few levels: the first, the last, and those of one channel each.

    What the last one gives is what heads were trained on. Those of one channel have few weights, and ranges
    that differ widely once norms are folded into them.
    """
    convolutions = [op for op in model.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]
    depthwise = [op for op in convolutions[1:] if op.get_type_name() == "GroupConvolution"]
    return [op.get_friendly_name() for op in (*convolutions[:1], *depthwise, *convolutions[-1:])]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log and bars off stdout, where a command's own answer goes, and torch's log off stderr."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
