"""Train the projection heads of the encoder `lite`, and print their recall on the bundled sample.

python scripts/train_lite.py [--choose] [--seed 0] [--cache FOLDER] [--output FILE]

Both towers stay frozen: `lite_features.py` runs every picture and text through them once, and what is
trained are small heads over that (`lite_training.py`). The pairs (`lite_pairs.py`) are the training and
validation splits of the sample with their titles, descriptions and keywords, and emoji as several designers
drew them with their names and keywords; npm fetches the emoji the first time. With --choose, validation is
left out of training and measured: so the recipe was chosen before the heads that ship were trained.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lite_features import embed_classes, embed_texts, kept, see
from lite_pairs import Pair, emoji_pairs, sample_pairs
from lite_training import Heads, PairSet, look, merge, train
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from crossmodal.encoders.lite import model, weights
from crossmodal.encoders.runtime.cache import cache_root
from crossmodal.metrics.retrieval import evaluate_retrieval


@torch.no_grad()
def recall(pairs: Sequence[Pair], heads: Heads | Tensor, cache: Path) -> str:
    """Give R@1, R@5 and R@10 both ways with titles as texts; of the bare label mapping, given class texts."""
    images, titles = [pair.image for pair in pairs], [pair.texts[0][1] for pair in pairs]
    seen = kept(cache, "plain", images, lambda: see(images, 1))[:, 0]
    texts = kept(cache, "titles", [title.encode() for title in titles], lambda: embed_texts(titles))
    features, logits = seen.split([model.FEATURES, model.CLASSES], dim=1)
    if isinstance(heads, Tensor):
        shown = functional.normalize(logits.softmax(1) @ heads, dim=1)
    else:
        shown, texts = heads[0](features, logits), heads[1](texts)
    report = evaluate_retrieval(shown.numpy(), texts.numpy(), np.arange(len(pairs)))
    ways = (report.text_to_image, report.image_to_text)
    return "   ".join(" ".join(f"{way.to_dict()[f'recall@{k}']:.3f}" for k in (1, 5, 10)) for way in ways)


def save(heads: Heads, path: Path, recipe: dict[str, object]) -> None:
    """Write both heads as float16 with the recipe that made them."""
    tensors = {
        f"{name}.{key}": value.half().contiguous()
        for name, head in zip(("image", "text"), heads, strict=True)
        for key, value in head.state_dict().items()
    }
    facts = {"recipe": json.dumps(recipe), "made_by": "scripts/train_lite.py", "torch": torch.__version__}
    save_file(tensors, path, facts)


def main() -> None:
    """Train, merge, write and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first pair of heads")
    parser.add_argument("--members", type=int, default=5, help="pairs of heads that are merged")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--choose", action="store_true", help="leave the validation split out of training")
    parser.add_argument("--cache", type=Path, default=cache_root() / "train_lite")
    parser.add_argument("--output", type=Path, default=weights.heads_file())
    options = parser.parse_args()

    drawings = sample_pairs("train") + ([] if options.choose else sample_pairs("validation"))
    sets = (
        PairSet(drawings, views=8, share=2.0),
        PairSet(emoji_pairs(options.cache), views=4, share=0.5),
    )
    corpus = look(sets, options.cache)
    classes = embed_classes()
    names = ("choose", "seed", "members", "hidden", "epochs", "batch")
    recipe = {name: getattr(options, name) for name in names}
    chosen = {name: recipe[name] for name in ("hidden", "epochs", "batch")}
    members = [train(corpus, classes, seed=options.seed + n, **chosen) for n in range(options.members)]
    save(merge(members), options.output, recipe)
    heads = model.load_heads(options.output.read_bytes())
    print(f"{options.output.stat().st_size / 1e6:.1f} MB in {options.output}")
    print(f"{'R@1, R@5, R@10':33}text to image       image to text")
    for split in ("validation", "test") if options.choose else ("test",):
        pairs = sample_pairs(split)
        for name, what in (("label mapping", classes), ("heads", heads)):
            print(f"{split:12}{len(pairs):4}  {name:14} {recall(pairs, what, options.cache)}")


if __name__ == "__main__":
    main()
