"""Protocols see what they must see, refuse the rest with both counts, and measure by their own rule."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from crossmodal import evaluate_retrieval, open_source
from crossmodal.errors import EvaluationError
from crossmodal.evaluation import Embedded, embed_source, find_protocol, measure, read_embeddings
from crossmodal.evaluation.pairs import Pairs
from crossmodal.evaluation.protocols import Protocol
from crossmodal.evaluation.reading import read_pairs

COCO = [6] * 10 + [5] * 4990


def measured(path, name, captions=None):
    return measure(read_embeddings(path), find_protocol(name).with_captions(captions)).result({})


# -- Counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "captions", "texts"),
    [
        ("coco-5k", None, 25010),
        ("coco-5k", 5, 25000),
        ("coco-5k", 1, 5000),
        ("coco-1k", None, 25000),
        ("pairs", None, 25010),
        ("pairs", 5, 25000),
    ],
)
def test_coco_by_its_counts(write_npz, name, captions, texts):
    facts = measured(write_npz(COCO), name, captions).protocol
    assert (facts["name"], facts["images"], facts["texts"]) == (name, 5000, texts)


@pytest.mark.parametrize(
    ("name", "captions", "seen"),
    [
        (
            "coco-5k",
            [5] * 5000,
            "5,000 pictures and 25,010 captions; seen 5,000 and 25,000. Give all captions",
        ),
        (
            "coco-5k",
            [5] * 1000,
            "5,000 pictures and 25,010 captions; seen 1,000 and 5,000. Give the whole test",
        ),
        ("coco-1k", [4] + [5] * 4999, "5,000 pictures and 25,000 captions; seen 5,000 and 24,999."),
        (
            "flickr30k-1k",
            [5] * 31783,
            "1,000 pictures and 5,000 captions; seen 31,783 and 158,915. Give its test",
        ),
        (
            "flickr30k-1k",
            [5] * 1014,
            "1,000 pictures and 5,000 captions; seen 1,014 and 5,070. Give its test",
        ),
        ("pairs", [0, 0], "needs pictures with captions; seen 2 pictures, 0 captions"),
    ],
)
def test_other_counts_are_refused_with_both(name, captions, seen):
    pairs = Pairs.of([str(i) for i in range(len(captions))], [("a caption",) * count for count in captions])
    with pytest.raises(EvaluationError) as raised:
        find_protocol(name).check_counts(pairs)
    assert seen in str(raised.value)


def test_captions_that_the_rule_does_not_have_are_refused():
    with pytest.raises(EvaluationError, match="takes 5 captions a picture, not 3"):
        find_protocol("coco-1k").with_captions(3)
    with pytest.raises(EvaluationError, match="25,010 captions of 5,000 pictures, so not 6 of each"):
        find_protocol("coco-5k").with_captions(6)


# -- Rules --------------------------------------------------------------------------------------------------


def test_coco_1k_is_the_mean_of_five_folds_in_order(write_npz):
    path = write_npz(COCO)
    result = measured(path, "coco-1k")
    arrays = np.load(path)
    images, texts, owner = (arrays[name] for name in ("image_embeddings", "text_embeddings", "image_of_text"))
    first = np.concatenate([np.flatnonzero(owner == i)[:5] for i in range(5000)])
    texts, owner = texts[first], owner[first]
    folds = []
    for fold in range(5):
        rows = slice(5000 * fold, 5000 * (fold + 1))
        folds.append(
            evaluate_retrieval(
                images[1000 * fold : 1000 * (fold + 1)], texts[rows], owner[rows] - 1000 * fold
            ).to_dict()
        )
    for direction in ("text_to_image", "image_to_text"):
        for name, value in result.measures[direction].items():
            assert value == pytest.approx(np.mean([fold[direction][name] for fold in folds])), name
    assert result.rsum == pytest.approx(np.mean([fold["rsum"] for fold in folds]))


def fingerprint(ids, captions, folds=1):
    pairs = Pairs.of(ids, captions)
    rng = np.random.default_rng(0)
    images, texts = (rng.standard_normal((len(rows), 4)) for rows in (pairs.image_ids, pairs.captions))
    rule = Protocol(name="made up", title="", folds=folds)
    return measure(Embedded(pairs=pairs, images=images, texts=texts), rule).result({}).protocol["fingerprint"]


def test_the_fingerprint_knows_ids_and_captions_and_who_belongs_to_whom():
    whole = fingerprint(["a", "b"], [("x", "y"), ("z",)])
    assert fingerprint(["a", "c"], [("x", "y"), ("z",)]) != whole
    assert fingerprint(["a", "b"], [("x", "y"), ("z!",)]) != whole
    assert fingerprint(["a", "b"], [("x",), ("y", "z")]) != whole


def test_the_fingerprint_knows_the_order_only_where_folds_depend_on_it():
    there, back = (["a", "b"], [("x", "y"), ("z",)]), (["b", "a"], [("z",), ("y", "x")])
    assert fingerprint(*there) == fingerprint(*back)
    assert fingerprint(*there, folds=2) != fingerprint(*back, folds=2)


# -- Reading ------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    """Make the benchmarks as small as the miniatures are: six test pictures."""

    def shrink(name):
        return replace(find_protocol(name), images=6, texts=30)

    return shrink


@pytest.mark.parametrize(("dataset", "name"), [("coco", "coco-5k"), ("flickr30k", "flickr30k-1k")])
def test_karpathys_file_gives_its_test_split_whether_or_not_that_is_asked_for(karpathy, small, dataset, name):
    spec = karpathy(dataset)
    asked, _ = read_pairs(open_source(f"{spec}&split=test"), small(name))
    every, _ = read_pairs(open_source(spec), small(name))
    ids = {"coco": range(10, 16), "flickr30k": [f"{1000092795 + i}.jpg" for i in range(9, 15)]}[dataset]
    assert asked.image_ids == every.image_ids == tuple(map(str, ids))
    assert asked.captions == every.captions
    assert asked.image_of_text.tolist() == [i // 5 for i in range(30)]


def test_another_split_with_the_right_counts_is_refused(karpathy, small):
    spec = karpathy("coco", {"val": 6, "test": 6})
    with pytest.raises(EvaluationError, match=r"no split 'test', which coco-5k measures; it has: val \(6\)"):
        read_pairs(open_source(f"{spec}&split=val"), small("coco-5k"))


def test_shards_of_clip_benchmark_hold_a_caption_a_line(tmp_path, karpathy, small):
    spec = karpathy("flickr30k")
    protocol = small("flickr30k-1k")
    records = list(open_source(f"{spec}&split=test"))
    (tmp_path / "test").mkdir()
    with tarfile.open(tmp_path / "test" / "0.tar", "w") as tar:
        for i, record in enumerate(records):
            texts = "\n".join(record.captions).encode()
            for suffix, content in (("jpg", record.image.read_bytes()), ("txt", texts)):
                member = tarfile.TarInfo(f"s{i:07}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    from_tar, left_out = read_pairs(open_source(tmp_path / "test" / "0.tar"), protocol)
    from_json, _ = read_pairs(open_source(spec), protocol)
    assert left_out == []
    assert from_tar.captions == from_json.captions
    assert np.array_equal(from_tar.image_of_text, from_json.image_of_text)


def test_a_hugging_face_table_with_a_row_per_caption_gives_the_same_pairs(tmp_path, karpathy, small):
    datasets = pytest.importorskip("datasets")
    spec = karpathy("coco")
    records = list(open_source(f"{spec}&split=test"))
    rows = [
        {
            "image": str(record.image),
            "filename": record.key,
            "split": "test",
            "sentences": {"tokens": ["a"], "raw": caption, "imgid": 0, "sentid": j},
            "cocoid": record.metadata["cocoid"],
        }
        for record in records
        for j, caption in enumerate(record.captions)
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "hf")
    from_hub, _ = read_pairs(open_source(f"hf:{tmp_path / 'hf'}"), small("coco-5k"))
    from_json, _ = read_pairs(open_source(spec), small("coco-5k"))
    assert from_hub.fingerprint() == from_json.fingerprint()


def test_a_hugging_face_table_of_all_splits_gives_its_test_split(tmp_path, karpathy, small):
    datasets = pytest.importorskip("datasets")
    spec = karpathy("flickr30k")
    rows = [
        {
            "image": str(record.image),
            "caption": list(record.captions),
            "sentids": ["0"],
            "split": record.metadata["split"],
            "img_id": str(record.metadata["imgid"]),
            "filename": record.key,
        }
        for record in open_source(spec)
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict({"test": made}).save_to_disk(tmp_path / "hf")
    from_hub, _ = read_pairs(open_source(f"hf:{tmp_path / 'hf'}:test"), small("flickr30k-1k"))
    from_json, _ = read_pairs(open_source(spec), small("flickr30k-1k"))
    assert from_hub.fingerprint() == from_json.fingerprint()


def test_half_the_pictures_missing_is_refused_before_anything_is_embedded(karpathy, small, toy_encoder):
    source = open_source(karpathy("coco"))
    gone = [record for record in source if record.metadata["split"] == "test"][::2]
    for record in gone:
        record.image.unlink()
    with pytest.raises(EvaluationError, match=r"3 things are missing .* 6 pictures: 3 no such file"):
        embed_source(source, small("coco-5k"), toy_encoder)
    assert toy_encoder.images_embedded == 0
    embedded = embed_source(source, small("coco-5k"), toy_encoder, allow_missing=True)
    result = measure(embedded, small("coco-5k")).result({})
    assert (result.protocol["images"], result.protocol["texts"]) == (3, 15)
    assert [key for key, _ in result.protocol["left_out"]] == [record.key for record in gone]


def test_what_is_missing_explains_no_more_than_itself(write_npz):
    embedded = replace(
        read_embeddings(write_npz([5] * 998)), left_out=[("a.jpg", "broken"), ("b.jpg", "broken")]
    )
    facts = measure(embedded, find_protocol("flickr30k-1k")).result({}).protocol
    assert (facts["images"], len(facts["left_out"])) == (998, 2)
    for captions in ([5] * 997, [5] * 1014):
        other = replace(read_embeddings(write_npz(captions)), left_out=embedded.left_out)
        with pytest.raises(EvaluationError, match="1,000 pictures and 5,000 captions; seen"):
            measure(other, find_protocol("flickr30k-1k"))


def test_two_pictures_with_one_id_are_refused():
    with pytest.raises(EvaluationError, match="1 ids name more than one picture: a"):
        Pairs.of(["a", "b", "a"], [("x",)] * 3)
