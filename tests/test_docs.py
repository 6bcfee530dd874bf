"""What the documents show is run: the README's Python, and the examples in docstrings."""

import doctest
import importlib
import importlib.metadata
import pkgutil
import re
from pathlib import Path

import pytest

import crossmodal
import ui

MODULES = [
    module.name
    for package in (crossmodal, ui)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


def readme() -> str:
    """The README beside the package in a checkout; of an installed wheel, its long description."""
    beside = Path(crossmodal.__file__).parents[1] / "README.md"
    if beside.exists():
        return beside.read_text()
    return str(importlib.metadata.metadata("crossmodal-retrieval").get_payload())


def test_the_python_of_the_readme_runs_and_finds_apples(tmp_path, monkeypatch, capsys):
    [block] = re.findall(r"```python\n(.*?)```", readme(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "500 added, 0 skipped"
    assert len(lines) == 1 + 3 + 3
    assert all(re.match(r"0\.\d\d  \S+  \S", line) for line in lines[1:])


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


def test_some_docstring_has_an_example():
    finder = doctest.DocTestFinder()
    examples = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert examples
