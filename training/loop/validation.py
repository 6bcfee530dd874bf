"""Validation: the real evaluation of retrieval, on what the model makes of pairs it does not learn from."""

from dataclasses import dataclass

from accelerate import Accelerator

from crossmodal.encoders.base import Embeddings
from crossmodal.metrics.retrieval import RetrievalReport, evaluate_retrieval
from training.data.examples import Integers
from training.loop.embedding import Embedder
from training.model.trainable import Trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """What validation found, and from what: (N, D), (M, D) and (M,), the picture of each caption."""

    report: RetrievalReport
    images: Embeddings
    texts: Embeddings
    image_of_text: Integers

    def figures(self) -> dict[str, float]:
        """Give rSum and the recalls, for a log."""
        both = {"text_to_image": self.report.text_to_image, "image_to_text": self.report.image_to_text}
        recalls = {
            f"{name}.recall@{k}": share for name, way in both.items() for k, share in way.recall.items()
        }
        return {"rsum": self.report.rsum, **recalls}


def validate(embedder: Embedder, model: Trainable, accelerator: Accelerator) -> Validated:
    """Measure a model on examples: every caption of every picture against all pictures, and back."""
    images, texts = embedder(model, accelerator)
    captions = embedder.examples.captions
    texts = texts[captions.values]
    report = evaluate_retrieval(images, texts, captions.owners)
    return Validated(report=report, images=images, texts=texts, image_of_text=captions.owners)
