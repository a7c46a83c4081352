"""Tables that others have published, with a study's own figures of the same kind beside them.

A table is shown where a hypothesis cites its source and an analysis measures what it holds. Nothing
is judged of it: models, questions and sizes differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import yaml

from analyses.neurons import Neurons
from analyses.replies import Replies
from protocols.report import words
from protocols.schema import Study

_READ = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SOURCE: str = _READ["source"]
TABLES: dict[str, dict[str, Any]] = _READ["tables"]
NONE = "-"
# Characters of a cell that holds numbers, at most.
LONGEST = 30
# Of the neurons, those that are silenced: the columns of the table of ablations.
SHARES = (0.01, 0.05, 1.0)


class Measured(NamedTuple):
    """What an analysis found in a subject, or in several at once."""

    analysis: str
    kind: str
    subjects: list[str]
    measures: xr.Dataset


Row = tuple[str, list[str]]


@dataclass(frozen=True)
class Beside:
    """A published table, and the rows of this study.

    Attributes
    ----------
    title, by, says, note : str
        `says` is what a figure without numbers shows; empty where there are numbers.
    header : list of str
        Of the columns, but that of the rows' names.
    theirs, ours : list of (str, list of str)
        Name and cells of each row.
    """

    title: str
    by: str
    says: str
    note: str
    header: list[str]
    theirs: list[Row]
    ours: list[Row]

    @property
    def texts(self) -> bool:
        """Whether cells are sentences and no numbers."""
        return any(len(cell) > LONGEST for _, cells in self.ours for cell in cells)


def beside(study: Study, found: Sequence[Measured]) -> list[Beside]:
    """The published tables of which a study has rows of its own, in the order of the file."""
    cited = [one.published.by for one in study.protocol.hypotheses if one.published is not None]
    if not any(SOURCE in by for by in cited):
        return []
    made = []
    for name, table in TABLES.items():
        some = [one for one in found if one.kind in table["kinds"]]
        header = _header(study, some, table)
        ours = [row for one in some for row in _OURS[name](study, one, table)]
        if not any(cell not in ("", NONE) for _, cells in ours for cell in cells):
            continue
        several = len({who.partition(": ")[0] for who, _ in ours}) > 1
        theirs = [
            (who, [_cell(value, table) for value in values])
            for who, values in table.get("rows", {}).items()
        ]
        made.append(
            Beside(
                table["title"],
                f"{SOURCE}, {table['by']}",
                table.get("says", "").strip(),
                table["note"].strip(),
                header,
                theirs,
                ours if several else [(who.partition(": ")[2], cells) for who, cells in ours],
            )
        )
    return made


def _header(study: Study, some: Sequence[Measured], table: Mapping[str, Any]) -> list[str]:
    """The columns of a table; of replies one for each question that is shown."""
    if table["columns"] != "categories" or not some:
        return list(table["columns"])
    asked, stimuli = some[0].measures["asked"], study.stimuli.table
    found = []
    for category, item in zip(asked["category"].to_numpy(), asked.to_numpy(), strict=True):
        there = stimuli[(stimuli["category"] == category) & (stimuli["item"] == item)]
        found.append(f"{item} ({there.sort_values('frame')['answer'].iloc[0]})")
    return found


def _cell(value: float | None, table: Mapping[str, Any]) -> str:
    """A number with the digits of its table; what is not there is a dash."""
    if value is None or not np.isfinite(value):
        return NONE
    if table.get("significant"):
        return f"{value:.{table['digits']}g}" if abs(value) < 1e4 else f"{value:.0f}"
    return f"{value:z.{table['digits']}f}"


def _named(one: Measured) -> str:
    return f"{one.analysis}: {words.listed(one.subjects)}"


def _with_interval(one: Measured, variable: str, times: float, digits: int) -> str:
    """A number of the first layer with its interval."""
    value, low, high = (
        words.number(times * float(one.measures[f"{variable}{end}"][0]), digits)
        for end in ("", "_low", "_high")
    )
    return f"{value} ({low} to {high})"


def _arm(one: Measured, variable: str, arm: str) -> float:
    """What was found of one of the things that were done, in the first layer."""
    values = one.measures[variable]
    return float(values.sel(arm=arm)[0]) if arm in values["arm"] else float("nan")


def _accuracy(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    """The average alone: the benchmarks are others."""
    told = _with_interval(one, "answered" if one.kind == "choices" else "right", 100, 1)
    return [(_named(one), [told, *[""] * (len(table["columns"]) - 1)])]


def _told(study: Study, one: Measured) -> bool:
    """Whether replies were told how to answer."""
    analysis = study.analyses[one.analysis]
    assert isinstance(analysis, Replies)
    return analysis.prompt != "plain"


def _overlap(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    """Of answers in words of their own."""
    if _told(study, one):
        return []
    told = _with_interval(one, "near", 1, 2)
    other = _cell(_arm(one, "near_of", "other"), table)
    told += "" if other == NONE else f"; {other}"
    return [(_named(one), [told, *[""] * (len(table["columns"]) - 1)])]


def _instructions(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    if not _told(study, one):
        return []
    cells = []
    for name in ("tags", "valid", "stopped"):
        told, *random = (
            words.number(100 * _arm(one, f"{name}_of", arm), 1)
            for arm in ("own", "shuffled", "other")
        )
        cells.append(f"{told}; {words.listed(random)}")
    return [(_named(one), cells)]


def _examples(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    replies = one.measures["example"][0].to_numpy()
    return [(_named(one), [str(reply).strip() or "(nothing)" for reply in replies])]


def _of_domains(study: Study, scores: xr.DataArray) -> list[float]:
    """The mean over the categories of each domain; NaN where the stimuli have none of it."""
    stimuli = study.stimuli.table
    if "domain" not in stimuli:
        return [float("nan")] * 2
    found = []
    for domain in TABLES["domains"]["columns"]:
        known = set(stimuli["category"][stimuli["domain"] == domain].astype(str))
        there = [one for one in scores["category"].to_numpy().astype(str) if one in known]
        found.append(float(scores.sel(category=there).mean()) if there else float("nan"))
    return found


def _domains(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    variable = "answered_by_category" if one.kind == "choices" else "right_by_category"
    shares = _of_domains(study, one.measures[variable][0])
    return [(_named(one), [_cell(100 * share, table) for share in shares])]


def _normalised(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    """Of each sum of several subjects, over each of these."""
    scores, rows = one.measures["standing_by_category"], []
    there = scores["subject"].to_numpy().astype(str).tolist()
    for spec in study.protocol.subjects:
        if spec.sum is None or spec.called not in there:
            continue
        added = [name for name, strength in spec.sum.add.items() if strength > 0 and name in there]
        if len(added) < 2:
            continue
        mine = np.array(_of_domains(study, scores.sel(subject=spec.called)))
        for name in added:
            theirs = np.array(_of_domains(study, scores.sel(subject=name)))
            over = np.divide(mine, theirs, out=np.full(2, np.nan), where=theirs > 0)
            rows.append((
                f"{one.analysis}: {spec.called} over {name}", [_cell(x, table) for x in over]
            ))  # fmt: skip
    return rows


def _by_component(
    variable: str, chance: str | None = None
) -> Callable[[Study, Measured, Mapping[str, Any]], list[Row]]:
    def rows(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
        measures = one.measures.isel(layer=0)
        found = []
        for name, told in ((variable, ""), (chance, ", by chance")):
            if name is None or name not in measures:
                continue
            values = dict(zip(
                measures["category"].to_numpy().astype(str), measures[name].to_numpy(), strict=True
            ))  # fmt: skip
            cells = [_cell(values.get(column), table) for column in table["columns"]]
            found.append((_named(one) + told, cells))
        return found

    return rows


def _cosines(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    cosine, size = (float(one.measures[name]) for name in ("whole_cosine", "whole_size"))
    return [(_named(one), [_cell(100 * cosine, table), words.percent(round(size, 5))])]


def _vectors(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    if "whole_aligned" not in one.measures:
        return []
    told = [float(one.measures[name]) for name in ("whole_aligned", "whole_aligned_z")]
    return [(_named(one), [_cell(value, table) for value in told])]


def _gates(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    """Of the base and of the variant; distances are of the variant."""
    rows, measures = [], one.measures
    if "open_share" not in measures:  # a twin
        return []
    for which in ("base", "variant"):
        opened = 100 * measures["open_share"].sel(subject=which).to_numpy()
        told = [float(opened[0]), float(opened.min()), float(opened[-1])]
        told += (
            [float("nan")] * 3
            if which == "base"
            else [float(measures["edited"].mean()), float(measures["edited"].max()),
                  float(measures["moved"].mean())]
        )  # fmt: skip
        name = _named(one) if which == "variant" else f"{_named(one)}, its base"
        rows.append((name, [_cell(value, table) for value in told]))
    return rows


def _ablation(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    """Neurons by their mean activation; of the share that is claimed, as many at random, too."""
    if "accuracy_by" not in one.measures:
        return []
    analysis = study.analyses[one.analysis]
    assert isinstance(analysis, Neurons)
    intact, left = float(one.measures["accuracy"]), one.measures["accuracy_by"][0]
    random = [100 * _arm(one, "relative_drop", kind) for kind in ("equal", "matched")]
    cells = []
    for share in SHARES:
        chosen = f"activation, {100 * share:g} %"
        there = chosen in left["chosen"].to_numpy().astype(str)
        lost = 100 * (1 - float(left.sel(chosen=chosen)) / intact) if there else float("nan")
        cells.append(_cell(lost, table))
        if there and (analysis.by, analysis.shares[0]) == ("activation", share):
            cells[-1] += f"; {words.listed([_cell(value, table) for value in random])}"
    return [(_named(one), cells)]


def _maps(study: Study, one: Measured, table: Mapping[str, Any]) -> list[Row]:
    measures = one.measures
    if "map" not in measures:  # a twin
        return []
    told = [float(measures["alike"][0]), float(measures["ceiling"])]
    told += [_arm(one, "alike_of", arm) for arm in ("other", "shown")]
    held = ("base, with and without", "base and variant, both with")
    there = "alike_in_template" in measures
    told += [
        float(measures["alike_in_template"].sel(held=one)[0]) if there else float("nan")
        for one in held
    ]
    return [(_named(one), [_cell(value, table) for value in told])]


_OURS: Mapping[str, Callable[[Study, Measured, Mapping[str, Any]], list[Row]]] = {
    "accuracy": _accuracy,
    "overlap": _overlap,
    "instructions": _instructions,
    "examples": _examples,
    "domains": _domains,
    "normalised": _normalised,
    "shares": _by_component("share", "share_chance"),
    "inside": _by_component("energy_inside"),
    "outside": _by_component("energy_outside"),
    "cosines": _cosines,
    "vectors": _vectors,
    "gates": _gates,
    "ablation": _ablation,
    "maps": _maps,
}
