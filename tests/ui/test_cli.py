"""The frame of the command line: what it offers, what it imports, and how it answers mistakes."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "pyarrow", "lance", "faiss", "openvino", "gradio", "datasets", "rich")

NOT_FOR_A_SEARCH = {"torch", "gradio", "datasets", "transformers", "timm", "rich.console"}


def refused(result, *wanted):
    """Check for exit code 2, nothing on stdout, and one line on stderr that holds what is wanted."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("crossmodal")
    for words in wanted:
        assert words in result.stderr


COMMANDS = [
    *("demo", "index", "search", "info", "remove", "verify"),
    *("evaluate", "compare", "convert", "train"),
]


def test_help_lists_the_commands_and_nothing_more(run):
    result = run("--help")
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.partition("Commands:\n")[2].splitlines() if line]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    result = run(command, "-h")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: crossmodal {command} ")


def test_without_a_command_the_help_is_shown(run):
    assert run().stdout == run("--help").stdout


def test_version_is_that_of_the_installed_package(run):
    version = importlib.metadata.version("crossmodal-retrieval")
    assert run("--version").stdout == f"crossmodal {version}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["index", "--help"], ["search", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom ui.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert ran.stderr.split() == []
    assert ran.stdout.startswith("Usage: ")


def test_an_unknown_command_is_answered_with_the_nearest_and_all(run):
    refused(
        run("serch"),
        "'serch'",
        "Did you mean 'search'?",
        "Known: " + ", ".join(sorted(COMMANDS)),
    )


def test_an_unknown_option_is_answered_with_the_nearest_and_all(run):
    refused(run("index", "a", "b", "--bach-size", "3"), "'--bach-size'", "'--batch-size'?", "--backend, ")


def test_an_unknown_value_is_answered_with_the_nearest_and_all(run):
    refused(run("search", "c", "--text", "x", "--to", "imag"), "--to", "Did you mean 'image'?", "image, text")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["index"], "SOURCE"),
        (["search"], "COLLECTION"),
        (["remove", "c"], "KEY"),
        (["search", "c", "--text", "x", "-k", "many"], "'many'"),
        (["index", "a", "b", "--batch-size", "0"], "0"),
        (["search", "c"], "--text, --image or --not-text"),
    ],
)
def test_what_is_missing_or_malformed_is_named_with_the_help_to_read(run, arguments, wanted):
    refused(run(*arguments), wanted, f"See: crossmodal {arguments[0]} --help")


@pytest.mark.parametrize(
    "arguments", [["search", "--text", "x"], ["info"], ["verify"], ["remove", "key"]], ids=lambda a: a[0]
)
def test_a_path_without_a_collection_is_refused(run, tmp_path, arguments):
    command, *rest = arguments
    refused(run(command, tmp_path / "none", *rest), "none", "crossmodal index")
    (tmp_path / "notes.txt").write_text("no collection")
    refused(run(command, tmp_path, *rest), str(tmp_path))


def imported(times: str) -> set[str]:
    """Give the modules that ``-X importtime`` reported."""
    lines = [line for line in times.splitlines() if line.startswith("import")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.slow
def test_a_text_query_of_lite_runs_without_torch(picture_folder, tmp_path):
    def crossmodal(*arguments, python=()):
        command = [sys.executable, *python, "-m", "ui.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    crossmodal("index", picture_folder, tmp_path / "c", "--backend", "openvino")
    query = ["search", tmp_path / "c", "--text", "a red picture", "--backend", "openvino", "--json"]
    ran = crossmodal(*query, python=("-X", "importtime"))
    assert json.loads(ran.stdout)["hits"]
    assert "openvino" in imported(ran.stderr)
    assert imported(ran.stderr).isdisjoint(NOT_FOR_A_SEARCH)
    assert crossmodal(*query).stderr == ""


def test_a_search_imports_only_what_a_search_needs(start, collection):
    arguments = ["search", collection.path, "--text", "red", "--json"]
    out, errors = start(*arguments, python=("-X", "importtime")).communicate()
    assert "lance" in imported(errors)
    assert "hits" in out
    assert imported(errors).isdisjoint(NOT_FOR_A_SEARCH)
