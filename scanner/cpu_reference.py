"""A part of every recording of another device, computed on the CPU too.

A phantom tells whether a device computes small models rightly. Whether it did so with this model,
these texts and these batches is told by a few of its stimuli: what is going to be recorded of them,
in the batches that they are recorded in, against each alone on the CPU in float32.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import psutil
import torch

from scanner.model import Model
from scanner.passes import Passes
from scanner.phantom import MASKED, difference, short
from scanner.plan import Recording
from scanner.reading import Reading
from scanner.streaming import Rows

# Stimuli that are compared, at even distances.
FEW = 4
# Of the CPU's memory, what a second copy of a model may take.
SHARE = 0.5


def off_from_cpu(
    recording: Recording, model: Model, reading: Reading, passes: Passes
) -> dict[str, str]:
    """How far each site is off from the CPU, as an attribute of a volume; none on the CPU itself.

    Parameters
    ----------
    recording : Recording
    model : Model
        Set to hear what is recorded.
    reading : Reading
    passes : Passes
        Those that the recording is going to have.

    Returns
    -------
    dict of str to str
        ``off_from_cpu``, as JSON: of each kind of site and each layer the norm of the difference
        over the norm of the CPU's, at the worst row; or why it was not compared.
    """
    if model.device == "cpu":
        return {}
    why = _not_compared(model)
    found = {"not_compared": why} if why else _compared(recording, model, reading, passes)
    return {"off_from_cpu": json.dumps(found)}


def _not_compared(model: Model) -> str:
    if model.parts:
        return "its parts lie on several devices"
    if model.bits is not None:
        return f"its weights are rounded to {model.bits} where it computes"
    needs = 4 * sum(weight.numel() for weight in model.network.parameters())
    has = psutil.virtual_memory().total
    if needs > SHARE * has:
        return f"it takes {needs / 1e9:.3g} GB in float32, and the CPU's memory is {has / 1e9:.3g}"
    return ""


def _compared(
    recording: Recording, model: Model, reading: Reading, passes: Passes
) -> dict[str, object]:
    count = len(reading.ids)
    few = np.unique(np.linspace(0, count - 1, min(FEW, count)).round().astype(int))
    found, expected = _Kept(few), _Kept(few)
    for rows in passes.batches:
        if np.isin(few, np.concatenate(rows)).any():
            passes.run(rows, found)
    plain = _on_cpu(recording, model)
    with plain.eager():
        alone = Passes(recording, plain, reading, share=False)
        for one in few:
            alone.run([np.array([one])], expected)
    off: dict[str, list[float | str]] = {}
    for (kind, _layer), rows in expected.rows.items():
        if kind != "logits_token":
            _, relative = difference(_stacked(rows), _stacked(found.rows[kind, _layer]))
            off.setdefault(kind, []).append(short(relative))
    return {"stimuli": few.tolist(), "reference": "float32, each text alone", **off}


def _on_cpu(recording: Recording, model: Model) -> Model:
    """The same weights, computed in float32."""
    plain = Model.load(recording.source, dtype=model.dtype, device="cpu")
    if model.seed is not None:  # what a seed draws depends on the dtype
        plain = plain.twin(model.seed)
    return replace(plain, network=plain.network.float(), dtype="float32")


class _Kept:
    """Takes what a recording keeps, and keeps of it what some stimuli have."""

    def __init__(self, stimuli: np.ndarray):
        self._stimuli = stimuli
        self.rows: dict[tuple[str, int | None], dict[int, torch.Tensor]] = {}

    def put(
        self,
        variable: str,
        layer: int | None,
        rows: Rows,
        values: torch.Tensor,
        *,
        pick: np.ndarray | None = None,
    ) -> None:
        places = np.arange(len(rows.numbers)) if pick is None else pick
        kept = self.rows.setdefault((variable, layer), {})
        for at in np.flatnonzero(np.isin(rows.stimuli, self._stimuli)):
            row = values[int(places[at])].cpu().double().flatten()
            if variable == "attn_scores":  # outside a window it is the least number of the dtype
                row = row.masked_fill(row < MASKED, 0.0)
            kept[int(rows.numbers[at])] = row


def _stacked(rows: Mapping[int, torch.Tensor]) -> torch.Tensor:
    numbers: Sequence[int] = sorted(rows)
    return torch.stack([rows[number] for number in numbers])
