"""How large a model is and what it costs, told by its configuration alone: no weights are read.

Parameters are counted in the model that transformers would build, on a device that holds nothing.
Configurations come from the folder of an embedded or a local model, from the hub's local cache, or
from the few that are shipped (``configurations.json``). Nothing is fetched for a hub model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanner.quantised import GROUP, Bits
from scanner.sources import (
    EMBEDDED,
    Anatomy,
    SourceError,
    anatomy_of,
    configuration_of,
    find_source,
)
from scanner.structure import find_blocks

SHIPPED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("configurations.json").read_text()
)
# Tokens of a word where there is no tokenizer: of the shipped sets 1.0 to 1.3 for both embedded
# subjects.
TOKENS_PER_WORD = 1.2
# Floating-point operations of a weight and token: a product and a sum.
OPERATIONS = 2


@dataclass(frozen=True)
class Size:
    """What a model is made of.

    Attributes
    ----------
    parameters : int
    blocks : int
        Those of its blocks.
    active : float
        Of these, what a token goes through: of experts, those that are chosen.
    head : int
        Those of the vocabulary head, tied or not.
    anatomy : Anatomy
    origin : str
        Where the configuration is from.
    folder : pathlib.Path or None
        Where its tokenizer is, if it is here.
    """

    parameters: int
    blocks: int
    active: float
    head: int
    anatomy: Anatomy
    origin: str
    folder: Path | None

    def weight_bytes(self, dtype: str, bits: Bits | None) -> int:
        """Memory that the weights take on a device."""
        width = getattr(torch, dtype).itemsize
        if bits is None:
            return self.parameters * width
        # A scale for each group or output, and in 4 bits a zero.
        each = 1.0 if bits == "int8" else 1.0 + (width + 1) / GROUP
        return round((self.parameters - self.blocks) * width + self.blocks * each)

    def operations(self, tokens: float, *, predicted: float = 0) -> float:
        """Floating-point operations of a forward pass: ``2 N`` a token.

        Attention's own, which grow with the square of a text, are left out: texts are short.

        Parameters
        ----------
        tokens : float
            That go through the blocks.
        predicted : float
            That go through the vocabulary head.
        """
        return OPERATIONS * (self.active * tokens + self.head * predicted)


@cache
def size_of(model: str, revision: str | None = None) -> Size:
    """The size of a model by the name that a protocol has for it.

    Parameters
    ----------
    model : str
        An embedded name, a folder, or a hub id.
    revision : str, optional

    Raises
    ------
    SourceError
        If its configuration is nowhere here.
    SiteError
        If it has no blocks.
    """
    config, origin, folder = _configuration(model, revision)
    network = _empty(config)
    text = config.get_text_config()
    inside = find_blocks(network.base_model, text.num_hidden_layers)
    blocks = {name: one.numel() for name, one in inside.named_parameters()}
    experts = sum(size for name, size in blocks.items() if ".experts." in name)
    chosen = _told(text, "num_experts_per_tok", "experts_per_token", "num_experts_per_token")
    there = _told(text, "num_local_experts", "num_experts", "n_routed_experts")
    idle = experts * (1 - chosen / there) if chosen and there else 0.0
    return Size(
        sum(one.numel() for one in network.parameters()),
        sum(blocks.values()),
        sum(blocks.values()) - idle,
        text.vocab_size * text.hidden_size,
        anatomy_of(config),
        origin,
        folder,
    )


def _told(text: Any, *names: str) -> int:
    return next((getattr(text, name) for name in names if getattr(text, name, None)), 0)


def _configuration(model: str, revision: str | None) -> tuple[Any, str, Path | None]:
    """A configuration, where it is from, and the folder with the tokenizer if there is one."""
    if model in EMBEDDED or Path(model).is_dir():
        source = find_source(model)
        return configuration_of(source.folder, source.name), f"its folder ({model})", source.folder
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(cached, str):
        folder = Path(cached).parent
        tokenizer = folder if (folder / "tokenizer.json").is_file() else None
        return configuration_of(folder, model), "the local cache of the hub", tokenizer
    if model not in SHIPPED:
        raise SourceError(
            f"subject '{model}': its configuration is neither in the local cache nor among those "
            f"that are shipped ({', '.join(SHIPPED)}). Fetch it once (`hf download {model} "
            "config.json tokenizer.json`), or give a local folder."
        )
    from transformers import AutoConfig

    given = dict(SHIPPED[model]["config"])
    kind = given.pop("model_type")
    return AutoConfig.for_model(kind, **given), SHIPPED[model]["from"], None


def _empty(config: Any) -> Any:
    """The network without its numbers."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def token_ids(size: Size, texts: Sequence[str]) -> list[list[int]] | None:
    """Texts in tokens, if the tokenizer is here."""
    if size.folder is None:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(size.folder, local_files_only=True)
    return tokenizer(list(texts), verbose=False)["input_ids"]


def guessed_lengths(texts: Sequence[str]) -> np.ndarray:
    """How many tokens texts have, about, a begin-of-text token among them: text."""
    words = np.array([len(text.split()) for text in texts])
    return np.ceil(words * TOKENS_PER_WORD).astype(int) + 1
