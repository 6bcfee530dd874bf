"""Models of transformers as two towers: loaded with all their weights, taken apart without copying any."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.blueprint import TwinModel
from crossmodal.encoders.hf.pixels import ProcessorPixels
from crossmodal.encoders.hf.quiet import quiet_transformers
from crossmodal.encoders.hf.repository import one_line
from crossmodal.encoders.hf.tokens import TokenSettings
from crossmodal.encoders.pixel_tower import PixelTower
from crossmodal.encoders.weights import load_weights, unfit
from crossmodal.errors import EncoderError

_IMAGE_PARTS = ("vision", "visual")
_TEXT_PARTS = ("text",)


class ImageFeatures(nn.Module):
    """The part of a model that pictures go through."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.part = _without(owner, _TEXT_PARTS)
        _pool_whole_pictures(self.part)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (B, 3, H, W) to features (B, D)."""
        return _features(self.part.get_image_features(pixel_values=pixels))


class TextTower(nn.Module):
    """The part of a model that texts go through, with what its tokenizer says about padding.

    :param tokens: whether texts come padded, and if so whether the model is told where.
    """

    def __init__(self, owner: nn.Module, tokens: TokenSettings) -> None:
        super().__init__()
        self.part = _without(owner, _IMAGE_PARTS)
        self.tokens = tokens

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, T), all real or padded to the full length, to (B, D), rows L2-normalised."""
        outputs = self.part.get_text_features(input_ids=ids, attention_mask=self._mask(ids))
        return functional.normalize(_features(outputs), dim=-1)

    def _mask(self, ids: Tensor) -> Tensor | None:
        """Mark what is no padding, where the model is to be told: at least one token of each text.

        Padding's id may occur inside a text, and some tokenizers end every text with it. Texts without
        padding get a mask as well, as processors give it: else OpenVINO goes wrong after a text of one token.
        Places are compared, not summed up from the end: OpenVINO reads a flip back from its cache as another.
        """
        if not self.tokens.padded:
            return torch.ones_like(ids)
        if not self.tokens.masked:
            return None
        length = ids.shape[1]
        place = torch.arange(length, device=ids.device)
        real = (ids != self.tokens.pad_id).long()
        if self.tokens.pad_side == "left":
            most = (real * (length - place)).amax(1, keepdim=True).clamp(min=1)
            return (place >= length - most).long()
        most = (real * (place + 1)).amax(1, keepdim=True) + int(self.tokens.ends_with_pad)
        return (place < most.clamp(min=1)).long()


def twin(owner: nn.Module, preprocessing: ProcessorPixels, tokens: TokenSettings) -> TwinModel:
    """Take a model apart into towers, which share its layers."""
    image = PixelTower(ImageFeatures(owner), preprocessing.mean, preprocessing.std)
    return TwinModel(owner=owner, image=image, text=TextTower(owner, tokens))


def load_pretrained(name: str, folder: Path) -> nn.Module:
    """Build a model from a folder of transformers, with its weights, in float32 and eval mode.

    :raises EncoderError: when the weights are torn, or do not fit the configuration.
    """
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # of whatever class: torn files, refused pickles, odd configurations
        raise EncoderError(
            f"{name}: its weights cannot be loaded ({one_line(error)}); fetch them again"
        ) from error
    missing = sorted(report["missing_keys"])
    mismatched = sorted(
        f"{key} {tuple(seen)} instead of {tuple(wanted)}" for key, seen, wanted in report["mismatched_keys"]
    )
    if missing or mismatched:
        raise unfit(name, missing=missing, reshaped=mismatched)
    for tensor in (*model.parameters(), *model.buffers()):
        # Off the file, where tensors lie as they come: sums over unaligned ones differ in their last bits.
        tensor.data = tensor.data.clone()
    return model.eval()  # type: ignore[no-any-return]  # transformers is not seen by mypy


def load_state(name: str, architecture: Mapping[str, Any], file: Path) -> nn.Module:
    """Build a model from its full configuration and a state dict in safetensors, in float32 and eval mode.

    :raises EncoderError: when the weights are torn, or do not fit the configuration.
    """
    model = _build(name, architecture)
    load_weights(model, file)
    return model.eval()


def _build(name: str, architecture: Mapping[str, Any]) -> nn.Module:
    """Build a model with weights of no account, in float32."""
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    try:
        with quiet_transformers(), no_init_weights():
            config = AutoConfig.for_model(**json.loads(json.dumps(dict(architecture))))
            return AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]
    except Exception as error:  # of whatever class transformers stumbles over an odd configuration
        raise EncoderError(f"{name}: its architecture cannot be built ({one_line(error)})") from error


def _without(owner: nn.Module, parts: tuple[str, ...]) -> Any:
    """Give the same model, of the same layers, without those whose names begin so."""
    part = copy.copy(owner)
    part._modules = {key: child for key, child in owner._modules.items() if not key.startswith(parts)}
    return part


def _pool_whole_pictures(part: Any) -> None:
    """Replace a pooling window larger than what it pools, which only torch runs, by one of that size."""
    vision = part.vision_model
    pooler = vision._modules.get("pooler")
    if isinstance(pooler, nn.AvgPool2d) and 2 * pooler.kernel_size >= vision.config.image_size:  # ALIGN's
        pooled = copy.copy(vision)  # the owner keeps its own
        pooled._modules = {**vision._modules, "pooler": nn.AdaptiveAvgPool2d(1)}
        part._modules["vision_model"] = pooled


def _features(outputs: Any) -> Tensor:
    """Give the features: newer versions of transformers return them among a tower's other outputs."""
    return outputs if isinstance(outputs, Tensor) else outputs.pooler_output
