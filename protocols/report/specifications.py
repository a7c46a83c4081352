"""What is shown of a claim under other settings: a specification curve, its words and its table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go

from protocols.report.figures import BLUE, QUIET, TEMPLATE, bare_axis
from protocols.report.words import Table, counted, listed, number, p_value, percent, plain
from verification import Hypothesis


class Curve(NamedTuple):
    """The figure of a specification curve, with its words and its numbers."""

    figure: go.Figure
    caption: str
    table: Table


def curve_of(hypothesis: Hypothesis, verdict: Mapping[str, Any], level: float) -> Curve:
    """What is shown of the `curve` of a verdict; `level` is the confidence of intervals."""
    caption = caption_of(hypothesis, verdict, level)
    return Curve(figure_of(hypothesis, verdict), caption, table_of(verdict))


def figure_of(hypothesis: Hypothesis, verdict: Mapping[str, Any]) -> go.Figure:
    """The effect under each specification with its interval, the smallest first.

    Parameters
    ----------
    hypothesis : Hypothesis
    verdict : mapping
        As in `verdicts.json`, with a `curve`.
    """
    shown = [one for one in verdict["curve"]["specifications"] if not one["reason"]]
    names = [words_of(one) for one in shown]
    effects = [one["effect"] for one in shown]
    colours = [BLUE if one["registered"] else QUIET for one in shown]
    figure = go.Figure()
    for one, name, effect, colour in zip(shown, names, effects, colours, strict=True):
        low, high = one["interval"]
        figure.add_scatter(
            x=[effect], y=[name], mode="markers", showlegend=False,
            marker={
                "color": colour, "size": 10, "symbol": "diamond" if one["registered"] else "circle"
            },
            error_x={
                "array": [high - effect], "arrayminus": [effect - low], "color": colour,
                "thickness": 1.2, "width": 4,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": QUIET, "width": 1, "dash": "dot"})
    figure.add_vrect(
        x0=0, x1=hypothesis.smallest_effect, fillcolor=QUIET, opacity=0.12, line_width=0
    )
    figure.update_layout(
        template=TEMPLATE,
        height=90 + 30 * len(shown),
        margin={"t": 20, "b": 56, "l": 62, "r": 20},
        dragmode=False,
        hovermode="closest",
        xaxis=bare_axis("effect, on the expected side", None, grid=True) | {"automargin": True},
        yaxis=bare_axis("", None) | {"automargin": True, "type": "category"},
    )
    return figure


def words_of(specification: Mapping[str, Any]) -> str:
    """``top 20, splits 30``."""
    return ", ".join(
        f"{plain(name)} {listed([str(one) for one in value]) if isinstance(value, list) else value}"
        for name, value in specification["settings"].items()
    )


def caption_of(hypothesis: Hypothesis, verdict: Mapping[str, Any], level: float) -> str:
    """What is drawn, and what it comes to."""
    curve = verdict["curve"]
    every = curve["specifications"]
    computed = sum(not one["reason"] for one in every)
    words = [
        f"The effect under {counted(len(every), 'specification')} (Simonsohn et al. 2020), every "
        f"combination of settings that were registered, each with its {percent(level)} interval; "
        "diamond: the one that is judged. Tinted: too small to matter.",
        f"{curve['same_sign']} of {computed} lie on the expected side, {curve['significant']} "
        f"significantly (alpha {hypothesis.alpha:g}, each by itself)"
        + (f"; their median is {number(curve['median'])}." if computed else "."),
    ]
    if curve["dealings"]:
        p = p_value(curve["p"])
        words.append(
            f"A median as large is found {'with' if p[0] in '<>' else 'with p ='} {p} where labels "
            f"are dealt out anew ({curve['dealings']} times, all specifications on each dealing)."
        )
    else:
        words.append("No joint test: labels dealt out anew are no world in which this must fail.")
    if computed < len(every):
        why = {one["reason"]: words_of(one) for one in reversed(every) if one["reason"]}
        missing = [f"{reason} ({settings})" for reason, settings in why.items()]
        words.append(f"{len(every) - computed} of {len(every)} {'; '.join(missing)}.")
    words.append("It decides nothing.")
    return " ".join(words)


def table_of(verdict: Mapping[str, Any]) -> Table:
    """The numbers of the figure, a row a specification."""
    return Table(
        ("settings", "effect", "from", "to", "p"),
        tuple(
            (
                words_of(one),
                number(one["effect"]),
                *map(number, one["interval"]),
                "-" if one["p"] is None else p_value(one["p"]),
            )
            for one in verdict["curve"]["specifications"]
        ),
    )
