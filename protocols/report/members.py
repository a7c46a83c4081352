"""What is shown of a claim about every subject: each of them, with its worlds, and their table.

Of a claim about pairs it is their differences.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from analyses import Quantity
from protocols.report.figures import BLUE, BOTTOM, LOOKS, OTHER, QUIET, TEMPLATE, bare_axis
from protocols.report.words import Table, counted, number, percent, plain
from verification import Hypothesis


def figure_of(hypothesis: Hypothesis, verdict: Mapping[str, Any]) -> go.Figure:
    """The measure of each subject with its interval, and of its worlds; by score if there is one.

    Of a claim about pairs, the difference in each and in its worlds.

    Parameters
    ----------
    hypothesis : Hypothesis
    verdict : mapping
        As in `verdicts.json`, with `members`.
    """
    paired = hypothesis.minus is not None
    members = differences(verdict) if paired else verdict["members"]
    scored, figure = hypothesis.follows is not None, go.Figure()
    names = [one["subject"] for one in members]
    places = [one["score"] for one in members] if scored else names
    for control in members[0]["worlds"]:
        look = LOOKS.get(control, OTHER)
        figure.add_scatter(
            x=places, y=[one["worlds"][control] for one in members], mode="markers",
            name=look.words or plain(control), text=names,
            marker={"color": look.colour, "symbol": "line-ew-open", "size": 14},
            hovertemplate="%{text}: %{y:.3f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    middle = [one["estimate"] for one in members]
    figure.add_scatter(
        x=places, y=middle, mode="markers", name="observed", text=names,
        marker={"color": BLUE, "size": 9},
        error_y=None if paired else {
            "array": [one["interval"][1] - one["estimate"] for one in members],
            "arrayminus": [one["estimate"] - one["interval"][0] for one in members],
            "color": BLUE, "thickness": 1.2, "width": 4,
        },
        hovertemplate="%{text}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    if not scored and verdict["estimate"] is not None:
        low, high = verdict["interval"]
        figure.add_hrect(y0=low, y1=high, fillcolor=BLUE, opacity=0.12, line_width=0)
        figure.add_hline(y=verdict["estimate"], line={"color": BLUE, "width": 1})
    if verdict["reference"] is not None and not scored:
        figure.add_hline(y=verdict["reference"], line={"color": QUIET, "width": 1, "dash": "dot"})
    across = (
        bare_axis(plain(hypothesis.follows), None) if hypothesis.follows else bare_axis("", None)
    )
    figure.update_layout(
        template=TEMPLATE,
        height=400,
        margin={"t": 20, "b": BOTTOM, "l": 62, "r": 20},
        dragmode=False,
        hovermode="closest",
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        xaxis=across | {"automargin": True},
        yaxis=bare_axis(plain(hypothesis.measure.partition(".")[2]), None, grid=True),
    )
    return figure


def differences(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each pair, as of a subject, the difference and that in the worlds of the controls."""
    half = len(verdict["members"]) // 2
    ones, others = verdict["members"][:half], verdict["members"][half:]
    return [
        {
            "subject": f"{one['subject']} less {other['subject']}",
            "estimate": one["estimate"] - other["estimate"],
            "worlds": {name: one["worlds"][name] - other["worlds"][name] for name in one["worlds"]},
        }
        for one, other in zip(ones, others, strict=True)
    ]


def caption_of(
    hypothesis: Hypothesis, verdict: Mapping[str, Any], quantity: Quantity, level: float
) -> str:
    """What is drawn."""
    members = verdict["members"]
    name = plain(hypothesis.measure.partition(".")[2]).capitalize()
    if hypothesis.minus is not None:
        return (
            f"By how much {name.lower()} ({quantity.meaning}) differs in each of "
            f"{counted(len(members) // 2, 'pair')} of subjects and, as lines, in the worlds of "
            f"the controls. Tinted: the mean and its {percent(level)} interval over pairs; what "
            "decides is this, and how many of all signs of the differences have a mean as large. "
            "Dotted: none."
        )
    words = [
        f"{name} ({quantity.meaning}) of {counted(len(members), 'subject')}, each with its "
        f"{percent(level)} interval over items and, as lines, what it has in the worlds of the "
        "controls."
    ]
    if hypothesis.follows is None:
        words.append(
            f"Tinted: the mean and its {percent(level)} interval over subjects and items, which "
            "decides. Dotted: what it is compared with."
        )
    else:
        words.append(
            f"What decides is the rank correlation with {plain(hypothesis.follows)} over subjects."
        )
    return " ".join(words)


def table_of(hypothesis: Hypothesis, verdict: Mapping[str, Any]) -> Table:
    """The numbers of the figure, a row a subject."""
    members = verdict["members"]
    controls = list(members[0]["worlds"])
    if hypothesis.minus is not None:
        half = len(members) // 2
        return Table(
            ("pair", "one", "other", "difference", *map(plain, controls)),
            tuple(
                (
                    pair["subject"],
                    number(one["estimate"]),
                    number(other["estimate"]),
                    number(pair["estimate"]),
                    *(number(pair["worlds"][control]) for control in controls),
                )
                for pair, one, other in zip(
                    differences(verdict), members[:half], members[half:], strict=True
                )
            ),
        )
    score = [] if hypothesis.follows is None else [plain(hypothesis.follows)]
    header = ("subject", *score, "observed", "from", "to", *map(plain, controls))
    return Table(
        header,
        tuple(
            (
                one["subject"],
                *([number(one["score"])] if score else []),
                number(one["estimate"]),
                *map(number, one["interval"]),
                *(number(one["worlds"][control]) for control in controls),
            )
            for one in members
        ),
    )
