"""One card for each hypothesis: what was claimed, what was found, and how it was judged.

Every card has the same parts in the same order, whatever its verdict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses import Quantity
from protocols.report.figures import LOOKS, Judged, band, by_layer, worlds
from protocols.report.members import caption_of, figure_of, table_of
from protocols.report.specifications import Curve, curve_of
from protocols.report.words import Table, counted, listed, number, percent, plain
from protocols.schema import Study
from verification import CONTROLS, Hypothesis
from verification.base import EVERY
from verification.measure import THROUGH_DEPTH


@dataclass(frozen=True)
class Card:
    """What the page shows of one hypothesis.

    Attributes
    ----------
    number : int
        Place in the protocol, from 1.
    hypothesis : Hypothesis
    verdict : mapping
        As in `verdicts.json`.
    subject : str
    meaning : str
        Of the measure.
    level : str
        Confidence of its interval.
    expected : str
        What was expected, in words.
    figure : plotly.graph_objects.Figure or None
        None where nothing could be measured.
    caption : str
    table : Table or None
        The numbers of the figure.
    how : list of (str, str)
        How it was judged, as pairs of a term and its words.
    curve : Curve or None
        What it is under other settings; None where none were registered.
    """

    number: int
    hypothesis: Hypothesis
    verdict: Mapping[str, Any]
    subject: str
    meaning: str
    level: str
    expected: str
    figure: go.Figure | None
    caption: str
    table: Table | None
    how: list[tuple[str, str]]
    curve: Curve | None


def cards(study: Study, summary: Mapping[str, Any], home: Path) -> list[Card]:
    """The cards of a study, in the order in which its hypotheses were registered.

    Parameters
    ----------
    study : Study
    summary : mapping
        What `verdicts.json` holds.
    home : pathlib.Path
        Folder of the study.
    """
    verdicts = {verdict["id"]: verdict for verdict in summary["verdicts"]}
    return [
        _card(study, place, hypothesis, verdicts[hypothesis.id], home)
        for place, hypothesis in enumerate(study.protocol.hypotheses, 1)
    ]


def _card(
    study: Study, place: int, hypothesis: Hypothesis, verdict: Mapping[str, Any], home: Path
) -> Card:
    analysis, _, variable = hypothesis.measure.partition(".")
    quantity = study.analyses[analysis].measures[variable]
    evidence = _evidence(home / "evidence" / f"{hypothesis.id}.nc")
    level = 1 - 2 * hypothesis.alpha
    figure, caption, table = None, "", None
    if verdict["members"]:
        figure = figure_of(hypothesis, verdict)
        caption = caption_of(hypothesis, verdict, quantity, level)
        table = table_of(hypothesis, verdict)
    elif "observed" in evidence:
        judged = _judged(hypothesis, verdict, quantity)
        figure = by_layer(evidence, measure=variable, level=level, judged=judged)
        caption = _caption(hypothesis, verdict, evidence, quantity, level)
        table = _table(evidence, level)
    return Card(
        place,
        hypothesis,
        verdict,
        _speaks_of(study, hypothesis),
        quantity.meaning,
        percent(level),
        _expected(hypothesis, verdict["reference"]),
        figure,
        caption,
        table,
        _how(study, hypothesis, verdict),
        None if verdict["curve"] is None else curve_of(hypothesis, verdict, level),
    )


def _evidence(path: Path) -> xr.Dataset:
    if not path.is_file():
        return xr.Dataset()
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def _judged(hypothesis: Hypothesis, verdict: Mapping[str, Any], quantity: Quantity) -> Judged:
    low, high = verdict["interval"]
    return Judged(
        verdict["layer"],
        verdict["estimate"],
        (low, high),
        verdict["reference"],
        1 if hypothesis.expect == "greater" else -1,
        verdict["smallest_effect"],
        quantity.least,
        quantity.greatest,
    )


def _expected(hypothesis: Hypothesis, reference: float | None) -> str:
    """``greater than chance (0.100) by at least 0.1``."""
    if hypothesis.follows is not None:
        return (
            f"a rank correlation with {plain(hypothesis.follows)} over subjects {hypothesis.expect}"
            f" than 0 by at least {hypothesis.smallest_effect:g}"
        )
    if hypothesis.minus is not None:
        return (
            f"a mean difference over pairs of subjects {hypothesis.expect} than 0 by at least "
            f"{hypothesis.smallest_effect:g}"
        )
    if hypothesis.than != "chance":
        than = f"{hypothesis.than:g}"
    else:
        than = "chance" if reference is None else f"chance ({number(reference)})"
    return f"{hypothesis.expect} than {than} by at least {hypothesis.smallest_effect:g}"


def _caption(
    hypothesis: Hypothesis,
    verdict: Mapping[str, Any],
    evidence: xr.Dataset,
    quantity: Quantity,
    level: float,
) -> str:
    """What is drawn, from what is there to be drawn."""
    name = plain(hypothesis.measure.partition(".")[2]).capitalize()
    bounded = np.isfinite([quantity.least, quantity.greatest]).all()
    scale = f"; scale {quantity.least:g} to {quantity.greatest:g}" if bounded else ""
    words = [
        f"{name} ({quantity.meaning}{scale}) by layer, "
        f"on the {counted(verdict['items'], 'item')} that judge."
    ]
    if "half_samples" in evidence:
        words.append(
            f"Band: {percent(level)} interval at each layer by itself, from "
            f"{evidence.sizes['half_sample']} half-samples of the items; it guides the eye."
        )
    if verdict["estimate"] is not None:
        words.append(
            f"Diamond: the judged estimate with its {percent(level)} interval from the gate; "
            "only it decides."
        )
    paired = hypothesis.beside is not None
    words += [_world_words(name, len(values), paired) for name, values in worlds(evidence).items()]
    words.append("Tinted: too small to matter, from the reference to the smallest effect.")
    low, high = verdict["interval"]
    if hypothesis.at.layer in THROUGH_DEPTH:
        words.append("The estimate is of how the measure changes through the depth.")
    elif low is not None and (low < quantity.least or high > quantity.greatest):
        words.append(
            "The interval is symmetric about its estimate (Student's t) and passes the end of the "
            "scale; it is shown as computed."
        )
    elif low is not None and (low == quantity.least or high == quantity.greatest):
        words.append("The interval is cut at the end of the scale; the rule used it uncut.")
    return " ".join(words)


def _world_words(name: str, draws: int, paired: bool) -> str:
    pairs, twins = counted(draws, "pair"), counted(draws, "untrained twin")
    words = {
        "untrained_twin": f"Thin lines: {f'{pairs} with an untrained twin' if paired else twins}.",
        "shuffled_labels": f"Grey: {counted(draws, 'shuffling')} of the labels among items, and "
        "their range.",
        "surface_only": "Dashed: the same analysis on the surface of the words, by "
        f"{counted(draws, 'family', 'families')} of features; no layer changes it.",
        "random_target": f"Green lines: {counted(draws, 'random target')}, to which the same was "
        "done.",
        "known_target": "Dashed: what surely has an effect.",
        "rotated_units": "Dotted: the same activations in other bases, whose units are turned at "
        "random.",
        "control_task": f"Dotted: {counted(draws, 'control task')}, whose labels are dealt out at "
        "random and read by recognising.",
        "shuffled_items": f"Grey: {counted(draws, 'shuffling')} of the items of the other model, "
        "and their range.",
        "beyond_surface": "Green, dashed: both models without what the surface of the words "
        "predicts of them.",
        "planted_likeness": "Dashed: a model that has been made like the other.",
        "planted_modules": "Dashed: a model with modules planted in every layer.",
        "shuffled_nodes": f"Grey: {counted(draws, 'shuffling')} of the wiring among the heads of "
        "each layer, and their range.",
        "planted_wiring": "Dashed: a model whose heads follow their wiring.",
        "planted_units": "Dashed: a model with selective units planted in every layer.",
    }
    return words.get(name, f"Dash-dotted: the world of {plain(name)}.")


def _table(evidence: xr.Dataset, level: float) -> Table:
    """The numbers of the figure, a row a layer."""
    columns = {"observed": evidence["observed"].to_numpy()}
    if "half_samples" in evidence:
        columns["from"], columns["to"] = band(evidence, level=level)
    for name, values in worlds(evidence).items():
        words = LOOKS[name].words if name in LOOKS else plain(name)
        if len(values) == 1:
            columns[words] = values[0]
        else:
            columns[f"{words}, least"] = np.min(values, 0)
            columns[f"{words}, greatest"] = np.max(values, 0)
    return Table(
        ("layer", *columns),
        tuple(
            (str(layer), *(number(values[row]) for values in columns.values()))
            for row, layer in enumerate(evidence["layer"].to_numpy())
        ),
    )


def _how(study: Study, hypothesis: Hypothesis, verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    name, _, _ = hypothesis.measure.partition(".")
    (kind,) = study.protocol.analyses[name]
    settings = [
        f"{key} {listed([str(one) for one in value]) if isinstance(value, list) else value}"
        for key, value in study.protocol.analyses[name][kind].items()
    ]
    required = [control for control in hypothesis.controls if control in CONTROLS]
    return [
        ("Measure", f"{hypothesis.measure}: {kind} ({', '.join(settings) or 'default settings'})"),
        ("Subject", _speaks_of(study, hypothesis)),
        ("Layer", _layer(hypothesis, verdict)),
        ("Items", f"{verdict['items']} that judge"),
        (
            "Error rate",
            f"alpha {hypothesis.alpha:g}, one-sided; interval {percent(1 - 2 * hypothesis.alpha)}",
        ),
        ("Controls registered", listed(required) or "none"),
        ("Rationale, as registered", hypothesis.rationale),
        *(
            [("Published", f"{hypothesis.published.found} ({hypothesis.published.by})")]
            if hypothesis.published is not None
            else []
        ),
    ]


def _speaks_of(study: Study, hypothesis: Hypothesis) -> str:
    """Of which subjects a claim is, in words."""
    if hypothesis.minus is not None:
        pairs = zip(hypothesis.among or (), hypothesis.minus, strict=True)
        return f"pairs: {listed([f'{one} less {other}' for one, other in pairs])}"
    if hypothesis.subject == EVERY:
        return f"every one of {listed(study.subjects_of(hypothesis))}"
    (group,) = study.groups_of(hypothesis)
    return " beside ".join(group)


def _layer(hypothesis: Hypothesis, verdict: Mapping[str, Any]) -> str:
    """The layer and how it was chosen."""
    asked = hypothesis.at.layer
    if asked == "selected":
        share = percent(hypothesis.selection)
        if isinstance(verdict["layer"], int):
            return (
                f"{verdict['layer']}, selected: the strongest on {share} of each category's items, "
                "which were then left out"
            )
        return f"to be selected on {share} of each category's items; none was selected"
    if isinstance(asked, int):
        return f"{asked}, registered in advance"
    if asked == "steepest":
        return "how fast it rises through the depth where it rises fastest, registered in advance"
    if asked == "dip":
        return "how far it falls in the middle below both sides, registered in advance"
    return f"{asked} over all layers, registered in advance"
