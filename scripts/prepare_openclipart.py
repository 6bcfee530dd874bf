"""Make the bundled sample from OpenClipart 0.18, as Debian packages it.

    apt-get install openclipart-png openclipart-svg
    python scripts/prepare_openclipart.py

Each SVG carries title, description, keywords and author; its PNG twin is the picture. What is written: one
parquet file, sorted by split and key, with the columns key, split, image (WebP bytes), title, description,
keywords, author and category. The same packages and the same Pillow give the same bytes.

Every drawing left out is counted by its reason; ``--report FILE`` lists them one by one.
"""

import argparse
import hashlib
import io
import re
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from openclipart_metadata import Drawing, clean_title, is_caption, read_metadata, without_serials
from PIL import Image, features
from PIL import __version__ as pillow_version

DEBIAN_VERSION = "1:0.18+dfsg-19"
OUTPUT = Path(__file__).resolve().parents[1] / "crossmodal" / "sample" / "openclipart.parquet"

LONGER_SIDE = 256  # pixels, of what is kept
SMALLEST_SIDE = 24  # pixels; a drawing whose longer side has fewer shows nothing
FAINT = 16  # of 255: weaker paint or contrast than this is not seen
MAX_PIXELS = 100_000_000  # a PNG is decoded whole; above this it would take more than 400 MB
LOSSY_QUALITY = 85
MAX_SHARED = 4  # a title on more pictures than this names a series
SAME = 0.98  # correlation of two thumbnails above which equal titles make them one picture
KIN = 0.97  # correlation of two thumbnails above which they are kin, whatever their titles
TEST_ROWS, VALIDATION_ROWS = 500, 250
ROW_GROUP = 256
PUBLIC_DOMAIN = {
    "http://web.resource.org/cc/PublicDomain",
    "http://creativecommons.org/licenses/publicdomain/",
}
UNFIT = {"sexy lady", "stripper", "sunwheel"}  # the last is an emblem of the SS
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("description", pa.string(), nullable=False),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
        pa.field("author", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
    ]
)


@dataclass(slots=True)
class Ledger:
    """Which drawings were left out, and why."""

    left_out: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def leave_out(self, reason: str, key: str, detail: str = "") -> None:
        """Note one drawing under ``reason``."""
        self.left_out[reason].append((key, detail))


# ---- choosing ------------------------------------------------------------------------------------------


def read_archive(png: Path, svg: Path, ledger: Ledger) -> list[Drawing]:
    """Read the metadata of every drawing, in the order of their keys."""
    drawings = []
    for path in sorted(svg.rglob("*.svg")):
        if not path.is_file():  # a few folders are named like files
            continue
        key = path.relative_to(svg).as_posix().removesuffix(".svg")
        twin = png / f"{key}.png"
        if not twin.is_file():
            ledger.leave_out("no PNG twin", key)
            continue
        try:
            drawings.append(read_metadata(Drawing(key, path, twin)))
        except ElementTree.ParseError as error:
            ledger.leave_out("malformed XML", key, str(error))
    return drawings


def preference(drawing: Drawing) -> tuple[bool, int, str]:
    """Order copies of one drawing: a folder with a meaning first, then the most specific, then by name."""
    vague = drawing.key.startswith(("unsorted/", "special/"))
    return vague, -drawing.key.count("/"), drawing.key


def without_copies(drawings: list[Drawing], ledger: Ledger) -> list[Drawing]:
    """Keep one of the drawings that share their SVG or PNG: the archive files many under two folders."""
    seen: dict[bytes, str] = {}
    kept = []
    for drawing in sorted(drawings, key=preference):
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in (drawing.svg, drawing.png)]
        twin = next((seen[digest] for digest in digests if digest in seen), None)
        for digest in digests:
            seen.setdefault(digest, twin or drawing.key)
        if twin:
            ledger.leave_out("a copy filed under another folder", drawing.key, f"of {twin}")
        else:
            kept.append(drawing)
    return kept


def with_captions(drawings: list[Drawing], ledger: Ledger) -> list[Drawing]:
    """Keep the public-domain drawings whose cleaned title is a caption and not the name of a series."""
    free = []
    for drawing in drawings:
        if drawing.licence in PUBLIC_DOMAIN:
            free.append(replace(drawing, title=clean_title(drawing.title, drawing.author)))
        else:
            stated = f"states {drawing.licence}" if drawing.licence else "states none"
            ledger.leave_out("licence in the file is not public domain", drawing.key, stated)
    titles = without_serials([drawing.title for drawing in free])
    named = [replace(drawing, title=title) for drawing, title in zip(free, titles, strict=True)]
    uses = Counter(drawing.title.casefold() for drawing in named)
    kept = []
    for drawing in named:
        if not is_caption(drawing.title):
            ledger.leave_out("title says nothing", drawing.key, repr(drawing.title))
        elif drawing.title.casefold() in UNFIT:
            ledger.leave_out("not fit for a demonstration", drawing.key, drawing.title)
        elif uses[drawing.title.casefold()] > MAX_SHARED:
            ledger.leave_out("title names a series", drawing.key, drawing.title)
        else:
            kept.append(drawing)
    return kept


# ---- pictures ------------------------------------------------------------------------------------------


def small_picture(path: Path) -> Image.Image | str:
    """Give the picture on white, at most LONGER_SIDE pixels a side; or the reason why there is none.

    Many drawings are stamps on an empty page: the transparent margin is cut off. White paint stays, since a
    flag may end in a white stripe.
    """
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            return f"more than {MAX_PIXELS // 10**6} megapixels"
        rgba = opened.convert("RGBA")
    drawn = rgba.getchannel("A").point(lambda alpha: 255 if alpha >= FAINT else 0).getbbox()
    if drawn is None or max(drawn[2] - drawn[0], drawn[3] - drawn[1]) < SMALLEST_SIDE:
        return f"nothing drawn, or smaller than {SMALLEST_SIDE} pixels"
    rgba = rgba.crop(drawn)
    picture = Image.new("RGB", rgba.size, "white")
    picture.paste(rgba, mask=rgba)
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if np.ptp(np.asarray(picture), axis=(0, 1)).max() < FAINT:
        return "one colour all over"
    return picture


def compress(picture: Image.Image) -> bytes:
    """Give the picture as WebP: lossless where that is no larger, as it is for flat icons."""
    lossy, lossless = io.BytesIO(), io.BytesIO()
    picture.save(lossy, "WEBP", quality=LOSSY_QUALITY, method=6)
    picture.save(lossless, "WEBP", lossless=True, quality=50, method=4)
    return min(lossless.getvalue(), lossy.getvalue(), key=len)


def draw(drawings: list[Drawing], ledger: Ledger) -> dict[str, Image.Image]:
    """Decode every drawing; those without a usable picture are left out."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = None  # small_picture has its own limit, checked before anything is decoded
    pictures = {}
    with ThreadPoolExecutor() as pool:
        for drawing, picture in zip(
            drawings, pool.map(lambda d: small_picture(d.png), drawings), strict=True
        ):
            if isinstance(picture, str):
                ledger.leave_out(picture, drawing.key)
            else:
                pictures[drawing.key] = picture
    return pictures


def correlations(pictures: list[Image.Image]) -> np.ndarray:
    """Compare all pictures as 32 x 32 thumbnails, centred on a white square. Shape: (N, N)."""
    thumbnails = []
    for picture in pictures:
        side = max(picture.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        thumbnails.append(np.asarray(square.resize((32, 32), Image.Resampling.BOX), np.float64).ravel())
    rows = np.stack(thumbnails)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


# ---- splits --------------------------------------------------------------------------------------------


def without_doubles(
    drawings: list[Drawing], pictures: dict[str, Image.Image], ledger: Ledger
) -> tuple[list[Drawing], list[set[str]]]:
    """Leave out what is seen twice, and give the kin of each drawing that stays, itself included.

    Kin are alike as thumbnails, or their titles differ by case, numbers and remarks in brackets alone.
    """
    drawings = sorted((d for d in drawings if d.key in pictures), key=preference)
    likeness = correlations([pictures[drawing.key] for drawing in drawings])
    kept: list[int] = []
    for this, drawing in enumerate(drawings):
        for other in kept:
            same_title = drawing.title.casefold() == drawings[other].title.casefold()
            same_pixels = (
                likeness[this, other] > SAME and pictures[drawing.key] == pictures[drawings[other].key]
            )
            if same_pixels or (same_title and likeness[this, other] > SAME):
                ledger.leave_out("the same picture again", drawing.key, f"of {drawings[other].key}")
                break
        else:
            kept.append(this)
    stems = [re.findall(r"[^\W\d_]+", re.sub(r"\(.*?\)", " ", d.title.casefold())) for d in drawings]
    kin = [
        {drawings[j].key for j in kept if stems[i] == stems[j] or likeness[i, j] > KIN or i == j}
        for i in kept
    ]
    return [drawings[i] for i in kept], kin


def assign_splits(drawings: list[Drawing], kin: list[set[str]]) -> dict[str, str]:
    """Give each key its split, by the order of the keys' SHA-256.

    Only drawings without kin are tested on: their titles are their own, and nothing like them was trained on.
    """
    alone = [drawing.key for drawing, relatives in zip(drawings, kin, strict=True) if len(relatives) == 1]
    alone.sort(key=lambda key: hashlib.sha256(key.encode()).digest())
    splits = {drawing.key: "train" for drawing in drawings}
    splits |= dict.fromkeys(alone[:TEST_ROWS], "test")
    splits |= dict.fromkeys(alone[TEST_ROWS : TEST_ROWS + VALIDATION_ROWS], "validation")
    return splits


# ---- writing -------------------------------------------------------------------------------------------


def write(
    drawings: list[Drawing], pictures: dict[str, Image.Image], splits: dict[str, str], output: Path
) -> None:
    """Write the parquet file, sorted by split and key."""
    drawings = sorted(drawings, key=lambda drawing: (splits[drawing.key], drawing.key))
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda drawing: compress(pictures[drawing.key]), drawings))
    columns = {
        "key": [drawing.key for drawing in drawings],
        "split": [splits[drawing.key] for drawing in drawings],
        "image": images,
        "title": [drawing.title for drawing in drawings],
        "description": [drawing.description for drawing in drawings],
        "keywords": [list(drawing.keywords) for drawing in drawings],
        "author": [drawing.author for drawing in drawings],
        "category": [drawing.key.partition("/")[0] for drawing in drawings],
    }
    facts = {
        "source": f"Debian packages openclipart-png and openclipart-svg {DEBIAN_VERSION}",
        "licence": "public domain, as the metadata of every SVG kept here declares",
        "made_by": "scripts/prepare_openclipart.py",
        "made_with": f"Pillow {pillow_version}, libwebp {features.version('webp')}",
    }
    table = pa.table(columns, schema=SCHEMA.with_metadata(facts))
    compression = {name: "zstd" for name in SCHEMA.names if name != "keywords"}
    compression |= {"keywords.list.element": "zstd", "image": "none"}  # WebP does not shrink further
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table, output, row_group_size=ROW_GROUP, compression=compression, use_dictionary=["split", "category"]
    )


def main() -> None:
    """Make the sample and print what went into it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--png", type=Path, default=Path("/usr/share/openclipart/png"))
    parser.add_argument("--svg", type=Path, default=Path("/usr/share/openclipart/svg"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument(
        "--report", type=Path, help="write every drawing left out to this file, tab-separated"
    )
    options = parser.parse_args()
    for folder in (options.png, options.svg):
        if not folder.is_dir():
            parser.error(f"no folder {folder}; run: apt-get install openclipart-png openclipart-svg")

    ledger = Ledger()
    archive = read_archive(options.png, options.svg, ledger)
    captioned = with_captions(without_copies(archive, ledger), ledger)
    pictures = draw(captioned, ledger)
    drawings, kin = without_doubles(captioned, pictures, ledger)
    splits = assign_splits(drawings, kin)
    write(drawings, pictures, splits, options.output)

    print(f"{len(archive):6,}  drawings read")
    for reason, entries in sorted(ledger.left_out.items(), key=lambda item: -len(item[1])):
        print(f"{len(entries):6,}  left out: {reason}")
    for split, count in sorted(Counter(splits.values()).items()):
        print(f"{count:6,}  {split}")
    print(f"{options.output.stat().st_size / 1e6:6.2f}  MB in {options.output}")
    if options.report:
        lines = [
            f"{r}\t{key}\t{detail}\n"
            for r, entries in ledger.left_out.items()
            for key, detail in sorted(entries)
        ]
        options.report.write_text("".join(lines))


if __name__ == "__main__":
    main()
