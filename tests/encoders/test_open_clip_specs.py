"""What specs of open_clip name, which weights are taken, and what is said of those that are not."""

import json
import logging
import os
import shutil

import numpy as np
import open_clip
import open_clip.factory
import open_clip.pretrained
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _http
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.encoders.families import family
from crossmodal.errors import EncoderError

MODEL_CFG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEXTS = ["a red apple", "two boats", ""]


@pytest.fixture(scope="module")
def state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = open_clip.CLIP(**MODEL_CFG)
    # Two activations differ visibly only where their inputs are not tiny.
    generator = torch.Generator().manual_seed(11)
    return {
        name: torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
        if tensor.ndim > 1
        else tensor
        for name, tensor in model.state_dict().items()
    }


@pytest.fixture
def folder(state, tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    write_config(path)
    save_file(state, path / "open_clip_model.safetensors")
    return path


def write_config(path, model_cfg=MODEL_CFG, **preprocess_cfg):
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (path / "open_clip_config.json").write_text(json.dumps(config))


@pytest.fixture
def tiny(monkeypatch):
    """Let open_clip know one more architecture by name."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-ViT", MODEL_CFG)
    return "tiny-ViT"


def embed_texts(spec):
    return load_encoder(spec, backend="torch").encode_texts(TEXTS)


def owners_texts(*arguments, **options):
    model = open_clip.create_model(*arguments, **options).eval()
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=12)(TEXTS)
    with torch.inference_mode():
        return model.encode_text(tokens, normalize=True).numpy()


def refusal(spec):
    """Give the one line that is said of a spec, at the latest when its towers are built."""
    with pytest.raises(EncoderError) as caught:
        read_blueprint(spec).load()
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---- What is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "pt", "wrapped.pt", "parallel.bin", "half.pth"])
def test_a_file_of_weights_gives_what_open_clip_makes_of_it(form, state, tiny, tmp_path):
    path = tmp_path / f"weights.{form}"
    match form:
        case "safetensors":
            save_file(state, path)
        case "pt":
            torch.save(state, path)
        case "wrapped.pt":
            torch.save({"epoch": 3, "state_dict": state}, path)
        case "parallel.bin":
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
        case "half.pth":
            torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    theirs = owners_texts(tiny, pretrained=str(path))
    assert (embed_texts(f"open_clip:{tiny}/{path}") * theirs).sum(axis=1).min() > 0.99999


def test_weights_of_another_picture_size_and_text_length_are_fitted_as_open_clip_fits_them(
    state, tiny, tmp_path, monkeypatch
):
    larger = {**MODEL_CFG, "vision_cfg": {**MODEL_CFG["vision_cfg"], "image_size": 32}}
    larger["text_cfg"] = {**MODEL_CFG["text_cfg"], "context_length": 20}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, tiny, larger)
    save_file(state, tmp_path / "w.safetensors")
    ours = read_blueprint(f"open_clip:{tiny}/{tmp_path / 'w.safetensors'}").load().owner.state_dict()
    theirs = open_clip.create_model(tiny, pretrained=str(tmp_path / "w.safetensors")).state_dict()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def test_a_tag_trained_with_quickgelu_is_built_with_it_and_that_is_said(
    state, tiny, tmp_path, monkeypatch, caplog
):
    save_file(state, tmp_path / "w.safetensors")
    tag = {"file": str(tmp_path / "w.safetensors"), "quick_gelu": True, "mean": [0.1] * 3, "std": [0.2] * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, {"openai": tag})
    caplog.set_level(logging.INFO, logger="crossmodal")
    ours = embed_texts(f"open_clip:{tiny}/openai")
    assert "was trained with QuickGELU" in caplog.text
    theirs = owners_texts(tiny, pretrained="openai", force_quick_gelu=True)
    plain = embed_texts(f"open_clip:{tiny}/{tmp_path / 'w.safetensors'}")
    assert (ours * theirs).sum(axis=1).min() > 0.999999
    assert (plain * theirs).sum(axis=1).min() < 0.99998, (
        "the two activations have to differ, or nothing is told"
    )
    architecture = read_blueprint(f"open_clip:{tiny}/openai").architecture
    assert architecture["preprocess_cfg"]["mean"] == [0.1] * 3


def test_quickgelu_outlives_checkpoint_and_export(state, tiny, tmp_path, monkeypatch):
    save_file(state, tmp_path / "w.safetensors")
    tag = {"file": str(tmp_path / "w.safetensors"), "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, {"openai": tag})
    blueprint = read_blueprint(f"open_clip:{tiny}/openai")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    family("open_clip").export(blueprint.load(), blueprint, tmp_path / "exported")
    expected = embed_texts(blueprint.name)
    np.testing.assert_array_equal(embed_texts(str(tmp_path / "saved")), expected)
    np.testing.assert_array_equal(embed_texts(f"open_clip:local-dir:{tmp_path / 'exported'}"), expected)


def keep_in_hub_cache(cache, repo, *files):
    """Lay files where the hub's client keeps what it fetched of a repository."""
    home, commit = cache / f"models--{repo.replace('/', '--')}", "a" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    for file in files:
        shutil.copy(file, home / "snapshots" / commit)


def write_word_tokenizer(folder):
    file = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "red": 2, "[EOS]": 3}, unk_token="[UNK]"))
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=file, pad_token="[PAD]").save_pretrained(folder)
    return folder


def test_what_the_hub_gave_before_serves_without_network(folder, tmp_path, monkeypatch):
    text_cfg = {**MODEL_CFG["text_cfg"], "hf_tokenizer_name": "someone/words", "pool_type": "last"}
    write_config(folder, {**MODEL_CFG, "text_cfg": text_cfg}, mean=[0.3] * 3)
    keep_in_hub_cache(tmp_path / "hub", "someone/model", *folder.iterdir())
    tokenizer = write_word_tokenizer(tmp_path / "tokenizer")
    keep_in_hub_cache(tmp_path / "hub", "someone/words", *tokenizer.iterdir())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    blueprint = read_blueprint("open_clip:hf-hub:someone/model")
    assert blueprint.name == "open_clip:hf-hub:someone/model"
    assert blueprint.architecture["preprocess_cfg"]["mean"] == [0.3] * 3
    assert blueprint.tokenizer(["red blue"]) == [[2, 1] + [0] * 10]
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    local = f"open_clip:local-dir:{folder}"
    assert blueprint.fingerprint == read_blueprint(local).fingerprint
    np.testing.assert_array_equal(embed_texts(blueprint.name), embed_texts(local))


def test_towers_share_their_parameters_with_the_model_that_is_saved(folder):
    model = read_blueprint(f"open_clip:local-dir:{folder}").load()
    towers = {id(p) for tower in (model.image, model.text) for p in tower.parameters()}
    owned = {id(p): name for name, p in model.owner.named_parameters()}
    assert towers < set(owned)
    assert [owned[i] for i in set(owned) - towers] == ["logit_scale"]


def test_a_blueprint_is_read_without_loading_the_weights(folder):
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights")
    blueprint = read_blueprint(f"open_clip:local-dir:{folder}")
    assert blueprint.dim == 16
    assert blueprint.preprocessing.shape == (16, 16)


def test_building_a_model_leaves_torchs_random_numbers_alone(folder):
    blueprint = read_blueprint(f"open_clip:local-dir:{folder}")
    before = torch.get_rng_state()
    blueprint.load()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_name_finds_the_model_from_any_folder(folder, tiny, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert read_blueprint("open_clip:local-dir:model").name == f"open_clip:local-dir:{folder}"
    file = "model/open_clip_model.safetensors"
    assert read_blueprint(f"open_clip:{tiny}/{file}").name == f"open_clip:{tiny}/{folder.parent / file}"


def test_the_fingerprint_is_that_of_the_content_not_of_the_place(folder, tmp_path):
    def seen(path):
        return read_blueprint(f"open_clip:local-dir:{path}").fingerprint

    first = seen(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert seen(tmp_path / "copy") == first
    write_config(tmp_path / "copy", mean=[0.5] * 3)
    assert seen(tmp_path / "copy") != first
    write_config(tmp_path / "copy", {**MODEL_CFG, "quick_gelu": True})
    assert seen(tmp_path / "copy") != first
    write_config(tmp_path / "copy")
    changed = load_file(folder / "open_clip_model.safetensors")
    changed["logit_scale"] += 1
    save_file(changed, tmp_path / "copy" / "open_clip_model.safetensors")
    assert seen(tmp_path / "copy") != first


# ---- What is refused, in one line ------------------------------------------------------------------------


def test_an_unknown_architecture_names_the_nearest_and_how_many_there_are():
    line = refusal("open_clip:vit-b32/openai")
    assert line.startswith("Unknown open_clip architecture 'vit-b32'. Nearest of ")
    assert str(len(open_clip.list_models())) in line
    assert "ViT-B-32" in line
    assert len(line) < 300


def test_an_architecture_alone_is_refused_with_its_tags():
    line = refusal("open_clip:ViT-B-32")
    assert "names no weights" in line
    assert all(tag in line for tag in open_clip.list_pretrained_tags_by_model("ViT-B-32"))


def test_an_unknown_tag_names_the_nearest():
    assert "Unknown tag of ViT-B-32 'opnai'. Did you mean 'openai'?" in refusal("open_clip:ViT-B-32/opnai")


@pytest.mark.parametrize("spec", ["ViT-B-32/openai", "MobileCLIP2-S0/dfndr2b", "hf-hub:nobody/nothing"])
@pytest.mark.parametrize("how", ["offline", "refused"])
def test_without_network_one_line_names_what_works_without(spec, how, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "offline")
    if how == "refused":  # nothing listens there
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{filename}"
        )
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    _http.close_session()
    line = refusal(f"open_clip:{spec}")
    _http.close_session()
    assert line.startswith(f"open_clip:{spec} has to come from the Hugging Face hub, and that failed (")
    assert ("HF_HUB_OFFLINE is set" if how == "offline" else "refused") in line
    assert "local-dir:FOLDER" in line
    assert "lite" in line


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "Unknown open_clip architecture ''"),
        ("local-dir:", "names nothing"),
        ("local-dir:/nowhere", "holds no open_clip_config.json"),
        ("ViT-B-32/nowhere.safetensors", "No file of weights at"),
        (f"ViT-B-32/{os.devnull}", "No file of weights at"),
    ],
)
def test_what_is_not_there_is_named(spec, said):
    assert said in refusal(f"open_clip:{spec}")


def test_a_file_that_is_none_of_weights_is_refused_by_its_suffix(folder):
    assert "expected one with .safetensors" in refusal(f"open_clip:ViT-B-32/{folder}/open_clip_config.json")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "open_clip_model.safetensors").unlink()
    assert "holds no weights" in refusal(f"open_clip:local-dir:{folder}")


def test_weights_that_do_not_fit_are_listed_by_kind_the_first_of_each(folder, state):
    wrong = dict(state)
    del wrong["ln_final.weight"], wrong["ln_final.bias"]
    wrong["visual.proj"] = torch.zeros(7, 5)
    wrong |= {f"head.{place}": torch.zeros(1) for place in range(5)}
    save_file(wrong, folder / "open_clip_model.safetensors")
    line = refusal(f"open_clip:local-dir:{folder}")
    assert "2 missing (ln_final.weight, ln_final.bias)" in line
    assert "5 unexpected (head.0, head.1, head.2, head.3, head.4)" in line
    assert "1 of another shape (visual.proj (7, 5) instead of (32, 16))" in line


def test_weights_of_another_width_are_told_as_such(folder):
    write_config(folder, {**MODEL_CFG, "text_cfg": {**MODEL_CFG["text_cfg"], "width": 32}})
    line = refusal(f"open_clip:local-dir:{folder}")
    assert "of another shape (" in line
    assert "token_embedding.weight (49408, 16) instead of (49408, 32)" in line


def test_weights_replaced_after_the_spec_was_read_are_not_loaded(folder, state):
    blueprint = read_blueprint(f"open_clip:local-dir:{folder}")
    other = {name: 2 * tensor for name, tensor in state.items()}
    save_file(other, folder / "open_clip_model.safetensors")
    with pytest.raises(EncoderError, match="has changed since it was opened; open it again"):
        blueprint.load()
    read_blueprint(f"open_clip:local-dir:{folder}").load()


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_torn_safetensors_is_told(folder, keep):
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    line = refusal(f"open_clip:local-dir:{folder}")
    assert "its header is torn" in line or "is torn: 3259619 bytes, its header tells of 3259620" in line


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4" + bytes(50)])
def test_a_torn_pt_is_told(tiny, tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    line = refusal(f"open_clip:{tiny}/{tmp_path / 'w.pt'}")
    assert "is torn or no file of weights" in line or "would run code" in line


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tiny, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {"logit_scale": Trap()}}, tmp_path / "w.pt")
    assert "would run code when read" in refusal(f"open_clip:{tiny}/{tmp_path / 'w.pt'}")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_is_refused_as_code(tiny, tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    assert "would run code when read" in refusal(f"open_clip:{tiny}/{tmp_path / 'w.pt'}")


@pytest.mark.parametrize("held", [[1, 2], {}, {"epoch": 3}, torch.zeros(3)])
def test_a_pt_without_a_state_dict_is_told(tiny, tmp_path, held):
    torch.save(held, tmp_path / "w.pt")
    assert "holds no tensors by their names" in refusal(f"open_clip:{tiny}/{tmp_path / 'w.pt'}")


@pytest.mark.parametrize(
    ("model_cfg", "said"),
    [
        ({**MODEL_CFG, "embed_dim": None}, "has None as embed_dim; expected int"),
        (
            {**MODEL_CFG, "vision_cfg": {**MODEL_CFG["vision_cfg"], "patches": 3}},
            "cannot build the architecture",
        ),
        ({**MODEL_CFG, "vision_cfg": {"timm_model_name": "vit_nonsense"}}, "vit_nonsense"),
        ({**MODEL_CFG, "vision_cfg": {**MODEL_CFG["vision_cfg"], "image_size": [16, 32]}}, "only squares"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_told(folder, model_cfg, said):
    write_config(folder, model_cfg)
    assert said in refusal(f"open_clip:local-dir:{folder}")


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": 3}', '{"model_cfg": {}, "preprocess_cfg": 1}'])
def test_a_torn_configuration_is_told(folder, content):
    (folder / "open_clip_config.json").write_text(content)
    assert "open_clip_config.json" in refusal(f"open_clip:local-dir:{folder}")


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer", "architecture", "preprocess_cfg"])
def test_a_checkpoint_that_lost_a_part_is_told(folder, tmp_path, lost):
    blueprint = read_blueprint(f"open_clip:local-dir:{folder}")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    if lost.endswith(".safetensors"):
        (tmp_path / "saved" / lost).unlink()
    elif lost == "preprocess_cfg":
        del config["architecture"][lost]
    else:
        del config[lost]
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert str(tmp_path / "saved") in refusal(str(tmp_path / "saved"))
