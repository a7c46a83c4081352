"""What a charge does to networks that were trained here: differences of pairs by its strength.

Each network with a charge is held against the one that differs from it by nothing else. Drawn are
all such pairs of a study, also those that no claim is about; only claims are judged.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from scipy.stats import t as student

from protocols.report.figures import BLUE, BOTTOM, QUIET, TEMPLATE, bare_axis
from protocols.report.words import number, percent, plain
from protocols.schema import PenaltySpec, Study

# Of the intervals, for the eye.
LEVEL = 0.95
# Losses that lie nearer to each other than this share are called matched.
MATCHED = 0.02
# By how much arms of one strength are drawn beside it.
ASIDE = 1.4
# Colours of Okabe and Ito, in the order in which arms stand in a protocol, and symbols beside them.
COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")


class Charged(NamedTuple):
    """A network with a charge, and the one of the same seed without, as a protocol calls them."""

    model: str
    without: str
    kind: str
    strength: float


class Arm(NamedTuple):
    """Pairs of one kind and strength of charge: the difference in each."""

    kind: str
    strength: float
    differences: np.ndarray


def charged(study: Study) -> list[Charged]:
    """All networks with a charge that have another without."""
    trained = {
        spec.called: spec.trained for spec in study.protocol.subjects if spec.trained is not None
    }
    none = PenaltySpec(kind="none")
    found = []
    for model, how in trained.items():
        alike = how.model_copy(update={"penalty": none})
        without = next((other for other, one in trained.items() if one == alike), None)
        if how.penalty.kind != "none" and without is not None:
            found.append(Charged(model, without, how.penalty.kind, how.penalty.strength))
    return found


def arms(pairs: Sequence[Charged], values: Mapping[str, float]) -> list[Arm]:
    """Differences by kind and strength, in the order of the protocol, weaker charges first.

    Parameters
    ----------
    pairs : sequence of Charged
    values : mapping of str to float
        Of subjects, as the protocol calls them; pairs of which one is missing are left out.
    """
    there = [one for one in pairs if one.model in values and one.without in values]
    kinds = list(dict.fromkeys(one.kind for one in there))
    doses = sorted({(one.kind, one.strength) for one in there},
                   key=lambda one: (kinds.index(one[0]), one[1]))  # fmt: skip
    return [
        Arm(
            kind,
            strength,
            np.array([
                values[one.model] - values[one.without]
                for one in there
                if (one.kind, one.strength) == (kind, strength)
            ]),
        )
        for kind, strength in doses
    ]  # fmt: skip


def valued(
    measures: Mapping[str, xr.Dataset], variable: str, layer: int | None
) -> dict[str, float]:
    """A variable of each subject that has it, at a layer if it has some."""
    return {
        model: float(one[variable] if layer is None else one[variable].sel(layer=layer))
        for model, one in measures.items()
        if variable in one
    }


def in_percent(pairs: Sequence[Charged], values: Mapping[str, float]) -> list[Arm]:
    """By how much more each network has than its other, in hundredths of what that has."""
    relative = {one.without: 0.0 for one in pairs}
    relative |= {
        one.model: 100 * (values[one.model] / values[one.without] - 1)
        for one in pairs
        if one.model in values and one.without in values
    }
    return arms(pairs, relative)


def by_strength(found: Sequence[Arm], *, name: str, band: float | None = None) -> go.Figure:
    """The mean difference by strength with its interval over pairs, arms apart, and each pair.

    Parameters
    ----------
    found : sequence of Arm
    name : str
        Of the axis.
    band : float, optional
        Differences up to this, on either side, are tinted.
    """
    figure = go.Figure()
    for place, kind in enumerate(dict.fromkeys(arm.kind for arm in found)):
        some = [arm for arm in found if arm.kind == kind]
        # Arms of one strength stand side by side, the first in its place.
        aside = ASIDE**place
        look = {"color": COLOURS[place % 4], "symbol": SYMBOLS[place % 4]}
        figure.add_scatter(
            x=[aside * arm.strength for arm in some for _ in arm.differences],
            y=[float(one) for arm in some for one in arm.differences],
            mode="markers", showlegend=False, marker={**look, "size": 5, "opacity": 0.35},
            hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=[aside * arm.strength for arm in some],
            y=[float(arm.differences.mean()) for arm in some],
            mode="lines+markers", name=plain(kind), marker={**look, "size": 10},
            line={"color": look["color"], "width": 1.2},
            error_y={"array": [half_width(arm.differences) for arm in some],
                     "color": look["color"], "thickness": 1.4, "width": 5},
            text=[f"{arm.strength:g}" for arm in some],
            hovertemplate="strength %{text}: %{y:.3f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": QUIET, "width": 1, "dash": "dot"})
    if band is not None:
        figure.add_hrect(y0=-band, y1=band, fillcolor=QUIET, opacity=0.1, line_width=0)
    figure.update_layout(
        template=TEMPLATE,
        height=400,
        margin={"t": 20, "b": BOTTOM, "l": 62, "r": 20},
        dragmode=False,
        hovermode="closest",
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        xaxis=bare_axis("strength of the charge", None)
        | {"type": "log", "automargin": True, "dtick": 1, "tickformat": ".0e"},
        yaxis=bare_axis(name, None, grid=True),
    )
    return figure


def half_width(differences: np.ndarray) -> float | None:
    """Of the interval of a mean over pairs, by Student's t; none of one pair."""
    count = len(differences)
    if count < 2:
        return None
    spread = float(differences.std(ddof=1)) / np.sqrt(count)
    return float(student.ppf((1 + LEVEL) / 2, count - 1) * spread)


def in_words(found: Sequence[Arm]) -> str:
    """``wiring at 3e-05: 0.052 (0.021 to 0.083, 10 pairs)``, arm by arm."""
    told = []
    for arm in found:
        middle, half = float(arm.differences.mean()), half_width(arm.differences)
        between = "" if half is None else f"{number(middle - half)} to {number(middle + half)}, "
        count = len(arm.differences)
        told.append(
            f"{plain(arm.kind)} at {arm.strength:g}: {number(middle)} "
            f"({between}{count} {'pair' if count == 1 else 'pairs'})"
        )
    return "; ".join(told) + f". Intervals are of {percent(LEVEL)}, over pairs"
