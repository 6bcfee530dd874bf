"""Print the recall of an encoder on a source, captions as texts; by default `lite` on the test split.

python scripts/bench_recall.py [SOURCE] [--encoder lite] [--backend auto] [--dtype float32]
                                [--calibrate-on sample:train]
"""

import argparse

import numpy as np

from crossmodal.encoders import load_encoder
from crossmodal.encoders.calibration import choose_pictures
from crossmodal.encoders.runtime import DTYPES
from crossmodal.metrics.retrieval import evaluate_retrieval
from crossmodal.sources import open_source


def main() -> None:
    """Embed, rank and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", nargs="?", default="sample:test")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--calibrate-on", default="sample:train", help="pictures for int8")
    options = parser.parse_args()

    pictures = choose_pictures(open_source(options.calibrate_on)) if options.dtype == "int8" else None
    encoder = load_encoder(
        options.encoder, backend=options.backend, dtype=options.dtype, calibration=pictures
    )
    records = [record for record in open_source(options.source) if record.captions]
    texts = [caption for record in records for caption in record.captions]
    image_of_text = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
    images = encoder.encode_images(record.image for record in records)
    report = evaluate_retrieval(images, encoder.encode_texts(texts), image_of_text).to_dict()
    print(f"{options.encoder} ({encoder.card.backend}, {encoder.card.dtype}) on {options.source}: ", end="")
    print(f"{len(records)} pictures, {len(texts)} texts")
    for way in ("text_to_image", "image_to_text"):
        figures = ", ".join(f"R@{k} {report[way][f'recall@{k}']:.3f}" for k in (1, 5, 10))
        print(f"  {way.replace('_', ' '):16}{figures}")


if __name__ == "__main__":
    main()
