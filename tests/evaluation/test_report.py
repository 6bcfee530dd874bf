"""Reports hold what was measured, show the hardest captions, and let nothing of the data act."""

import re
from dataclasses import replace

import numpy as np
import pytest

from crossmodal import open_source
from crossmodal.errors import EvaluationError
from crossmodal.evaluation import Embedded, embed_source, find_protocol, measure
from crossmodal.evaluation.details import details
from crossmodal.evaluation.pairs import Pairs
from crossmodal.evaluation.report import hardest, recall_curve, write_report


@pytest.fixture
def measured():
    """Thirty pictures with two captions each, one caption full of markup."""
    rng = np.random.default_rng(0)
    captions = [(f"caption {i} | a", f"<script>alert({i})</script>") for i in range(30)]
    pairs = Pairs.of([f"p{i}<b>.jpg" for i in range(30)], captions)
    images = rng.standard_normal((30, 6)).astype(np.float32)
    texts = images[pairs.image_of_text] + rng.standard_normal((60, 6)).astype(np.float32)
    return measure(Embedded(pairs=pairs, images=images, texts=texts), find_protocol("pairs"))


@pytest.fixture
def result(measured):
    return replace(measured.result({"name": "toy & co"}), more=details(measured, samples=200))


def ranks_by_hand(measured):
    pairs, embedded = measured.embedded.pairs, measured.embedded
    scores = embedded.texts.astype(float) @ embedded.images.astype(float).T
    own = scores[np.arange(60), pairs.image_of_text]
    return (scores > own[:, None]).sum(axis=1) + 1, scores.argmax(axis=1)


def test_the_curve_goes_through_the_recalls(measured, result):
    ranks, _ = ranks_by_hand(measured)
    curve = recall_curve(measured, "text_to_image")
    assert curve == pytest.approx([np.mean(ranks <= k) for k in range(1, 31)])
    assert curve[-1] == 1
    assert [curve[k - 1] for k in (1, 5, 10)] == [
        result.measures["text_to_image"][f"recall@{k}"] for k in (1, 5, 10)
    ]


def test_the_hardest_captions_are_those_with_the_last_ranks(measured):
    ranks, found = ranks_by_hand(measured)
    seen = hardest(measured, 5)
    assert [one.rank for one in seen] == sorted(ranks.tolist(), reverse=True)[:5]
    captions = list(measured.embedded.pairs.captions)
    for one in seen:
        row = captions.index(one.caption)
        assert (one.rank, one.found) == (ranks[row], measured.embedded.pairs.image_ids[found[row]])
        assert one.image == measured.embedded.pairs.image_ids[row // 2]


def test_markdown_holds_the_measures_and_their_intervals(measured, result, tmp_path):
    write_report(measured, result, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    low, high = result.more["confidence"]["text_to_image"]["recall@1"]
    share = result.measures["text_to_image"]["recall@1"]
    assert f"| recall@1 | {100 * share:.1f}% ({100 * low:.1f}% to {100 * high:.1f}%) |" in text
    assert result.protocol["fingerprint"] in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    assert "<script>" not in text


def test_html_needs_nothing_beside_it_and_escapes_the_data(measured, result, tmp_path):
    write_report(measured, result, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "<b>.jpg" not in text
    assert "toy &amp; co on pairs" in text
    assert "http" not in text
    assert text.count("<polyline") == 2


def test_html_shows_the_pictures_of_its_source(karpathy, toy_encoder, tmp_path):
    source = open_source(karpathy("flickr30k", {"test": 20}))
    protocol = find_protocol("pairs")
    measured = measure(embed_source(source, protocol, toy_encoder), protocol)
    write_report(measured, measured.result({"name": "toy"}), tmp_path / "r.html", source)
    text = (tmp_path / "r.html").read_text()
    shown = {key for one in hardest(measured) for key in (one.image, one.found)}
    assert set(re.findall(r'<img src="data:image/jpeg;base64,[^"]{100,}" alt="([^"]+)"', text)) == shown


def test_another_suffix_is_refused(measured, result, tmp_path):
    with pytest.raises(EvaluationError, match=r"neither \.md nor \.html"):
        write_report(measured, result, tmp_path / "r.pdf")
