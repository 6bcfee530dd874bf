"""The towers of `lite` in torch: EfficientNet-Lite0 and all-MiniLM-L6-v2, frozen, under small heads of ours.

The image head starts from what the image tower already knows: its ImageNet class probabilities weight the
text embeddings of the class names, and that mixture is an image embedding in the text tower's own space. A
trained correction, drawn from the features of every depth of the tower, is added. The text head is a trained
residual.

Only plain operations, so that OpenVINO converts both towers with a dynamic batch and length.
"""

import json

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.lite import weights
from crossmodal.encoders.lite.settings import DIM, FAR, TRUST

CLASSES = 1000
STAGES = (16, 24, 40, 80, 112, 192, 320)
LAST = 1280
FEATURES = sum(STAGES) + LAST


class ImageBackbone(nn.Module):
    """EfficientNet-Lite0 with its ImageNet classifier (Tan and Le 2019, https://arxiv.org/abs/1905.11946)."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models import create_model

        self.net = create_model("tf_efficientnet_lite0", pretrained=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 pixels (B, H, W, 3) to features (B, FEATURES) and ImageNet logits (B, CLASSES).

        The features are the means over the picture of each stage and of the last layer.
        """
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # mean and std are 0.5
        x = self.net.bn1(self.net.conv_stem(x))
        means = []
        for stage in self.net.blocks:
            x = stage(x)
            means.append(x.mean((2, 3)))
        x = self.net.bn2(self.net.conv_head(x))
        mean = x.mean((2, 3))
        return torch.cat([*means, mean], dim=1), self.net.classifier(mean)


class ImageHead(nn.Module):
    """Label mapping plus a trained correction: features and logits to an embedding (B, DIM)."""

    class_texts: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("class_texts", torch.zeros(CLASSES, DIM))
        self.register_buffer("centre", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        self.widen = nn.Linear(FEATURES, hidden)
        self.drop = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, DIM)

    def correct(self, features: Tensor) -> Tensor:
        """Give the trained correction (B, DIM)."""
        steps = ((features - self.centre) / self.spread).clamp(-FAR, FAR)
        correction: Tensor = self.narrow(self.drop(functional.gelu(self.widen(steps))))
        return correction

    def add(self, correction: Tensor, logits: Tensor, trust: float = TRUST) -> Tensor:
        """Add a correction to the label mapping: embeddings (B, DIM), L2-normalised."""
        chances = logits.softmax(1)
        doubt = 1.0 - trust * chances.amax(1, keepdim=True)
        return functional.normalize(chances @ self.class_texts + doubt * correction, dim=1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Give embeddings (B, DIM), L2-normalised."""
        return self.add(self.correct(features), logits)


class LiteImageTower(nn.Module):
    """Pictures to embeddings: the backbone under the image head."""

    def __init__(self, backbone: ImageBackbone, head: ImageHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to float32 (B, DIM), L2-normalised."""
        embeddings: Tensor = self.head(*self.backbone(pixels))
        return embeddings


class TextBackbone(nn.Module):
    """all-MiniLM-L6-v2 with its mean pooling (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084)."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.net = BertModel(BertConfig(**config), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 ids and mask (B, T) to sentence embeddings (B, DIM), L2-normalised."""
        states = self.net(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=1)


class TextHead(nn.Module):
    """A trained residual on the sentence embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Linear(DIM, DIM)

    def forward(self, sentences: Tensor) -> Tensor:
        """Map sentence embeddings (B, DIM) to embeddings (B, DIM), L2-normalised."""
        return functional.normalize(sentences + self.shift(sentences), dim=1)


class LiteTextTower(nn.Module):
    """Texts to embeddings: the backbone under the text head."""

    def __init__(self, backbone: TextBackbone, head: TextHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 ids and mask (B, T) to float32 (B, DIM), L2-normalised."""
        embeddings: Tensor = self.head(self.backbone(input_ids, attention_mask))
        return embeddings


def build_image_backbone() -> ImageBackbone:
    """Load EfficientNet-Lite0 with the weights of its package, whose names differ but whose order is ours."""
    backbone = ImageBackbone()
    loaded = torch.load(weights.image_weights(), map_location="cpu", weights_only=True)
    names = backbone.net.state_dict().keys()
    assert len(names) == len(loaded), f"{len(loaded)} tensors for {len(names)} names"
    backbone.net.load_state_dict(dict(zip(names, loaded.values(), strict=True)))
    return backbone.eval()


def build_text_backbone() -> TextBackbone:
    """Load all-MiniLM-L6-v2 without its pooler, which sentence embeddings do not use."""
    folder = weights.text_folder()
    backbone = TextBackbone(json.loads((folder / "config.json").read_text()))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        wanted = {name: file.get_tensor(name) for name in backbone.net.state_dict()}
    backbone.net.load_state_dict(wanted)
    return backbone.eval()


def build_image_tower(heads_sha256: str | None = None) -> LiteImageTower:
    """Build the image tower with its pretrained weights and our head, ready to run."""
    return LiteImageTower(build_image_backbone(), load_heads(weights.read_heads(heads_sha256))[0]).eval()


def build_text_tower(heads_sha256: str | None = None) -> LiteTextTower:
    """Build the text tower with its pretrained weights and our head, ready to run."""
    return LiteTextTower(build_text_backbone(), load_heads(weights.read_heads(heads_sha256))[1]).eval()


def load_heads(content: bytes) -> tuple[ImageHead, TextHead]:
    """Read both heads from the content of their file, which holds them in float16."""
    state = {name: tensor.float() for name, tensor in load(content).items()}
    image, text = ImageHead(hidden=len(state["image.widen.bias"])), TextHead()
    for prefix, head in (("image.", image), ("text.", text)):
        head.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return image.eval(), text.eval()
