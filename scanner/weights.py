"""The weights of models, tensor by tensor, and what tuning has changed in them.

A model is a folder of safetensors, of which one matrix at a time is read; so is what a tuned model
has and its base has not (a task vector, Ilharco et al. 2023; a tuning vector, Tanwar et al. 2025).
Two matrices at most are in memory at once, whatever the model. A LoRA adapter is read as what it
is, two thin matrices whose product is the change: nothing is merged.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from safetensors import safe_open

from scanner.components import Component, Components, Piece, components
from scanner.model import Model

# Rows of the base that are in memory while they are taken away from a tuned tensor.
_ROWS = 2048
_FLOATS = {"F64", "F32", "F16", "BF16"}
ADAPTER = "adapter_config.json"
_FACTORS = ".lora_A.weight", ".lora_B.weight"


class WeightsError(ValueError):
    """Weights that cannot be read or compared; the message says why and what to do."""


class Stored(NamedTuple):
    """Where a tensor lies: its file, its name there, its shape and its type."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Weights(ABC):
    """Matrices of a model, or of what has changed in one, by what they are.

    Attributes
    ----------
    pieces : tuple of Piece
        What there is, outside of the blocks first, then layer by layer.
    left_out : mapping of str to str
        Tensors that are none of them, and why.
    """

    pieces: tuple[Piece, ...]
    left_out: Mapping[str, str]

    @abstractmethod
    def matrix(self, piece: Piece) -> np.ndarray:
        """One of them: output x input, float32; what is no matrix stands in a single row."""


@dataclass(frozen=True)
class Folder(Weights):
    """The weights of a model on disk.

    Attributes
    ----------
    path : pathlib.Path
        As of `scanner.Source.folder`.
    components : Components
    stored : mapping of str to Stored
        Of the model's tensors, by what the network calls them.
    """

    path: Path
    components: Components
    stored: Mapping[str, Stored]

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Find what lies where; no weights are read.

        Raises
        ------
        WeightsError
            If there are no safetensors, or no configuration.
        SiteError
            If the architecture is not known.
        """
        files = sorted(path.glob("*.safetensors"))
        if not files or not (path / "config.json").is_file():
            raise WeightsError(
                f"{path}: no *.safetensors with a config.json; save the model with save_pretrained"
            )
        known = components(path)
        stored, left_out = {}, {}
        for one in stored_in(files):
            called = known.called(one.name)
            if called is None:
                left_out[one.name] = "it is no tensor of this architecture"
            elif called in known.tied:
                left_out[one.name] = f"it is {known.tied[called]} once more"
            elif one.dtype not in _FLOATS:
                left_out[one.name] = f"it is kept as {one.dtype}, and no number by itself"
            else:
                stored[called] = one
        pieces = _ordered(piece for name in stored for piece in known.pieces(name))
        return cls(pieces, left_out, path, known, stored)

    def matrix(self, piece: Piece) -> np.ndarray:
        return oriented(self.rows(piece.tensor, 0, None), piece)

    def rows(self, tensor: str, first: int, end: int | None) -> np.ndarray:
        """Some rows of a tensor as it is stored, float32."""
        one = self.stored[tensor]
        with safe_open(one.file, framework="pt") as opened:
            return opened.get_slice(one.name)[first:end].float().numpy()


@dataclass(frozen=True)
class InMemory(Weights):
    """The weights of a model in the scanner, as an untrained twin has them; `Folder` names them."""

    model: Model

    @classmethod
    def of(cls, model: Model, like: Folder) -> "InMemory":
        """Those of a model of the same architecture as one on disk."""
        return cls(like.pieces, like.left_out, model)

    def matrix(self, piece: Piece) -> np.ndarray:
        whole = self.model.network.get_parameter(piece.tensor)
        return oriented(whole.detach().float().cpu().numpy(), piece)


@dataclass(frozen=True)
class Change(Weights):
    """What a tuned model has and its base has not, tensor by tensor."""

    base: Folder
    tuned: Folder

    @classmethod
    def between(cls, base: Folder, tuned: Folder) -> "Change":
        """Find what the two share."""
        left_out = {f"{name} of the base": why for name, why in base.left_out.items()}
        left_out |= {f"{name} of the tuned": why for name, why in tuned.left_out.items()}
        names = sorted({*base.stored, *tuned.stored})
        apart = {
            name: why
            for name in names
            if (why := _why_apart(base.stored.get(name), tuned.stored.get(name)))
        }
        pieces = tuple(one for one in base.pieces if one.tensor not in apart)
        return cls(pieces, left_out | apart, base, tuned)

    def matrix(self, piece: Piece) -> np.ndarray:
        changed = self.tuned.rows(piece.tensor, 0, None)
        for first in range(0, len(changed), _ROWS):
            end = min(first + _ROWS, len(changed))
            changed[first:end] -= self.base.rows(piece.tensor, first, end)
        return oriented(changed, piece)


class _Factors(NamedTuple):
    """Of a change of low rank: rank x input and output x rank, and what their product is times."""

    first: Stored
    second: Stored
    scale: float


@dataclass(frozen=True)
class LowRank(Weights):
    """What a LoRA adapter changes in its base (Hu et al. 2022), by its two thin matrices.

    Attributes
    ----------
    factors : mapping of str to tuple
        Of the tensors that it changes, by what the network calls them.
    """

    factors: Mapping[str, _Factors]

    @classmethod
    def open(cls, base: Folder, path: Path) -> "LowRank":
        """Find what lies where in the folder of an adapter that peft has saved.

        Raises
        ------
        WeightsError
            If it is no LoRA, or one whose change is not the product of two matrices.
        """
        config = json.loads((path / ADAPTER).read_text())
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
            raise WeightsError(
                f"{path}: an adapter of type {kind}, whose change is not the product of two "
                "matrices; merge it into its base with peft, and compare the models"
            )
        every = {one.name: one for one in stored_in(sorted(path.glob("*.safetensors")))}
        factors, left_out = {}, {}
        for name, one in every.items():
            module, ending = name.removesuffix(_FACTORS[0]), _FACTORS[0]
            called = base.components.called(f"{module.removeprefix('base_model.model.')}.weight")
            second = every.get(module + _FACTORS[1])
            if name.endswith(_FACTORS[1]):
                continue
            if not name.endswith(ending) or second is None:
                left_out[name] = "it is no factor of a change"
            elif called not in base.stored:
                left_out[name] = "its base has no such tensor"
            else:
                scale = _scale(config, module.removeprefix("base_model.model."), one.shape[0])
                factors[called] = _Factors(one, second, scale)
        pieces = tuple(one for one in base.pieces if one.tensor in factors)
        return cls(pieces, left_out, factors)

    def thin(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices whose product is the change: output x rank and rank x input, float32."""
        one = self.factors[piece.tensor]
        first, second = (_read(stored).astype(np.float64) for stored in (one.first, one.second))
        second = second if piece.rows is None else second[list(piece.rows)]
        return (one.scale * second).astype(np.float32), first.astype(np.float32)

    def matrix(self, piece: Piece) -> np.ndarray:
        second, first = self.thin(piece)
        return second @ first


def changes(base: Folder, tuned: Path) -> Weights:
    """What a tuned model, or an adapter, has and its base has not.

    Parameters
    ----------
    base : Folder
    tuned : pathlib.Path
        A folder, as of `scanner.Source.folder`; or that of a LoRA adapter.

    Returns
    -------
    Weights
        Its ``matrix`` of a piece is the tuning vector of that matrix; ``left_out`` says what the
        two do not share: tied, resized and foreign tensors.

    Raises
    ------
    WeightsError
        If they share no matrix.
    """
    found: Weights
    if (tuned / ADAPTER).is_file():
        found = LowRank.open(base, tuned)
    else:
        found = Change.between(base, Folder.open(tuned))
    if not found.pieces:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(found.left_out.items())[:3])
        raise WeightsError(f"{tuned} and {base.path} share no tensor ({reasons})")
    return found


def by_component(weights: Weights) -> dict[Component, tuple[Piece, ...]]:
    """The pieces of each component, in the order of layers."""
    found: dict[Component, tuple[Piece, ...]] = {}
    for piece in weights.pieces:
        found[piece.component] = (*found.get(piece.component, ()), piece)
    return found


def oriented(whole: np.ndarray, piece: Piece) -> np.ndarray:
    """The matrix of a piece from the tensor that holds it, as it is stored."""
    matrix = whole.T if piece.flipped else whole
    matrix = matrix if piece.rows is None else matrix[list(piece.rows)]
    # Experts that are kept in one tensor stand below each other.
    return matrix.reshape(-1, matrix.shape[-1]) if matrix.ndim != 1 else matrix[None]


def stored_in(files: Iterable[Path]) -> Iterable[Stored]:
    """Every tensor of some safetensors files; none is read."""
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                yield Stored(file, name, tuple(part.get_shape()), part.get_dtype())


def _why_apart(had: Stored | None, has: Stored | None) -> str:
    """Why a tensor of a base and that of a tuned model cannot be compared; else empty."""
    if had is None or has is None:
        return f"the {'tuned model' if has is None else 'base'} does not have it"
    return "" if had.shape == has.shape else f"it was resized, from {had.shape} to {has.shape}"


def _read(one: Stored) -> np.ndarray:
    with safe_open(one.file, framework="pt") as opened:
        return opened.get_tensor(one.name).to(torch.float32).numpy()


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product of two factors is multiplied by, as peft has it."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module)),
        config["lora_alpha"],
    )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _ordered(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    order = get_args(Component)

    def place(one: Piece) -> tuple[int, int, str]:
        layer = -1 if one.layer is None else one.layer
        return layer, order.index(one.component), one.tensor

    return tuple(sorted(pieces, key=place))
