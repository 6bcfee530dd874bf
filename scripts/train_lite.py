"""Train the projection heads of the encoder `lite`, and print their recall on the bundled sample.

python scripts/train_lite.py [--choose] [--seed 0] [--cache FOLDER] [--output FILE]

Both towers stay frozen: `lite_features.py` runs every picture and text through them once, and what is
trained are small heads over that (`lite_training.py`). The pairs (`lite_pairs.py`) are the training and
validation splits of the sample with their titles, descriptions and keywords, and emoji as several designers
drew them with their names and keywords; npm fetches the emoji the first time, and resvg draws some of them
(pip install resvg_py). With --choose, validation is left out of training and measured,
in parts and whole, and test is not looked at.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lite_features import PINNED, embed_classes, embed_texts, kept, pinned, see
from lite_pairs import Pair, emoji_pairs, sample_pairs
from lite_training import PairSet, look, merge, origins, train
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from crossmodal.encoders.lite import model, weights
from crossmodal.encoders.lite.settings import NETS
from crossmodal.encoders.runtime.cache import cache_root
from crossmodal.metrics.retrieval import evaluate_retrieval


@dataclass(frozen=True, slots=True)
class Way:
    """A way from what the nets saw, and from sentence embeddings, to embeddings in one space."""

    name: str
    show: Callable[[Mapping[str, Tensor]], Tensor]
    say: Callable[[Tensor], Tensor]


def label_mapping(classes: Tensor) -> Way:
    """Start: the mean class probabilities of the nets mix the texts of the classes."""

    def show(seen: Mapping[str, Tensor]) -> Tensor:
        chances = torch.stack([one[:, -model.CLASSES :].softmax(1) for one in seen.values()]).mean(0)
        return functional.normalize(chances @ classes, dim=1)

    return Way("label mapping", show, lambda texts: texts)


def whole(name: str, twin: model.LiteTwin) -> Way:
    """End: the twin as it is."""
    return Way(
        name, lambda seen: twin.project_image(torch.cat(list(seen.values()), dim=1)), twin.project_text
    )


def parts(twin: model.LiteTwin) -> list[Way]:
    """Give what lies between: each net by itself, and both, with nothing taken off."""
    bare = deepcopy(twin)
    bare.image.head.origin.zero_()
    bare.text.head.origin.zero_()
    alone = [Way(f"{net} alone", partial(_alone, bare, net), bare.project_text) for net in NETS]
    return [*alone, whole("both nets", bare)]


def _alone(twin: model.LiteTwin, net: str, seen: Mapping[str, Tensor]) -> Tensor:
    shown: Tensor = twin.image.head.parts[net](seen[net])
    return shown


@torch.no_grad()
def recall(pairs: Sequence[Pair], way: Way, cache: Path) -> str:
    """Give R@1, R@5 and R@10 both ways with titles as texts."""
    images, titles = [pair.image for pair in pairs], [pair.texts[0][1] for pair in pairs]
    plain = {net: kept(cache, "plain", pinned(net), images, partial(see, net, images, 1)) for net in NETS}
    texts = kept(cache, "titles", PINNED, [title.encode() for title in titles], lambda: embed_texts(titles))
    shown = way.show({net: views[:, 0] for net, views in plain.items()})
    report = evaluate_retrieval(shown.numpy(), way.say(texts).numpy(), np.arange(len(pairs)))
    ways = (report.text_to_image, report.image_to_text)
    return "   ".join(" ".join(f"{way.to_dict()[f'recall@{k}']:.3f}" for k in (1, 5, 10)) for way in ways)


def save(state: dict[str, Tensor], path: Path, recipe: dict[str, object]) -> None:
    """Write what was trained as float16 with the recipe that made it."""
    tensors = {name: tensor.half().contiguous() for name, tensor in state.items()}
    facts = {"recipe": json.dumps(recipe), "made_by": "scripts/train_lite.py", "torch": torch.__version__}
    save_file(tensors, path, facts)


def main() -> None:
    """Train, merge, write and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first pair of heads")
    parser.add_argument("--members", type=int, default=5, help="pairs of heads that are merged, for each net")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--choose", action="store_true", help="leave the validation split out of training")
    parser.add_argument("--cache", type=Path, default=cache_root() / "train_lite")
    parser.add_argument("--output", type=Path, help="what ships; with --choose, a file in the cache")
    options = parser.parse_args()
    aside = options.cache / "chosen.safetensors"
    options.output = options.output or (aside if options.choose else weights.heads_file())

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
    seeds = range(options.seed, options.seed + options.members)
    members = {net: [train(corpus, net, classes, seed=seed, **chosen) for seed in seeds] for net in NETS}
    state = merge(members)
    save(state, options.output, recipe)
    twin = model.load_twin(options.output.read_bytes())
    save(state | origins(twin, corpus, len(drawings)), options.output, recipe)
    twin = model.load_twin(options.output.read_bytes())
    print(f"{options.output.stat().st_size / 1e6:.1f} MB in {options.output}")
    print(f"{'R@1, R@5, R@10':33}text to image       image to text")
    split, between = ("validation", parts(twin)) if options.choose else ("test", [])
    pairs = sample_pairs(split)
    for way in (label_mapping(classes), *between, whole("lite", twin)):
        print(f"{split:12}{len(pairs):4}  {way.name:14} {recall(pairs, way, options.cache)}")


if __name__ == "__main__":
    main()
