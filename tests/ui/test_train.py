"""``crossmodal train``: what it prints, how it ends, and what it leaves for the other commands."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from training.__main__ import main as launched

SETS = ("--set", "batch.size=8", "--set", "run.epochs=2", "--set", "batch.apart=false")


@pytest.fixture
def pairs(tmp_path, make_picture):
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 6):
        picture = make_picture(tmp_path / "pictures" / f"{number}.png", colour, number)
        rows.append({"image": str(picture), "caption": f"a {colour} picture {number}", "key": f"k{number}"})
    table = tmp_path / "pairs.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    return table


def test_a_recipe_is_printed_whole_and_nothing_is_done(run, tmp_path):
    done = run("train", "--recipe", "vse++", "--set", "optimiser.lr=3e-5", "--print")
    assert done.exit_code == 0
    file = tmp_path / "r.toml"
    file.write_text(done.stdout)
    assert run("train", "--recipe", file, "--print").stdout == done.stdout
    assert "lr = 3e-05" in done.stdout
    assert 'kind = "triplet"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "optimizer.lr=1"), "Did you mean 'optimiser.lr'"),
        (("--recipe", "head"), "Did you mean 'heads'"),
        (("--caption-column", "titel"), "titel"),
        (("--set", "batch.size=900"), "A batch of 900"),
        (("--recipe", "finetune", "--set", "model.encoder="), "names no encoder"),
        (("--resume",), "holds no run to resume"),
    ],
)
def test_what_the_user_can_mend_ends_in_one_line_and_2(arguments, message, run, pairs, tmp_path):
    done = run("train", pairs, "--output", tmp_path / "a", *arguments)
    assert done.exit_code == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("crossmodal")]
    assert message in line


def test_without_a_source_it_says_what_it_needs(run):
    done = run("train")
    assert done.exit_code == 2
    assert "needs a SOURCE of pairs and --output DIR" in done.stderr


@pytest.mark.slow
def test_what_is_trained_indexes_and_answers(run, pairs, tmp_path):
    done = run("train", pairs, "--output", tmp_path / "a", *SETS, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["steps"] == 2 * 2
    assert told["best"] == str(tmp_path / "a" / "best")
    indexed = run("index", pairs, tmp_path / "c", "--encoder", told["best"], "--json")
    assert json.loads(indexed.stdout)["added"] == 24
    found = json.loads(run("search", tmp_path / "c", "--text", "a red picture", "--json").stdout)
    assert len(found["hits"]) == 10


def test_the_module_does_the_same_as_the_command(pairs, tmp_path, capsys):
    arguments = [str(pairs), "--output", str(tmp_path / "a"), *SETS]
    assert launched([*arguments, "--set", "run.epoch=1"]) == 2
    assert "Did you mean 'run.epochs'" in capsys.readouterr().err
    assert launched(arguments) == 0
    assert "rSum" in capsys.readouterr().out


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(pairs, tmp_path):
    command = [sys.executable, "-m", "ui.cli", "train", str(pairs), "--output", str(tmp_path / "a"), *SETS]
    one = {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--set", "run.epochs=100000"], env=os.environ | one, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "a" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "steps are kept; run the same command with --resume to go on" in errors.splitlines()[-1]
    assert (tmp_path / "a" / "last" / "trainer.safetensors").exists()


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_the_earlier_checkpoint_is_whole(pairs, tmp_path):
    """The limit on a file's size stands for a full disk: the system refuses a write in the middle."""
    command = [sys.executable, "-m", "ui.cli", "train", str(pairs), "--output", str(tmp_path / "a"), *SETS]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "a" / "last").iterdir()}
    limit = 1_000_000
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    limited += (
        f"import sys; sys.argv = {['crossmodal', *command[3:], '--resume', '--set', 'run.epochs=4']!r}\n"
    )
    limited += "from ui.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "larger than this system allows" in done.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in (tmp_path / "a" / "last").iterdir()} == before
