"""Miniatures of COCO and Flickr30K in the layout of their published files, and embeddings by their ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 50), "blue": (30, 60, 220), "yellow": (240, 220, 40)}
SPLITS = {"train": 3, "restval": 2, "val": 4, "test": 6}


def caption(colour: str, number: int, place: int) -> str:
    return f"picture {number} is {colour}, said {place} times"


def write_picture(path: Path, number: int) -> str:
    colour = list(COLOURS)[number % len(COLOURS)]
    picture = Image.new("RGB", (32, 24), COLOURS[colour])
    picture.putpixel((number % 32, number % 24), (number * 7 % 256, number * 13 % 256, 200))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return colour


@pytest.fixture
def karpathy(tmp_path: Path) -> Callable[..., str]:
    """Write ``dataset_coco.json`` or ``dataset_flickr30k.json`` with its pictures, and give the spec."""

    def make(name: str, splits: dict[str, int] = SPLITS, captions: int = 5) -> str:
        entries: list[dict[str, Any]] = []
        for split, count in splits.items():
            for _ in range(count):
                i = len(entries)
                coco = name == "coco"
                folder = "val2014" if split != "train" else "train2014"
                filename = f"COCO_{folder}_{i + 1:012}.jpg" if coco else f"{1000092795 + i}.jpg"
                colour = write_picture(tmp_path / "images" / (folder if coco else "") / filename, i)
                sentences = [
                    {"tokens": [], "raw": caption(colour, i, j), "imgid": i, "sentid": 10 * i + j}
                    for j in range(captions)
                ]
                entry = {
                    "sentids": [sentence["sentid"] for sentence in sentences],
                    "imgid": i,
                    "sentences": sentences,
                    "split": split,
                    "filename": filename,
                }
                entries.append({**entry, "filepath": folder, "cocoid": i + 1} if coco else entry)
        path = tmp_path / f"dataset_{name}.json"
        path.write_text(json.dumps({"images": entries, "dataset": name}))
        return f"karpathy:{path}?images={tmp_path / 'images'}"

    return make


@pytest.fixture
def write_npz(tmp_path: Path) -> Callable[..., Path]:
    """Write embeddings of so many pictures, some captions each, that lean to their pictures."""

    def make(captions: list[int], dim: int = 16, noise: float = 1.0, **more: np.ndarray) -> Path:
        rng = np.random.default_rng(len(captions))
        images = rng.standard_normal((len(captions), dim)).astype(np.float32)
        owner = np.repeat(np.arange(len(captions)), captions)
        texts = images[owner] + noise * rng.standard_normal((len(owner), dim)).astype(np.float32)
        path = tmp_path / "embeddings.npz"
        np.savez(path, image_embeddings=images, text_embeddings=texts, image_of_text=owner, **more)
        return path

    return make
