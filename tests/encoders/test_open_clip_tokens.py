"""Token ids beside open_clip's own tokenizers: the same, cut only where the text tower looks no further."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from crossmodal.encoders.open_clip.tokenizer import OpenClipTokenizer, Reading, reading_of, tokenizer_settings
from crossmodal.errors import EncoderError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[BOS]", "[EOS]", "a", "red", "apple", "word", "it", "s", "'"]
TEXTS = [
    "a red apple",
    "",
    "   ",
    "🍎🍏👩‍👩‍👧",
    "word " * 10_000,
    "تفاحة حمراء על השולחן",
    "a <end_of_text> b <start_of_text> c",
    "it's &amp;amp; schÃ¶n, A_Red\tApple!!",
    "[PAD] a [SEP] [PAD]",
    "a" * 5_000,
    "\0",
]
LIMIT = 16
END = 49407


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A word tokenizer as Hugging Face keeps it, with marks around each text."""
    file = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    file.normalizer = normalizers.Lowercase()
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    marks = {f"{mark.lower()}_token": f"[{mark}]" for mark in ("PAD", "UNK", "CLS", "SEP", "BOS", "EOS")}
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=file, **marks).save_pretrained(path)
    return path


def settings(kind, mode=None, **options):
    return {"kind": kind, "limit": LIMIT, "mode": mode, "options": options}


@pytest.mark.parametrize("options", [{}, {"clean": "canonicalize"}, {"clean": "whitespace"}])
def test_simple_ids_are_open_clips_up_to_the_first_end_mark(options):
    theirs = SimpleTokenizer(context_length=LIMIT, **options)(TEXTS).tolist()
    padded = OpenClipTokenizer(settings("simple", **options), None, Reading("all"))
    cut = OpenClipTokenizer(settings("simple", **options), None, Reading("greatest"))
    assert padded.padded
    assert not cut.padded
    assert padded(TEXTS) == theirs
    assert cut(TEXTS) == [row[: row.index(END) + 1] for row in theirs]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        (None, {}),
        (None, {"clean": "canonicalize"}),
        (None, {"clean": "lower", "strip_sep_token": True}),
        ("clips", {}),
    ],
)
def test_hugging_face_ids_are_open_clips(folder, mode, options):
    owner = HFTokenizer(str(folder), context_length=LIMIT, tokenizer_mode=mode, **options)
    ours = OpenClipTokenizer(settings("hf", mode, **options), folder, Reading("all"))
    assert ours(TEXTS) == owner(TEXTS).tolist()


def test_where_padding_is_masked_only_padding_at_the_end_is_cut(folder):
    theirs = HFTokenizer(str(folder), context_length=LIMIT)(TEXTS).tolist()
    ours = OpenClipTokenizer(settings("hf"), folder, Reading("masked", 0))(TEXTS)
    assert any(0 in row for row in ours), "a mark of padding within a text has to stay"
    assert all(row[-1] != 0 for row in ours)
    assert [row + [0] * (LIMIT - len(row)) for row in ours] == theirs


def test_where_a_mark_is_looked_for_what_follows_it_is_cut():
    reading = Reading("mark", 5)
    assert reading.cut([4, 7, 5, 0, 5, 0]) == [4, 7, 5]
    assert reading.cut([4, 7, 7]) == [4], "without the mark such a tower looks at the first place"


def test_a_row_of_nothing_but_padding_keeps_one_token():
    assert Reading("masked", 0).cut([0, 0, 0]) == [0]


def test_lengths_tell_how_many_tokens_were_needed(folder):
    simple = OpenClipTokenizer(settings("simple"), None, Reading("greatest"))
    assert simple.lengths(["a red apple", "", "word " * 10_000]) == [5, 2, 10_002]
    plain = OpenClipTokenizer(settings("hf"), folder, Reading("all"))
    assert plain.lengths(["a red apple", "", "word " * 10_000]) == [5, 2, 10_002]
    clips = OpenClipTokenizer(settings("hf", "clips"), folder, Reading("all"))
    assert clips.lengths(["a red apple", ""]) == [6, 3]


@pytest.mark.parametrize("kind", ["simple", "hf"])
def test_a_saved_tokenizer_gives_the_same_ids_from_what_was_saved(kind, folder, tmp_path):
    before = OpenClipTokenizer(settings(kind), folder if kind == "hf" else None, Reading("all"))
    saved = before.save(tmp_path)
    after = OpenClipTokenizer(saved, tmp_path / "tokenizer" if kind == "hf" else None, Reading("all"))
    assert after(TEXTS) == before(TEXTS)
    assert after.facts() == before.facts()


def test_facts_change_with_the_files(folder, tmp_path):
    first = OpenClipTokenizer(settings("hf"), folder, Reading("all"))
    first.copy_files(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace('"apple"', '"pear"'))
    assert OpenClipTokenizer(settings("hf"), tmp_path, Reading("all")).facts() != first.facts()


def test_any_thread_may_ask(folder):
    tokenize = OpenClipTokenizer(settings("hf"), folder, Reading("masked", 0))
    expected = [tokenize([text]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: tokenize([text]), TEXTS)) == expected
        list(pool.map(lambda text: tokenize.lengths([text]), TEXTS))
        assert list(pool.map(lambda text: tokenize([text]), TEXTS)) == expected


def test_texts_that_utf8_cannot_hold_are_mended_and_what_is_no_text_is_refused(folder):
    for kind in ("simple", "hf"):
        tokenize = OpenClipTokenizer(settings(kind), folder if kind == "hf" else None, Reading("all"))
        assert tokenize(["red \ud800"]) == tokenize(["red \ufffd"])
        assert tokenize([]) == []
        with pytest.raises(EncoderError, match="must be a str, but int was given"):
            tokenize(["red", 7])


def test_a_configuration_cannot_have_a_tokenizer_run_code_of_its_own(folder, tmp_path):
    OpenClipTokenizer(settings("hf"), folder, Reading("all")).copy_files(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}'
    )
    tokenize = OpenClipTokenizer(settings("hf", trust_remote_code=True), tmp_path, Reading("all"))
    with pytest.raises(EncoderError, match="cannot be read"):
        tokenize(["a"])
    assert not ran.exists()


@pytest.mark.parametrize(
    ("text_cfg", "reading"),
    [
        ({}, Reading("greatest")),
        ({"pool_type": "eos", "eos_id": 2}, Reading("mark", 2)),
        ({"pool_type": "last"}, Reading("all")),
        ({"no_causal_mask": True}, Reading("all")),
        ({"no_causal_mask": True, "pool_type": "last"}, Reading("all")),
        ({"embed_cls": True}, Reading("all")),
    ],
)
def test_padding_stays_wherever_the_tower_could_see_it(text_cfg, reading):
    assert reading_of({"text_cfg": text_cfg}, None) == reading


def test_a_hugging_face_text_tower_masks_its_own_mark_of_padding():
    config = {"model_type": "xlm-roberta"}
    assert reading_of({"text_cfg": {"hf_model_name": "x"}}, config) == Reading("masked", 1)


def test_settings_are_those_open_clip_reads_from_the_text_cfg():
    assert tokenizer_settings({"text_cfg": {}}) == {
        "kind": "simple",
        "limit": 77,
        "mode": None,
        "options": {},
    }
    text_cfg = {
        "hf_tokenizer_name": "x",
        "context_length": 64,
        "tokenizer_mode": "clips",
        "tokenizer_kwargs": {"clean": "lower"},
    }
    expected = {"kind": "hf", "limit": 64, "mode": "clips", "options": {"clean": "lower"}}
    assert tokenizer_settings({"text_cfg": text_cfg}) == expected
