"""``crossmodal evaluate`` from the command line, against recalls counted by hand."""

import json

import numpy as np
import pytest

from crossmodal import open_source
from ui.results import table


def recalls(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Count the queries (rows) with something relevant among their first k; the relevant last of equals."""
    hits = [
        [bool(right) for _, right in sorted(zip(-row, is_right, strict=True))]
        for row, is_right in zip(scores, relevant, strict=True)
    ]
    return {f"recall@{k}": sum(any(own[:k]) for own in hits) / len(hits) for k in (1, 5, 10)}


def by_hand(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, dict[str, float]]:
    scores = (images.astype(np.float64) @ texts.astype(np.float64).T).astype(np.float32)
    relevant = np.arange(len(images))[:, None] == owner
    asked = relevant.any(axis=1)
    return {
        "text_to_image": recalls(scores.T, relevant.T),
        "image_to_text": recalls(scores[asked], relevant[asked]),
    }


def assert_recalls(document: dict, expected: dict) -> None:
    for direction, values in expected.items():
        assert {name: document[direction][name] for name in values} == pytest.approx(values)
    total = 100 * sum(sum(values.values()) for values in expected.values())
    assert document["rsum"] == pytest.approx(total)


@pytest.fixture
def embeddings(tmp_path):
    """Six pictures, one without a caption, and eleven captions that lean to their pictures."""
    rng = np.random.default_rng(5)
    images = rng.standard_normal((6, 4)).astype(np.float32)
    owner = rng.integers(0, 5, 11)
    texts = (images[owner] + rng.standard_normal((11, 4))).astype(np.float32)
    np.savez(tmp_path / "e.npz", image_embeddings=images, text_embeddings=texts, image_of_text=owner)
    return tmp_path / "e.npz", images, texts, owner


def test_a_folder_gives_the_recalls_counted_by_hand(run, picture_folder, tmp_path, toy_encoder):
    (picture_folder / "red.txt").write_text("a red picture\nsomething blue\n")
    (picture_folder / "blue.txt").unlink()
    output = tmp_path / "r.json"
    told = run("evaluate", picture_folder, "--encoder", "toy", "--json", "--output", output)
    assert told.exit_code == 0
    document = json.loads(told.stdout)
    records = list(open_source(picture_folder))
    images = toy_encoder.encode_images(record.image for record in records)
    captions = [(i, caption) for i, record in enumerate(records) for caption in record.captions]
    texts = toy_encoder.encode_texts(caption for _, caption in captions)
    assert_recalls(document, by_hand(images, texts, np.array([i for i, _ in captions])))
    assert list(document) == ["protocol", "encoder", "text_to_image", "image_to_text", "rsum"]
    protocol = document["protocol"]
    assert (protocol["name"], protocol["images"], protocol["texts"]) == ("pairs", 8, 8)
    assert list(protocol) == ["name", "images", "texts", "fingerprint"]
    assert document["encoder"] == toy_encoder.card.to_dict()
    assert json.loads(output.read_text()) == document


def test_embeddings_from_a_file_give_the_recalls_counted_by_hand(run, embeddings):
    path, *arrays = embeddings
    document = json.loads(run("evaluate", "--embeddings", path, "--json").stdout)
    assert_recalls(document, by_hand(*arrays))
    assert document["encoder"] == {"name": "e.npz", "dim": 4}


def test_embeddings_that_were_kept_measure_as_their_source_did(run, picture_folder, tmp_path):
    kept = tmp_path / "kept.npz"
    options = ("--encoder", "toy", "--json", "--save-embeddings", kept)
    first = json.loads(run("evaluate", picture_folder, *options).stdout)
    again = json.loads(run("evaluate", "--embeddings", kept, "--json").stdout)
    assert {**first, "encoder": 0} == {**again, "encoder": 0}


def test_without_json_there_is_a_line_for_each_measure(run, embeddings):
    told = run("evaluate", "--embeddings", embeddings[0])
    document = json.loads(run("evaluate", "--embeddings", embeddings[0], "--json").stdout)
    rows = [line.split("\t") for line in told.stdout.splitlines()]
    assert rows[-1] == ["", "rsum", f"{document['rsum']:.6g}"]
    assert {(d, name): value for d, name, value in rows[:-1]} == {
        (d, name): f"{value:.6g}"
        for d in ("text_to_image", "image_to_text")
        for name, value in document[d].items()
    }
    assert "6 pictures, 11 captions" in told.stderr


def test_a_broken_picture_is_refused_unless_that_is_allowed_and_then_stated(run, picture_folder):
    (picture_folder / "green.png").write_text("no picture")
    refused = run("evaluate", picture_folder, "--encoder", "toy")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "green.png" in refused.stderr
    assert "--allow-missing" in refused.stderr
    told = run("evaluate", picture_folder, "--encoder", "toy", "--allow-missing", "--json")
    protocol = json.loads(told.stdout)["protocol"]
    assert (protocol["images"], protocol["texts"]) == (7, 7)
    [[key, _reason]] = protocol["left_out"]
    assert key == "green.png"


def without(name: str) -> dict[str, np.ndarray]:
    arrays = {"image_embeddings": np.eye(3), "text_embeddings": np.eye(3), "image_of_text": np.arange(3)}
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("image_of_text"), "lacks image_of_text; it holds: image_embeddings, text_embeddings"),
        (
            {**without(""), "image_of_text": np.array([0, 1, 7])},
            "1 texts name an image outside 0 to 2: rows 2",
        ),
        ({**without(""), "text_embeddings": np.eye(3)[0]}, "expected shapes (N, D), (M, D) and (M,)"),
        ({**without(""), "image_embeddings": np.eye(4)[:3]}, "Image embeddings have 4 dimensions"),
        ({**without(""), "image_ids": np.arange(2)}, "image_ids has shape (2,); expected (3,)"),
        ({**without(""), "captions": np.array([{}] * 3, object)}, "is no .npz of plain arrays"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_in_one_line(run, tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    refused = run("evaluate", "--embeddings", tmp_path / "bad.npz")
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give a SOURCE or --embeddings"),
        (("a", "--embeddings", "b"), "Give a SOURCE or --embeddings"),
        (("--embeddings", "none.npz"), "No such file: none.npz"),
        (("--embeddings", "none.npz", "--encoder", "toy"), "leave --encoder out"),
        (("a", "--protocol", "coco"), "Unknown protocol 'coco'. Did you mean 'coco-5k'?"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(run, arguments, message):
    refused = run("evaluate", *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_table_for_people_has_shares_in_percent_and_ranks_as_they_are(run, embeddings, tmp_path):
    from crossmodal.evaluation import Result

    run("evaluate", "--embeddings", embeddings[0], "--output", tmp_path / "r.json")
    result = Result.read(tmp_path / "r.json")
    columns = [list(column.cells) for column in table(result).columns]
    shown = dict(zip(columns[0], columns[1], strict=True))
    measures = result.measures["text_to_image"]
    assert shown["recall@1"] == f"{100 * measures['recall@1']:.1f}%"
    assert shown["mean_rank"] == f"{measures['mean_rank']:.1f}"


@pytest.mark.parametrize("option", ["--output", "--save-embeddings", "--predictions", "--report"])
def test_where_nothing_can_be_written_is_told_before_anything_is_measured(
    run, picture_folder, tmp_path, toy_encoder, monkeypatch, option
):
    def refuse(*_):
        raise AssertionError("a picture was embedded")

    monkeypatch.setattr(type(toy_encoder), "embed_pixels", refuse)
    (tmp_path / "there").mkdir()
    absent = tmp_path / "absent" / "file.html"
    for place, words in [(tmp_path / "there", "is a folder"), (absent, "No such folder")]:
        told = run("evaluate", picture_folder, "--encoder", "toy", option, place)
        assert (told.exit_code, told.stderr.count("\n")) == (2, 1)
        assert words in told.stderr
    assert list((tmp_path / "there").iterdir()) == []
    assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())
