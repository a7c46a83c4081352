"""One self-contained page for a study: gather what it left, and set it.

The page asks nothing of a network and holds nothing that its inputs do not: the same results give
the same bytes.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from protocols.report import words
from protocols.report.calibrated import calibrated
from protocols.report.cards import cards
from protocols.report.described import described, found_of
from protocols.report.methods import paragraphs, references
from protocols.report.published import beside
from protocols.report.words import Table
from protocols.schema import Study
from scanner.phantom import in_words
from scanner.volume import provenance
from stimuli import load, shipped

_HERE = Path(__file__).parent
EXAMPLES = 3
# What a recording says of itself, in the order in which it is shown.
RECORDED = (
    "revision", "weights", "weights_sha256", "tokenizer_sha256", "config_sha256", "stimuli_sha256",
    "initialisation", "twin_seed", "tokens", "chat", "device", "dtype", "store", "attention",
    "sharing", "batch", "threads", "code_version", "protocol_sha256", "time",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A stimulus, cut at its target."""

    before: str
    target: str
    after: str
    category: str


@dataclass(frozen=True)
class Stimuli:
    """What was read, and how equal its categories are on the surface."""

    words: str
    examples: list[Example]
    balance: Table
    shares: tuple[str, ...]


@dataclass(frozen=True)
class Recorded:
    """A recording, with what it says of its making."""

    subject: str
    path: str
    sha256: str
    facts: list[tuple[str, str]]
    identities: list[tuple[str, str]]
    differs: list[tuple[str, str]]


def render(study: Study, summary: Mapping[str, Any], home: Path, root: Path) -> str:
    """The report of a study, as one HTML page.

    Parameters
    ----------
    study : Study
    summary : mapping
        What `verdicts.json` holds.
    home : pathlib.Path
        Folder of the study.
    root : pathlib.Path
        Folder of results, which the recordings lie in.

    Returns
    -------
    str
    """
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "between", "p_value", "odds", "percent", "plain", "capital", "spelled"):
        templates.filters[name] = getattr(words, name)
    templates.filters["figure_json"] = _figure_json
    template = templates.get_template("report.html.j2")
    return template.render(gather(study, summary, home, root))


def gather(study: Study, summary: Mapping[str, Any], home: Path, root: Path) -> dict[str, Any]:
    """What the template shows; the parameters are those of `render`."""
    volumes = {
        recording["subject"]: _opened(root / recording["path"])
        for recording in summary["recordings"]
    }
    return {
        "title": study.protocol.title or study.protocol.study,
        "protocol": study.protocol,
        "summary": summary,
        "trained": [one for one in summary["recordings"] if one["seed"] is None],
        "statuses": words.STATUSES,
        "lead": lead(study, summary),
        "cards": cards(study, summary, home),
        "described": described(study, summary, home),
        "tables": beside(study, found_of(study, summary, home)),
        "stimuli": stimuli(study, summary, volumes),
        "methods": paragraphs(study, summary, volumes),
        "references": references(study, summary),
        "recordings": [
            _recorded(one, _opened(root / one["path"]), summary)
            for one in (*summary["recordings"], *summary["effects"])
        ],
        "calibrated": calibrated(),
        "protocol_text": study.text,
        "style": Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup((_HERE / "report.js").read_text(encoding="utf-8")),
        "plotly": packed(get_plotlyjs()),
    }


def packed(library: str) -> str:
    """A library as the page carries it: report.js unpacks it, which takes two fifths of the bytes.

    Without the time of day, so that the same results give the same page.
    """
    return b64encode(gzip.compress(library.encode(), mtime=0)).decode()


def lead(study: Study, summary: Mapping[str, Any]) -> str:
    """The study in a few sentences."""
    table = study.stimuli.table
    names = [one["subject"] for one in summary["recordings"] if one["seed"] is None]
    twins = sum(one["seed"] is not None for one in summary["recordings"])
    read = (
        f"The {'subject' if len(names) == 1 else 'subjects'} {words.listed(names)} read "
        f"{len(table)} stimuli: "
        f"{table['item'].nunique()} items of {table['category'].nunique()} categories in "
        f"{words.counted(table['frame'].nunique(), 'sentence frame')}"
    )
    if twins:
        read += f"; so did {words.spelled(twins)} untrained {'twin' if twins == 1 else 'twins'}"
    verdicts = summary["verdicts"]
    if not verdicts:
        return f"{read}. No hypothesis was registered, so nothing is claimed."
    text = f"{read}. {_counts(verdicts)}"
    exploratory = sum(verdict["exploratory"] for verdict in verdicts)
    if study.protocol.exploratory:
        text += (
            " This is a look, of which the protocol says that it is exploratory: no verdict is a "
            "finding."
        )
    elif exploratory:
        text += (
            f" {words.spelled(exploratory).capitalize()} "
            f"{'was' if exploratory == 1 else 'were'} not registered before all of the data were "
            f"recorded: exploratory, and no {'finding' if exploratory == 1 else 'findings'} "
            "whatever the verdict."
        )
    findings = sum(v["status"] == "supported" and not v["exploratory"] for v in verdicts)
    return f"{text} That leaves {words.spelled(findings)} confirmatory {_findings(findings)}."


def _findings(count: int) -> str:
    return "finding" if count == 1 else "findings"


def _counts(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """How many hypotheses met which verdict; those that none met are named too."""
    found = [verdict["status"] for verdict in verdicts]
    met = [
        f"{words.spelled(found.count(status))} {'is' if found.count(status) == 1 else 'are'} "
        f"{status}"
        for status in words.STATUSES
        if status in found
    ]
    unmet = [status for status in words.STATUSES if status not in found]
    none = f"; none is {words.listed(unmet, 'or')}" if unmet else ""
    asked = f"{words.spelled(len(found))} {'hypothesis' if len(found) == 1 else 'hypotheses'}"
    return f"Of {asked}, {words.listed(met)}{none}."


def _opened(path: Path) -> xr.Dataset:
    """A volume, whose labels and attributes are read; without chunks, which dask would read."""
    return xr.open_zarr(path, chunks=None, consolidated=False)


def stimuli(study: Study, summary: Mapping[str, Any], volumes: Mapping[str, xr.Dataset]) -> Stimuli:
    """What was read: counts, examples, and the balance of the categories."""
    table = study.stimuli.table
    frames, categories = table["frame"].nunique(), table["category"].nunique()
    text = (
        f"Set '{study.protocol.stimuli.set}': {len(table)} stimuli, "
        f"{words.counted(table['item'].nunique(), 'item')} of "
        f"{words.counted(categories, 'category', 'categories')} in "
        f"{words.counted(frames, 'frame')}."
    )
    rows = ((np.arange(EXAMPLES) + 0.5) * len(table) / EXAMPLES).astype(int)
    examples = [_example(table.iloc[row]) for row in dict.fromkeys(rows.tolist())]
    balance, shares = _balance(table, summary, volumes)
    return Stimuli(text + _part(study), examples, balance, shares)


def _part(study: Study) -> str:
    """That only a part of the set was read, and of how much."""
    spec = study.protocol.stimuli
    sampled = "" if spec.sampled is None else f" Items are values of {words.plain(spec.sampled)}."
    if spec.whole:
        return f"{sampled} The whole set was read."
    asked = [
        f"only {words.plain(column)} {words.listed([str(one) for one in values])}"
        for column, values in (spec.only or {}).items()
    ]
    if spec.items is not None:
        asked.append(f"{spec.items} items a category, at even steps along word frequency")
    if spec.frames is not None:
        asked.append(f"the first {spec.frames} frames")
    whole = ""
    if spec.set in shipped():
        full = load(spec.set).table
        whole = (
            f" of the {len(full)} stimuli ({full['item'].nunique()} items, "
            f"{full['frame'].nunique()} frames) of the set"
        )
    return f"{sampled} This is a part{whole}: {words.listed(asked)}."


def _example(row: pd.Series) -> Example:
    start, end = int(row["target_start"]), int(row["target_end"])
    text = str(row["text"])
    return Example(text[:start], text[start:end], text[end:], str(row["category"]))


def _balance(
    table: pd.DataFrame, summary: Mapping[str, Any], volumes: Mapping[str, xr.Dataset]
) -> tuple[Table, tuple[str, ...]]:
    """Means by category over items, and the share of the variance that lies between categories."""
    columns = {"characters": table["n_chars"], "zipf": table["zipf"]}
    trained = [one["subject"] for one in summary["recordings"] if one["seed"] is None]
    for name in trained:
        if "n_tokens" in volumes[name].coords:
            label = "tokens" if len(trained) == 1 else f"tokens of {name}"
            columns[label] = pd.Series(volumes[name]["n_tokens"].to_numpy())
    data = pd.DataFrame({**columns, "item": table["item"], "category": table["category"]})
    items = data.groupby(["category", "item"], sort=False).mean()
    by = items.groupby("category", sort=True)
    means, spreads, counts = by.mean(), by.std(), by.size()
    rows = tuple(
        (
            str(category),
            str(counts.loc[category]),
            *(f"{means.loc[category, c]:.2f} ({spreads.loc[category, c]:.2f})" for c in columns),
        )
        for category in means.index
    )
    shares = tuple(words.number(_eta_squared(items[c], means[c], counts)) for c in columns)
    return Table(("category", "items", *columns), rows), shares


def _eta_squared(values: pd.Series, means: pd.Series, counts: pd.Series) -> float:
    """Variance between categories over all variance; NaN where nothing varies."""
    total = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (means - values.mean()) ** 2).sum())
    return between / total if total > 0 else float("nan")


def _recorded(
    recording: Mapping[str, Any], volume: xr.Dataset, summary: Mapping[str, Any]
) -> Recorded:
    said = provenance(volume)
    sites = ", ".join(
        f"{name} ({' × '.join(f'{size} {dim}' for dim, size in values.sizes.items())})"
        for name, values in volume.data_vars.items()
    )
    environment, identities = said["environment"], said["identities"]
    assert isinstance(environment, dict) and isinstance(identities, dict)
    return Recorded(
        recording["subject"],
        recording["path"],
        recording["sha256"],
        [
            ("effects" if "analysis" in recording else "sites", sites),
            *((key, str(said[key])) for key in RECORDED if key in said),
            *_device(said),
        ],
        [(words.plain(name), words.deviation(value)) for name, value in identities.items()],
        [
            (name, version)
            for name, version in environment.items()
            if summary["environment"].get(name) != version
        ],
    )


def _device(said: Mapping[str, object]) -> list[tuple[str, str]]:
    """What is known of the device, of recordings that say it."""
    facts = []
    phantom = said.get("phantom")
    if isinstance(phantom, dict):
        facts.append(("phantom", in_words(phantom)))
    if "off_from_cpu" in said:
        facts.append(("off_from_cpu", json.dumps(said["off_from_cpu"])))
    return facts


def _figure_json(figure: go.Figure) -> Markup:
    """A figure to stand in a script element: plain lists, and nothing that could end it."""
    text = json.dumps(figure.to_plotly_json(), sort_keys=True, allow_nan=False, default=_plain)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a figure holds a {type(value).__name__}")
