"""Figures of what several lenses see of domains in the layers: a map each, and where they lie."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from protocols.report.figures import (
    BOTTOM,
    EITHER_SIGN,
    INK,
    MODELS,
    QUIET,
    SYMBOLS,
    TEMPLATE,
    bare_axis,
    layer_step,
)

ROW, HEAD = 20, 34
# Characters of a line over one of several maps, and how high it is.
TITLE, LINE = 16, 17
# A contrast of so many standard errors is drawn darkest.
DARKEST = 5.0
MORE = [[0, "#ffffff"], [0.35, "#b9d0e4"], [0.7, "#3d7fb3"], [1, "#0a2f51"]]


def lens_maps(
    values: xr.DataArray,
    chosen: xr.DataArray,
    bounds: Sequence[xr.DataArray] = (),
    *,
    name: str,
    signed: bool,
) -> go.Figure:
    """A map of domains by layers for each lens, with the layers that a rule takes marked.

    Parameters
    ----------
    values : xarray.DataArray
        lens x category x layer.
    chosen : xarray.DataArray
        The same, 1 where a layer is taken.
    bounds : sequence of xarray.DataArray
        The same, the ends of intervals, which are told where one points; none by default.
    name : str
        For the colour bar.
    signed : bool
        Whether 0 is the middle of the colours, of which DARKEST is the end; else each lens has
        colours of its own, up to its largest value.
    """
    lenses, domains = (values[dim].to_numpy().astype(str).tolist() for dim in ("lens", "category"))
    layers = values["layer"].to_numpy().tolist()
    figure = make_subplots(len(lenses), 1, shared_xaxes=True, vertical_spacing=0.05,
                           subplot_titles=lenses)  # fmt: skip
    for row, lens in enumerate(lenses, 1):
        here, *ends = (
            one.sel(lens=lens).transpose("category", "layer").to_numpy()[::-1]
            for one in (values, *bounds)
        )
        shown = here if signed else _scaled(here)
        figure.add_heatmap(
            row=row, col=1, x=layers, y=domains[::-1], z=_plain(shown),
            customdata=_plain(np.stack([here, *ends], axis=2)),
            coloraxis="coloraxis", xgap=1, ygap=1,
            hovertemplate=f"{lens}, %{{y}}, layer %{{x}}: %{{customdata[0]:.3g}}"
            + (" (%{customdata[1]:.3g} to %{customdata[2]:.3g})" if ends else "")
            + "<extra></extra>",
        )  # fmt: skip
        taken = chosen.sel(lens=lens).transpose("category", "layer").to_numpy() > 0
        at, where = np.nonzero(taken)
        figure.add_scatter(
            row=row, col=1, x=[layers[one] for one in where], y=[domains[one] for one in at],
            mode="markers", showlegend=False, hoverinfo="skip",
            marker={"size": 8, "color": "#ffffff", "line": {"color": INK, "width": 1.6}},
        )  # fmt: skip
    scale = (
        {"cmin": -DARKEST, "cmax": DARKEST, "colorscale": EITHER_SIGN}
        if signed
        else {"cmin": 0, "cmax": 1, "colorscale": MORE}
    )  # fmt: skip
    bar = {"title": {"text": name, "side": "right", "font": {"size": 12}}, "thickness": 10,
           "outlinewidth": 0, "ticks": "outside", "ticklen": 3}  # fmt: skip
    figure.update_layout(
        template=TEMPLATE,
        height=HEAD + BOTTOM + len(lenses) * (ROW * len(domains) + HEAD),
        margin={"t": HEAD, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False, coloraxis={**scale, "colorbar": bar},
    )  # fmt: skip
    figure.update_yaxes(automargin=True, fixedrange=True, ticks="", showgrid=False)
    step = layer_step(len(layers))
    figure.update_xaxes(bare_axis("", None) | {"tick0": layers[0], "dtick": step})
    figure.update_xaxes(title={"text": "layer", "standoff": 12}, row=len(lenses), col=1)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": INK})
    return figure


def subject_maps(agreed: Mapping[str, xr.DataArray], *, most: int) -> go.Figure:
    """How many lenses take each layer of a domain, of several subjects along the same depth.

    Parameters
    ----------
    agreed : mapping of str to xarray.DataArray
        By subject: category x layer.
    most : int
        How many lenses there are.
    """
    figure = make_subplots(len(agreed), 1, shared_xaxes=True, vertical_spacing=0.24 / len(agreed),
                           subplot_titles=list(agreed))  # fmt: skip
    rows = 0
    for row, values in enumerate(agreed.values(), 1):
        domains = values["category"].to_numpy().astype(str).tolist()[::-1]
        count = values.sizes["layer"]
        rows = max(rows, len(domains))
        figure.add_heatmap(
            row=row, col=1, x=((np.arange(count) + 0.5) / count).tolist(), y=domains,
            z=_plain(values.transpose("category", "layer").to_numpy()[::-1]),
            customdata=[values["layer"].to_numpy().tolist()] * len(domains),
            coloraxis="coloraxis", xgap=1, ygap=1,
            hovertemplate="%{y}, layer %{customdata}: %{z} lenses<extra></extra>",
        )  # fmt: skip
    bar = {"title": {"text": "lenses", "side": "right", "font": {"size": 12}}, "thickness": 10,
           "outlinewidth": 0, "ticks": "outside", "ticklen": 3, "dtick": 1}  # fmt: skip
    figure.update_layout(
        template=TEMPLATE,
        height=HEAD + BOTTOM + len(agreed) * (ROW * rows + HEAD),
        margin={"t": HEAD, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False,
        coloraxis={"cmin": 0, "cmax": most, "colorscale": MORE, "colorbar": bar},
    )  # fmt: skip
    figure.update_yaxes(automargin=True, fixedrange=True, ticks="", showgrid=False)
    figure.update_xaxes(bare_axis("", [0, 1]))
    figure.update_xaxes(
        title={"text": "depth (0: first layer, 1: last)", "standoff": 12}, row=len(agreed), col=1
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": INK})
    return figure


def side_by_side(values: xr.DataArray) -> go.Figure:
    """Maps of several models beside each other, in one scale of colours.

    Parameters
    ----------
    values : xarray.DataArray
        subject x patch x block; the first patch on top.
    """
    subjects, patches = (values[dim].to_numpy().astype(str).tolist() for dim in values.dims[:2])
    layers = values["block"].to_numpy().tolist()
    titles = [wrap(subject, TITLE) for subject in subjects]
    figure = make_subplots(1, len(subjects), shared_yaxes=True, horizontal_spacing=0.02,
                           subplot_titles=["<br>".join(lines) for lines in titles])  # fmt: skip
    for column, subject in enumerate(subjects, 1):
        figure.add_heatmap(
            row=1, col=column, x=layers, y=patches[::-1],
            z=_plain(values[column - 1].to_numpy()[::-1]), coloraxis="coloraxis", ygap=1,
            hovertemplate=f"{subject}, %{{y}}, layer %{{x}}: %{{z:.3f}}<extra></extra>",
        )  # fmt: skip
    largest = float(np.nanmax(np.abs(values.to_numpy()), initial=0)) or 1.0
    bar = {"title": {"text": "share of the way", "side": "right", "font": {"size": 12}},
           "thickness": 10, "outlinewidth": 0, "ticks": "outside", "ticklen": 3}  # fmt: skip
    head = HEAD + LINE * (max(map(len, titles)) - 1)
    figure.update_layout(
        template=TEMPLATE,
        height=head + BOTTOM + ROW * max(6, len(patches)),
        margin={"t": head, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False,
        coloraxis={"cmin": -largest, "cmax": largest, "colorscale": EITHER_SIGN, "colorbar": bar},
    )  # fmt: skip
    figure.update_yaxes(automargin=True, fixedrange=True, ticks="", showgrid=False)
    step = layer_step(len(layers) * len(subjects))  # of each there is a part of the width
    figure.update_xaxes(bare_axis("layer", None) | {"tick0": layers[0], "dtick": step})
    figure.update_annotations(font={"size": 13, "color": INK})
    return figure


def centres(values: xr.DataArray, low: xr.DataArray, high: xr.DataArray) -> go.Figure:
    """Where the middle of each profile lies in the depth, with its interval.

    Parameters
    ----------
    values, low, high : xarray.DataArray
        category x lens: 0 for the first layer, 1 for the last.
    """
    figure = go.Figure()
    domains, lenses = (values[dim].to_numpy().astype(str).tolist() for dim in ("category", "lens"))
    rows = np.arange(len(domains))[::-1]
    for place, lens in enumerate(lenses):
        middle, bottom, top = (
            one.transpose("category", "lens").to_numpy()[:, place] for one in (values, low, high)
        )
        aside = 0.16 * ((len(lenses) - 1) / 2 - place)
        figure.add_scatter(
            x=_plain(middle), y=(rows + aside).tolist(), mode="markers", name=lens,
            marker={"color": MODELS[place % len(MODELS)], "size": 8,
                    "symbol": SYMBOLS[place % len(SYMBOLS)]},
            error_x={"type": "data", "symmetric": False, "array": _plain(top - middle),
                     "arrayminus": _plain(middle - bottom), "thickness": 1.5, "width": 3},
            customdata=domains, hovertemplate=f"{lens}, %{{customdata}}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(0.5, line={"color": QUIET, "width": 1, "dash": "dot"})
    figure.update_layout(
        template=TEMPLATE,
        height=2 * HEAD + BOTTOM + 52 * len(domains),
        margin={"t": 2 * HEAD, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis=bare_axis("depth (0: first layer, 1: last)", [-0.02, 1.02], grid=True),
        yaxis={"tickvals": rows.tolist(), "ticktext": domains, "automargin": True,
               "fixedrange": True, "showgrid": False, "ticks": "", "zeroline": False},
    )  # fmt: skip
    return figure


def _scaled(values: np.ndarray) -> np.ndarray:
    """From the least to the largest of a lens."""
    if not np.isfinite(values).any():
        return values
    least, largest = np.nanmin(values), np.nanmax(values)
    return (values - least) / (largest - least) if largest > least else np.zeros_like(values)


def _plain(values: np.ndarray) -> Sequence[object]:
    """As JSON has it: what is not finite is none."""
    rows = values.astype(object)
    rows[~np.isfinite(values)] = None
    return rows.tolist()
