"""What a person sees first: `lite` over the bundled sample brings fitting pictures for everyday words."""

import pyarrow.parquet as pq
import pytest

from crossmodal import Collection, load_encoder
from crossmodal.sources.sample import sample_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words_of() -> dict[str, str]:
    """What the archive itself says of each drawing: path, title, description and keywords, in lower case."""
    rows = pq.read_table(sample_path(), columns=["key", "title", "description", "keywords"]).to_pylist()
    return {
        r["key"]: " ".join([r["key"], r["title"], r["description"], *r["keywords"]]).lower() for r in rows
    }


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Collection:
    """The whole sample, as `crossmodal demo` indexes it."""
    collection = Collection.create(tmp_path_factory.mktemp("demo") / "c", load_encoder("lite"))
    report = collection.add("sample")
    assert (report.added, report.skipped) == (2636, [])
    return collection


@pytest.mark.parametrize(
    ("query", "fitting", "least"),
    [
        ("a red apple", ("apple",), 8),
        ("musical instrument", ("music", "instrument", "guitar", "violin", "drum", "trumpet", "piano"), 6),
        ("flag with a star", ("flag",), 10),
    ],
)
def test_fitting_pictures_are_among_the_first_twelve(collection, words_of, query, fitting, least):
    hits = collection.search(query, k=12)
    said = [words_of[hit.key] for hit in hits]
    assert sum(any(word in words for word in fitting) for words in said) >= least, said


def test_the_stored_vectors_answer_as_the_encoder_does(collection):
    """A picture of the collection finds itself, by its own bytes, with a score of 1."""
    from crossmodal.sources import read_uri

    for record in collection.get([hit.key for hit in collection.search("a red apple", k=3)]):
        best = collection.search(image=read_uri(record.uri), k=1)[0]
        assert best.key == record.key
        assert best.score == pytest.approx(1.0, abs=1e-5)
