"""LFW's file of pairs and Market-1501's names, as they are published."""

import pytest

from crossmodal.errors import EvaluationError
from crossmodal.evaluation.benchmark_names import FacePair, parse_market_name, read_lfw_pairs

PAIRS = """2\t1
Abel_Pacheco\t1\t4
Abdel_Madi_Shabneh\t1\tDean_Barker\t1
Zico\t2\t3
Angela_Bassett\t2\tRon_Dittemore\t10
"""


def test_the_pairs_of_lfw(tmp_path):
    (tmp_path / "pairs.txt").write_text(PAIRS)
    assert read_lfw_pairs(tmp_path / "pairs.txt") == [
        FacePair("Abel_Pacheco/Abel_Pacheco_0001.jpg", "Abel_Pacheco/Abel_Pacheco_0004.jpg", True, 0),
        FacePair(
            "Abdel_Madi_Shabneh/Abdel_Madi_Shabneh_0001.jpg", "Dean_Barker/Dean_Barker_0001.jpg", False, 0
        ),
        FacePair("Zico/Zico_0002.jpg", "Zico/Zico_0003.jpg", True, 1),
        FacePair("Angela_Bassett/Angela_Bassett_0002.jpg", "Ron_Dittemore/Ron_Dittemore_0010.jpg", False, 1),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\timagenum\n", "expected two numbers in its first line"),
        ("2\t2\n" + PAIRS.split("\n", 1)[1], "promises 2 folds of 2 x 2 pairs, 8 in all; it has 4"),
        ("1\t1\na b 1 2\nc\t1\t2\n", "'a b 1 2' is no pair"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(tmp_path, content, message):
    (tmp_path / "pairs.txt").write_text(content)
    with pytest.raises(EvaluationError, match=message):
        read_lfw_pairs(tmp_path / "pairs.txt")


def test_the_names_of_market_1501():
    assert parse_market_name("0000_c6s3_077617_04.jpg") == (0, 6)
    with pytest.raises(EvaluationError, match="no name of Market-1501"):
        parse_market_name("Thumbs.db")
