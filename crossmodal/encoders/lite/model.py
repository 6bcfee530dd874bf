"""The towers of `lite` in torch: two EfficientNets and all-MiniLM-L6-v2, frozen, under small heads of ours.

The image head starts from what an image tower already knows: its ImageNet class probabilities weight the
text embeddings of the class names, and that mixture is an image embedding in the text tower's own space. A
trained correction, drawn from the features of every depth of the tower, is added. EfficientNet-Lite0 and
-Lite2 each have such a head, and the mean of both is the picture's embedding. The text head is a trained
residual. From both sides a part of what all of them have in common is taken off.

Only plain operations, so that OpenVINO converts both towers with a dynamic batch and length.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.lite import weights
from crossmodal.encoders.lite.settings import DIM, FAR, NETS, TEXT_CONFIG, TRUST

if TYPE_CHECKING:
    from timm.models import EfficientNet

CLASSES = 1000
FEATURES = {
    "lite0": sum((16, 24, 40, 80, 112, 192, 320, 1280)),
    "lite2": sum((16, 24, 48, 88, 120, 208, 352, 1280)),
}
"""Channels of all stages and of the last layer."""


class Eye(nn.Module):
    """One EfficientNet-Lite with its ImageNet classifier (Tan and Le 2019, https://arxiv.org/abs/1905.11946).

    :param side: of the square that it sees, in pixels.
    """

    def __init__(self, net: "EfficientNet", side: int) -> None:
        super().__init__()
        self.net = net
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W), from -1 to 1, to features and ImageNet logits: (B, features + CLASSES).

        The features are the means over the picture of each stage and of the last layer.
        """
        if images.shape[-1] != self.side:
            images = functional.interpolate(images, (self.side, self.side), mode="bilinear")
        x = self.net.bn1(self.net.conv_stem(images))
        means = []
        for stage in self.net.blocks:
            x = stage(x)
            means.append(x.mean((2, 3)))
        x = self.net.bn2(self.net.conv_head(x))
        mean = x.mean((2, 3))
        return torch.cat([*means, mean, self.net.classifier(mean)], dim=1)


class ImageBackbone(nn.Module):
    """All nets side by side over the same pixels.

    :param nets: by their names in ``settings.NETS``.
    """

    def __init__(self, nets: "Mapping[str, EfficientNet]") -> None:
        super().__init__()
        self.eyes = nn.ModuleDict({name: Eye(net, NETS[name]) for name, net in nets.items()})

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to what each net gives, side by side."""
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # mean and std are 0.5
        return torch.cat([eye(images) for eye in self.eyes.values()], dim=1)


class ImagePart(nn.Module):
    """Label mapping plus a trained correction, for one net: to an embedding (B, DIM).

    :param features: how many the net gives beside the logits.
    :param hidden: the width of the correction.
    :param trust: see ``settings.TRUST``.
    """

    class_texts: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, features: int, hidden: int, dropout: float = 0.0, trust: float = TRUST) -> None:
        super().__init__()
        self.trust = trust
        self.register_buffer("class_texts", torch.zeros(CLASSES, DIM))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.widen = nn.Linear(features, hidden)
        self.drop = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, DIM)

    def correct(self, features: Tensor) -> Tensor:
        """Map features (B, F) to the trained correction (B, DIM)."""
        steps = ((features - self.centre) / self.spread).clamp(-FAR, FAR)
        correction: Tensor = self.narrow(self.drop(functional.gelu(self.widen(steps))))
        return correction

    def add(self, correction: Tensor, logits: Tensor) -> Tensor:
        """Add a correction to the label mapping: embeddings (B, DIM), L2-normalised."""
        chances = logits.softmax(1)
        doubt = 1.0 - self.trust * chances.amax(1, keepdim=True)
        return functional.normalize(chances @ self.class_texts + doubt * correction, dim=1)

    def forward(self, seen: Tensor) -> Tensor:
        """Map what the net gives, (B, F + CLASSES), to embeddings (B, DIM), L2-normalised."""
        return self.add(self.correct(seen[:, :-CLASSES]), seen[:, -CLASSES:])


class ImageHead(nn.Module):
    """The mean of a part for each net, less what all pictures have in common.

    :param hidden: the width of each part, by the name of its net.
    """

    origin: Tensor

    def __init__(self, hidden: Mapping[str, int], trust: float = TRUST) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {name: ImagePart(FEATURES[name], width, trust=trust) for name, width in hidden.items()}
        )
        self.widths = [FEATURES[name] + CLASSES for name in hidden]
        self.register_buffer("origin", torch.zeros(DIM))

    def forward(self, seen: Tensor) -> Tensor:
        """Map what the backbone gives to embeddings (B, DIM), L2-normalised."""
        every = torch.split(seen, self.widths, dim=1)
        shown = torch.stack([part(one) for part, one in zip(self.parts.values(), every, strict=True)])
        return functional.normalize(functional.normalize(shown.sum(0), dim=1) - self.origin, dim=1)


class LiteImageTower(nn.Module):
    """Pictures to embeddings: the backbone under the image head."""

    def __init__(self, backbone: ImageBackbone, head: ImageHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to float32 (B, DIM), L2-normalised."""
        embeddings: Tensor = self.head(self.backbone(pixels))
        return embeddings


class TextBackbone(nn.Module):
    """all-MiniLM-L6-v2 with its mean pooling (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084)."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.net = BertModel(BertConfig(**TEXT_CONFIG), add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map int64 ids (B, T) to sentence embeddings (B, DIM), L2-normalised.

        :param mask: (B, T), 0 where there is padding behind the text; None: no padding.
        """
        seen = torch.ones_like(ids) if mask is None else mask
        states = self.net(input_ids=ids, attention_mask=seen).last_hidden_state
        weights = seen.unsqueeze(-1).to(states.dtype)
        return functional.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1.0), dim=1)


class TextHead(nn.Module):
    """A trained residual on the sentence embedding, less what all texts have in common."""

    origin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Linear(DIM, DIM)
        self.register_buffer("origin", torch.zeros(DIM))

    def forward(self, sentences: Tensor) -> Tensor:
        """Map sentence embeddings (B, DIM) to embeddings (B, DIM), L2-normalised."""
        shifted = functional.normalize(sentences + self.shift(sentences), dim=1)
        return functional.normalize(shifted - self.origin, dim=1)


class LiteTextTower(nn.Module):
    """Texts to embeddings: the backbone under the text head."""

    def __init__(self, backbone: TextBackbone, head: TextHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map int64 ids (B, T), and a mask where they are padded, to float32 (B, DIM), L2-normalised."""
        embeddings: Tensor = self.head(self.backbone(ids, mask))
        return embeddings


class LiteTwin(nn.Module):
    """Both towers and the temperature (``logit_scale``, a logarithm).

    What the backbones give (``image_features``, ``text_features``) is apart from what the heads make of it
    (``project_image``, ``project_text``): heads are trained on features that are computed once.

    :param hidden: the width of the image head's part for each net.
    """

    def __init__(
        self,
        nets: "Mapping[str, EfficientNet]",
        text: TextBackbone,
        hidden: Mapping[str, int],
        trust: float = TRUST,
    ) -> None:
        super().__init__()
        self.image = LiteImageTower(ImageBackbone(nets), ImageHead(hidden, trust))
        self.text = LiteTextTower(text, TextHead())
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Give what the image backbone makes of uint8 pixels (B, H, W, 3): logits and features (B, C)."""
        features: Tensor = self.image.backbone(pixels)
        return features

    def project_image(self, features: Tensor) -> Tensor:
        """Map what ``image_features`` gives to embeddings (B, DIM), rows L2-normalised."""
        embeddings: Tensor = self.image.head(features)
        return embeddings

    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give the sentence embeddings of int64 ids (B, T): (B, DIM)."""
        features: Tensor = self.text.backbone(ids, mask)
        return features

    def project_text(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map sentence embeddings to embeddings (B, DIM), rows L2-normalised; the mask has done its work."""
        embeddings: Tensor = self.text.head(features)
        return embeddings


def new_efficientnet(name: str) -> "EfficientNet":
    """Make an EfficientNet-Lite as timm builds it, without weights."""
    from timm.models import create_model

    net: EfficientNet = create_model(f"tf_efficientnet_{name}", pretrained=False)
    return net


def load_efficientnet(name: str) -> "EfficientNet":
    """Load an EfficientNet-Lite with the weights of its package: names differ, the order is timm's."""
    net = new_efficientnet(name)
    loaded = torch.load(weights.image_weights(name), map_location="cpu", weights_only=True)
    names = net.state_dict().keys()
    assert len(names) == len(loaded), f"{len(loaded)} tensors for {len(names)} names"
    net.load_state_dict(dict(zip(names, loaded.values(), strict=True)))
    return net.eval()


def load_text_backbone() -> TextBackbone:
    """Load all-MiniLM-L6-v2 without its pooler, which sentence embeddings do not use."""
    backbone = TextBackbone()
    with safe_open(weights.text_weights(), framework="pt") as file:
        wanted = {name: file.get_tensor(name) for name in backbone.net.state_dict()}
    backbone.net.load_state_dict(wanted)
    return backbone.eval()


def load_twin(heads: bytes) -> LiteTwin:
    """Load both towers with their pretrained weights under the heads of a file, ready to run.

    :param heads: the content of the file, which holds in float16 what was trained: both heads, and the
        temperature.
    """
    trained = {name: tensor.float() for name, tensor in load(heads).items()}
    hidden = {name: len(trained[f"image.head.parts.{name}.widen.bias"]) for name in NETS}
    twin = LiteTwin({name: load_efficientnet(name) for name in NETS}, load_text_backbone(), hidden)
    unfit = twin.load_state_dict(trained, strict=False)
    assert not unfit.unexpected_keys, unfit.unexpected_keys
    assert all("backbone" in name for name in unfit.missing_keys), unfit.missing_keys
    return twin.eval()
