"""Protocols: the rule by which a benchmark is measured, and the counts that show it is that benchmark."""

from dataclasses import dataclass, replace

from crossmodal.errors import EvaluationError, unknown
from crossmodal.evaluation.pairs import Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A rule; counts of None take what comes.

    ``split``: the split it is measured on, where the records of a source say theirs. ``id_field``: the
    metadata that names a picture wherever it was read from. ``captions``: so many of each picture's first
    ones are taken. ``folds``: the pictures are measured in so many parts, in their order, and the measures
    averaged. ``positives``: the packaged judgements of who belongs to whom, in place of the pairs.
    """

    name: str
    title: str
    split: str = ""
    id_field: str = ""
    images: int | None = None
    texts: int | None = None
    captions: int | None = None
    folds: int = 1
    positives: str = ""

    @property
    def is_benchmark(self) -> bool:
        """Whether it is one particular set of pictures and captions."""
        return self.images is not None

    def with_captions(self, captions: int | None) -> "Protocol":
        """Take so many captions of each picture, and count accordingly; None leaves the rule as it is.

        :raises EvaluationError: when the rule has its own number.
        """
        if captions is None or captions == self.captions:
            return self
        if self.captions is not None:
            raise EvaluationError(
                f"{self.name} takes {self.captions} captions a picture, not {captions}; leave --captions out"
            )
        texts = None if self.images is None else self.images * captions
        if self.texts is not None and texts is not None and texts > self.texts:
            raise EvaluationError(
                f"{self.name} has {self.texts:,} captions of {self.images:,} pictures, so not {captions} of "
                "each; ask for fewer"
            )
        return replace(self, captions=captions, texts=texts)

    def check_counts(self, pairs: Pairs, missing: int = 0) -> None:
        """Refuse whatever is not this benchmark, by its counts; so many things may be missing, and none more.

        :raises EvaluationError: with the counts seen and the counts expected.
        """
        seen = len(pairs.image_ids), len(pairs.captions)
        if not seen[0] or not seen[1]:
            raise EvaluationError(
                f"{self.name} needs pictures with captions; seen {seen[0]:,} pictures, {seen[1]:,} captions"
            )
        expected = self.images or seen[0], self.texts or seen[1]
        explained = missing and seen[1] <= expected[1] and 0 <= expected[0] - seen[0] <= missing
        if seen != expected and not explained:
            raise EvaluationError(
                f"{self.name} has {expected[0]:,} pictures and {expected[1]:,} captions; seen {seen[0]:,} "
                f"and {seen[1]:,}. {_advice(seen, expected)}"
            )


def _advice(seen: tuple[int, int], expected: tuple[int, int]) -> str:
    if seen[0] > expected[0]:
        return "Give its test split alone, or measure everything with --protocol pairs"
    if seen[0] < expected[0]:
        return "Give the whole test split, or measure what is there with --protocol pairs"
    return "Give all captions of each picture, or measure these with --protocol pairs"


_COCO = Protocol(
    name="coco-5k",
    title="COCO, Karpathy's 5,000 test pictures with all 25,010 captions; --captions 5 takes 25,000.",
    split="test",
    id_field="cocoid",
    images=5000,
    texts=25010,
)
_COCO_FIVE = replace(_COCO, captions=5, texts=25000)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="pairs", title="All pictures of a source against all its captions."),
        Protocol(
            name="flickr30k-1k",
            title="Flickr30K, Karpathy's 1,000 test pictures with 5,000 captions.",
            split="test",
            id_field="filename",
            images=1000,
            texts=5000,
        ),
        _COCO,
        replace(_COCO_FIVE, name="coco-1k", title="COCO, the mean of five folds of 1,000 pictures.", folds=5),
        replace(
            _COCO_FIVE,
            name="eccv-caption",
            title="COCO with the positives of ECCV Caption (Chun et al., ECCV 2022).",
            positives="eccv",
        ),
        replace(
            _COCO_FIVE,
            name="cxc",
            title="COCO with the positives of Crisscrossed Captions (Parekh et al., EACL 2021).",
            positives="cxc",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Give the protocol of that name.

    :raises EvaluationError: when there is none; it lists those there are.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]
