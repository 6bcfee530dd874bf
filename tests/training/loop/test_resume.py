"""A run that was stopped or killed and goes on ends as the one that never stopped: to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmodal.errors import TrainingError
from training import Stopped

EVERYTHING = (
    *("averaging.ema=0.9", "averaging.swa=2", "averaging.wise_ft=0.5", "queue.size=16", "mining.every=4"),
    *(
        "mining.depth=16",
        "run.chunk=3",
        "run.validate_every=2",
        "augment.crop=0.8",
        "augment.word_dropout=0.2",
    ),
    *("negatives.near_duplicates=0.99", "loss.kind=infonce+triplet", "loss.mean_hinge_steps=3"),
)
CASES = {
    "finetune": ("finetune", ()),
    "heads": ("heads", ("features.views=2", "augment.crop=0.8")),
    "everything": ("finetune", EVERYTHING),
    "every two batches": ("finetune", ("run.accumulate=2", "batch.size=4", "run.save_every=1")),
    "statistics of batch norms": ("finetune", ("model.batch_norm=train", "queue.size=8")),
    "adapters": ("lora", ("model.lora.rank=2",)),
}


class Killed(Exception):
    """Stands for the end of the process."""


def die_at(step):
    """Give a watcher that ends the run right after a step, where nothing is saved."""

    def watch(standing):
        if standing.step == step:
            raise Killed

    return watch


def state(folder):
    return load_file(folder / "last" / "trainer.safetensors")


def same(one, other):
    """Tell whether two runs ended alike: weights, optimiser, all that is remembered, and the best model."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    best, best_too = (load_file(folder / "best" / "model.safetensors") for folder in (one, other))
    return not different and all(torch.equal(best[name], best_too[name]) for name in best)


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_a_run_goes_on_to_the_same_weights(case, go, small, tiny, tmp_path, lines):
    name, sets = CASES[case]
    if case == "adapters":
        pytest.importorskip("peft")
    if case == "statistics of batch norms":
        sets = (*sets, f"model.encoder={tiny('test_efficientnet')}")
    recipe = small(name, *sets)
    whole = go("whole", recipe)
    for step in sorted(random.Random(case).sample(range(1, whole.steps + 1), 2)):
        folder = f"killed-{step}"
        with pytest.raises(Killed):
            go(folder, recipe, watch=die_at(step))
        resumed = go(folder, recipe, resume=True)
        assert same(tmp_path / "whole", tmp_path / folder)
        assert lines(folder) == lines("whole")
        assert (resumed.best_step, resumed.rsum) == (whole.best_step, whole.rsum)


def test_a_signal_is_obeyed_between_two_steps_and_what_was_learnt_is_kept(go, small, tmp_path, lines):
    recipe = small()
    go("whole", recipe)

    def watch(standing):
        if standing.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        Stopped, match=r"4 of 9 steps are kept; run the same command with --resume"
    ) as stopped:
        go("a", recipe, watch=watch)
    assert stopped.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert json.loads((tmp_path / "a" / "last" / "trainer.json").read_text())["progress"]["step"] == 4
    go("a", recipe, resume=True)
    assert same(tmp_path / "whole", tmp_path / "a")
    assert lines("a") == lines("whole")


def test_a_resume_with_another_recipe_lists_what_differs(go, small):
    go("a", small("heads", "run.epochs=1"))
    with pytest.raises(
        TrainingError, match=r"optimiser.lr: 0.001 -> 0.5.*Resume with .*recipe.toml"
    ) as error:
        go("a", small("heads", "run.epochs=1", "optimiser.lr=0.5", "batch.size=4"), resume=True)
    assert "batch.size: 8 -> 4" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_finished_run_may_go_on_for_longer_and_one_that_is_done_stays_as_it_is(go, small, tmp_path):
    first = go("a", small("heads", "run.epochs=1"))
    before = state(tmp_path / "a")
    again = go("a", small("heads", "run.epochs=1"), resume=True)
    assert (again.steps, again.rsum) == (first.steps, first.rsum)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(tmp_path / "a").items())
    assert go("a", small("heads", "run.epochs=3"), resume=True).steps == 9


def test_a_resume_from_an_encoder_that_has_changed_is_refused(go, small, tmp_path, pairs):
    start = go("start", small("heads", "run.epochs=1")).best
    sets = (f"model.encoder={start}", "run.epochs=1")
    go("a", small("heads", *sets))
    other = load_file(tmp_path / "start" / "best" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in other.items()}, f"{start}/model.safetensors")
    with pytest.raises(TrainingError, match="is not what this run began with"):
        go("a", small("heads", *sets), resume=True)


@pytest.mark.parametrize("file", ["trainer.json", "trainer.safetensors"])
def test_a_torn_state_is_said_in_one_line(file, go, small, tmp_path):
    go("a", small("heads", "run.epochs=1"))
    path = tmp_path / "a" / "last" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TrainingError, match="is torn"):
        go("a", small("heads", "run.epochs=1"), resume=True)


@pytest.mark.slow
def test_a_process_killed_by_the_system_leaves_a_run_that_ends_the_same(go, small, pairs, tmp_path, lines):
    """SIGKILL at a random moment of a real process, whatever it was writing then."""
    recipe = small("finetune", "run.epochs=6", "run.save_every=1")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    go("whole", recipe)
    command = [sys.executable, "-m", "training", pairs, "--output", str(tmp_path / "a")]
    command += ["--recipe", str(tmp_path / "recipe.toml")]
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=os.environ | one, stderr=subprocess.PIPE)
    enough = random.randint(2, 14)
    metrics = tmp_path / "a" / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.exists() and len(metrics.read_text().splitlines()) >= enough
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed; the test shows nothing"
    done = subprocess.run(
        [*command, "--resume"], env=os.environ | one, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "whole", tmp_path / "a")
    assert lines("a") == lines("whole")
