"""The npm packages that `train_lite.py` draws its emoji and icons from: fetched once, and checked."""

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIDE = 256
"""Pixels of a drawn icon: what the sample's drawings measure at most."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package as npm names it, its checksum, and where in it pictures lie."""

    spec: str
    sha256: str
    pictures: str = ""

    @property
    def file(self) -> str:
        """Name the archive that ``npm pack`` writes."""
        return self.spec.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"


def contents(folder: Path, package: Package) -> dict[str, bytes]:
    """Give a package's pictures and JSON files; it is fetched into ``folder`` unless it is there."""
    path = folder / package.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", package.spec], cwd=folder, check=True)
    packed = path.read_bytes()
    seen = hashlib.sha256(packed).hexdigest()
    if seen != package.sha256:
        raise SystemExit(f"{path} has sha256 {seen}, expected {package.sha256}. Delete it and run again.")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            wanted = entry.name.endswith(".json") or (
                package.pictures and entry.name.startswith(package.pictures)
            )
            file = archive.extractfile(entry) if wanted and entry.isfile() else None
            if file is not None:
                files[entry.name] = file.read()
    return files


def icons(folder: Path, package: Package) -> dict[str, bytes]:
    """Give the SVGs of an icon set in Iconify's JSON format by their names, but for hidden ones."""
    icon_set: dict[str, Any] = json.loads(contents(folder, package)["package/icons.json"])
    drawn = {}
    for name, icon in icon_set["icons"].items():
        if not icon.get("hidden"):
            left, top, width, height = (
                icon.get(key, icon_set.get(key, default))
                for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
            )
            drawn[name] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
                f"{icon['body']}</svg>"
            ).encode()
    return drawn


def draw_svg(svg: bytes) -> bytes:
    """Draw an SVG as PNG on white, ``SIDE`` pixels wide."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise SystemExit("Drawing icons needs resvg. Install it with: pip install resvg_py") from error
    return bytes(
        svg_to_bytes(svg_string=svg.decode(), width=SIDE, background="#ffffff", skip_system_fonts=True)
    )
