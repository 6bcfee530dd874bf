"""Published results to stand beside our own: zero-shot and fine-tuned twin encoders on Flickr30K and COCO."""

from collections.abc import Mapping
from dataclasses import dataclass

KS = (1, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a paper or its authors' tables report: recalls in percent, by direction and k."""

    name: str
    recalls: Mapping[str, Mapping[int, float]]


def references(protocol: str) -> list[Reference]:
    """Give what was published for a protocol, by its name; nothing for most."""
    return [
        Reference(name=name, recalls={"image_to_text": _by_k(to_text), "text_to_image": _by_k(to_image)})
        for name, (to_text, to_image) in _PUBLISHED.get(protocol, {}).items()
    ]


def _by_k(recalls: tuple[float, ...]) -> dict[int, float]:
    return dict(zip(KS, recalls, strict=False))


_Recalls = tuple[float, ...]
"""At 1, 5 and 10, or at 1 alone."""

_PUBLISHED: dict[str, dict[str, tuple[_Recalls, _Recalls]]] = {
    "flickr30k-1k": {
        "VSE++ ResNet, fine-tuned": ((52.9, 80.5, 87.2), (39.6, 70.1, 79.5)),
        "SCAN, ensemble": ((67.4, 90.3, 95.8), (48.6, 77.7, 85.2)),
        "VSE-inf WSL, ensemble": ((88.7, 98.9, 99.8), (76.1, 94.5, 97.1)),
        "CLIP B/32, zero-shot": ((78.9, 94.9, 98.2), (58.8, 83.6, 90.0)),
        "CLIP L/14@336, zero-shot": ((87.7, 98.5, 99.4), (66.9, 89.0, 93.3)),
        "LAION-2B B/32, zero-shot": ((84.1, 96.2, 98.3), (66.8, 88.4, 93.1)),
        "MobileCLIP2-S0, zero-shot": ((86.6, 97.2, 98.9), (69.2, 89.9, 94.0)),
        "SigLIP B/16-224, zero-shot": ((89.1, 98.0, 99.3), (74.7, 92.3, 95.6)),
        "SigLIP SO400M-384, zero-shot": ((94.3, 99.7, 99.8), (83.0, 96.1, 98.0)),
        "BEiT-3 large, fine-tuned": ((97.2,), (88.1,)),
    },
    "coco-5k": {
        "VSE++ ResNet, fine-tuned": ((41.3, 71.1, 81.2), (30.3, 59.4, 72.4)),
        "SCAN, ensemble": ((50.4, 82.2, 90.0), (38.6, 69.3, 80.4)),
        "VSE-inf WSL, ensemble": ((68.1, 90.2, 95.2), (52.7, 80.2, 88.3)),
        "CLIP B/32, zero-shot": ((50.1, 75.0, 83.5), (30.4, 55.9, 66.9)),
        "CLIP L/14@336, zero-shot": ((57.9, 81.2, 87.9), (37.1, 61.6, 71.5)),
        "LAION-2B B/32, zero-shot": ((56.3, 79.8, 87.1), (39.3, 65.4, 75.6)),
        "MobileCLIP2-S0, zero-shot": ((62.7, 83.9, 90.9), (43.7, 70.0, 79.4)),
        "SigLIP B/16-224, zero-shot": ((65.7, 85.4, 91.3), (47.8, 72.4, 81.0)),
        "SigLIP SO400M-384, zero-shot": ((72.4, 90.0, 94.5), (54.2, 76.8, 84.2)),
        "CLIP B/32, fine-tuned on COCO": ((62.2, 85.6, 91.7), (46.9, 74.9, 83.6)),
        "BEiT-3 large, fine-tuned": ((82.1,), (63.4,)),
    },
}
