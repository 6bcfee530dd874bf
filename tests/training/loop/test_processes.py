"""Two processes learn what one does with the whole batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file


def launch(processes, pairs, output, recipe, *more):
    """Start processes that meet by gloo; accelerate's own launcher needs MPI for several on CPUs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--standalone", "-m", "training", pairs, "--output", str(output), "--recipe", str(recipe)]
    one = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *more], env=os.environ | one, capture_output=True, text=True, check=False
    )


@pytest.fixture
def without_chance(small, tmp_path, tiny_clip):
    """A recipe whose steps draw nothing that two processes would draw otherwise."""
    sets = (f"model.encoder={tiny_clip}", "run.epochs=2", "optimiser.epsilon=1e-2", "queue.size=8")
    file = tmp_path / "recipe.toml"
    file.write_text(small("finetune", *sets, "run.chunk=3", "batch.captions=2").to_toml())
    return file


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(pairs, without_chance, tmp_path):
    ended = {}
    for processes in (1, 2):
        output = tmp_path / str(processes)
        done = launch(processes, pairs, output, without_chance)
        assert done.returncode == 0, done.stderr
        assert "rSum" in done.stdout
        steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert json.loads((output / "last" / "trainer.json").read_text())["processes"] == processes
        ended[processes] = steps, load_file(output / "last" / "model.safetensors")
    (alone, weights), (together, weights_together) = ended[1], ended[2]
    assert [line["step"] for line in alone] == [line["step"] for line in together]
    for one, two in zip(alone, together, strict=True):
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (one["step"], name)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, weights_together[name], atol=1e-5, rtol=1e-4, msg=name)
    refused = launch(1, pairs, tmp_path / "2", without_chance, "--resume", "--set", "run.epochs=3")
    assert refused.returncode != 0
    assert "The run was on 2 processes, and now there are 1" in refused.stderr


def test_who_is_started_alone_by_a_launcher_that_was_asked_for_several_is_told():
    from training.__main__ import _alone_unasked

    assert _alone_unasked({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"})
    assert not _alone_unasked({"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "RANK": "0"})
    assert not _alone_unasked({})
