"""Write the tree of files in docs/architecture.md, each with the first line of its own docstring.

python scripts/draw_tree.py [--check]
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
FOLDERS = ("crossmodal", "training", "serving", "ui", "scripts")
BEGIN, END = "<!-- tree -->\n", "<!-- /tree -->\n"


def main() -> None:
    """Draw the tree, or say that it is not the one in the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the tree is not true")
    check = parser.parse_args().check
    text = DOCUMENT.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    drawn = f"{head}{BEGIN}```\n{''.join(draw(ROOT / name) for name in FOLDERS)}```\n{END}{tail}"
    if drawn == text:
        return
    if check:
        sys.exit(f"The tree in {DOCUMENT.relative_to(ROOT)} is not true; run: python scripts/draw_tree.py")
    DOCUMENT.write_text(drawn)


def draw(folder: Path, depth: int = 0) -> str:
    """Give one folder and all below it, a line each."""
    package = folder / "__init__.py"
    lines = [line(folder.name + "/", summary(package) if package.exists() else "", depth)]
    files = sorted(p for p in folder.glob("*.py") if p.name != "__init__.py")
    lines += [line(path.name, summary(path), depth + 1) for path in files]
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and any(p.glob("*.py")))
    return "".join(lines + [draw(path, depth + 1) for path in inner])


def line(name: str, words: str, depth: int) -> str:
    """Give one line of the tree."""
    return f"{'  ' * depth + name:32}{words}".rstrip() + "\n"


def summary(path: Path) -> str:
    """Give the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


if __name__ == "__main__":
    main()
