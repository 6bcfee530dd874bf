"""Whole runs: what they leave, what they learn, and what they refuse."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crossmodal import evaluate_retrieval, load_encoder, open_source
from crossmodal.encoders import read_blueprint
from crossmodal.errors import CrossmodalError, TrainingError
from training import read_recipe, train


def weights(folder):
    return load_file(folder / "model.safetensors")


def measure(encoder, source):
    """Measure an encoder as anyone would who knows nothing of training."""
    encoder = load_encoder(encoder, backend="torch")
    records = list(open_source(source))
    images = encoder.encode_images([record.image for record in records])
    texts = encoder.encode_texts([text for record in records for text in record.captions])
    return evaluate_retrieval(images, texts, np.repeat(np.arange(len(records)), 2))


def test_a_run_leaves_a_better_encoder_that_loads_wherever_one_does(go, small, pairs, lines):
    recipe = small("heads", "run.epochs=20", "run.held_out=0", "batch.captions=2")
    outcome = go("a", recipe)
    losses = [line["loss"] for line in lines("a")]
    assert len(losses) == 20 * (32 // 8)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert measure(outcome.best, pairs).rsum > measure(recipe.model.encoder, pairs).rsum + 30


@pytest.mark.slow
def test_heads_begins_with_lite_and_leaves_one_that_is_better_on_these_pairs(go, pairs):
    sets = ("batch.size=32", "batch.apart=false", "batch.captions=2", "run.held_out=0")
    outcome = go("a", read_recipe("heads", sets))
    assert measure(outcome.best, pairs).rsum > measure("lite", pairs).rsum


def test_validation_is_the_real_evaluation_of_the_model_that_is_kept(go, small, lines, tmp_path, pairs):
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(Path(pairs).read_text().splitlines()[20:]))
    recipe = small("finetune", "run.epochs=2", "check.shared=keep", "averaging.ema=0.5")
    outcome = go("a", recipe, validation=str(other))
    measured = [line for line in lines("a") if "rsum" in line]
    [best] = [line for line in measured if line["step"] == outcome.best_step]
    assert outcome.rsum == max(line["rsum"] for line in measured) == best["rsum"]
    report = measure(outcome.best, str(other))
    assert report.rsum == pytest.approx(outcome.rsum)
    assert report.text_to_image.recall[1] == pytest.approx(best["text_to_image.recall@1"])


@pytest.mark.parametrize("recipe", ["finetune", "lit", "siglip", "vse++", "scratch"])
def test_every_recipe_that_runs_towers_moves_what_it_says(recipe, go, small, tmp_path, lines):
    go("a", small(recipe, "run.epochs=1"))
    last = weights(tmp_path / "a" / "last")
    start = read_blueprint(small(recipe).model.encoder).load().owner.state_dict()
    moved = {name for name in last if name in start and not torch.equal(last[name], start[name])}
    assert any(name.startswith("text.tower") for name in moved)
    assert any(name.startswith("image.tower") for name in moved) == (recipe != "lit")
    assert all(math.isfinite(line["loss"]) for line in lines("a") if "loss" in line)


def test_adapters_are_trained_and_leave_an_ordinary_checkpoint(go, small, tmp_path):
    pytest.importorskip("peft")
    outcome = go("a", small("lora", "run.epochs=1", "model.lora.rank=2"))
    assert not any("lora" in name for name in weights(tmp_path / "a" / "last"))
    load_encoder(outcome.best, backend="torch").encode_texts(["a red picture"])


def test_several_batches_make_a_step(go, small, lines):
    """The first two batches of an epoch, with no chance in them, make one step of their mean loss."""
    sets = ("run.epochs=1", "run.held_out=0", "batch.size=4", "model.lora.rank=0")
    go("a", small("heads", *sets, "run.accumulate=3"))
    assert [line["step"] for line in lines("a")] == [1, 2]


def test_training_stops_when_validation_no_longer_becomes_better(go, small):
    outcome = go("a", small("heads", "optimiser.lr=0", "run.patience=2", "run.epochs=9"))
    assert outcome.best_step == 0
    assert outcome.steps == 2 * 3


def test_bfloat16_learns_too(go, small, lines):
    go("a", small("finetune", "run.precision=bfloat16", "run.epochs=4", "optimiser.head_lr=1e-3"))
    losses = [line["loss"] for line in lines("a") if "loss" in line]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


def test_a_loss_that_is_no_number_stops_with_step_and_records_and_checkpoints_stay(go, small, tmp_path):
    recipe = small("heads", "optimiser.lr=1e38", "optimiser.weight_decay=1e30", "optimiser.clip=0")
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step \d+, on the records k\d\d, k\d\d, .*"):
        go("a", recipe)
    best = weights(tmp_path / "a" / "best")
    assert all(torch.isfinite(tensor).all() for tensor in best.values())


def test_what_is_remembered_of_texts_that_fit_as_well_pushes_nothing_apart(go, small, lines, tmp_path, pairs):
    table = tmp_path / "pairs.jsonl"
    rows = [json.loads(line) | {"captions": ["a picture"]} for line in table.read_text().splitlines()]
    table.write_text("\n".join(map(json.dumps, rows)))
    go("a", small("heads", "queue.size=16"))
    assert [line["loss"] for line in lines("a") if "loss" in line] == [0.0] * 9


def test_a_batch_bigger_than_the_data_is_refused_with_both_numbers(go, small):
    with pytest.raises(TrainingError, match=r"A batch of 99 .* has 24 pictures"):
        go("a", small("heads", "batch.size=99"))


def test_what_is_missing_is_said_before_anything_is_written(small, pairs, tmp_path):
    for source, recipe, message in (
        (str(tmp_path / "none.csv"), small(), "No such file"),
        (pairs, read_recipe("finetune"), "names no encoder"),
        (pairs, small("heads", "model.encoder=towers:nothing+minilm"), "Unknown image model"),
        (pairs, small("heads", "run.trackers=mlflow"), "Unknown tracker 'mlflow'"),
        (pairs, small("heads", "loss.kind=infonze"), "Unknown loss 'infonze'"),
    ):
        with pytest.raises(CrossmodalError, match=message):
            train(source, tmp_path / "a", recipe)
        assert not (tmp_path / "a").exists()


def test_a_run_in_another_ones_folder_is_refused(go, small, tmp_path):
    go("a", small("heads", "run.epochs=1"))
    with pytest.raises(TrainingError, match="holds a run; go on with --resume"):
        go("a", small("heads", "run.epochs=1"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty"):
        go("b", small("heads"))
    with pytest.raises(TrainingError, match="holds no run to resume"):
        go("c", small("heads"), resume=True)


def test_averages_and_mixtures_are_tried_and_the_best_is_kept(go, small, lines, tmp_path):
    outcome = go("a", small("heads", "averaging.swa=2", "averaging.wise_ft=0.3, 0.7"))
    assert [line["of"] for line in lines("a") if "of" in line] == [
        "the mean of 2 validated weights",
        "0.3 of what was learnt, and 0.7 of the start",
        "0.7 of what was learnt, and 0.3 of the start",
    ]
    assert outcome.rsum == max(line["rsum"] for line in lines("a") if "rsum" in line)
    assert (tmp_path / "a" / "report.html").stat().st_size > 1000
