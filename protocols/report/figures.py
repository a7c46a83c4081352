"""The figures of the report: labelled data in, a plotly figure out.

Lines are labelled at their ends. A screen too narrow for that shows a legend instead (see
``report.js``), which is why every line, the chance level included, is a named trace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import squareform
from scipy.stats import t as student

from protocols.report.words import between, number, plain

INK, QUIET = "#1d2429", "#5b666e"
BLUE = "#0b5a94"
FONT = "-apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
# Of rows or points.
FEW = 6
HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 430, 46, 54, 62, 176
# Of values of either sign, white where there is none.
EITHER_SIGN = [
    [0, "#8a4a00"],
    [0.25, "#dba56a"],
    [0.5, "#ffffff"],
    [0.75, "#7fabd0"],
    [1, "#0a2f51"],
]
# Connections of a circle that are drawn at most.
TIES = 300
# Least distance of two line labels, in pixels.
LABEL_GAP = 17
ALONG = {
    "removed": "directions removed", "depth": "depth (0: first layer, 1: last)",
    "place": "value, the lower of two", "offset": "tokens from the last of the target",
    "fresh": "first block with fresh weights",
}  # fmt: skip
# Of units in order: how many are drawn at each end, and how many along the whole.
ENDS, SEEN = 100, 400
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "bgcolor": "#ffffff"},
    }
)


class Look(NamedTuple):
    """How the world of a control is drawn: told apart by dash and width as well as by colour.

    The colours are from the palette of Okabe and Ito, which people of any colour vision tell apart.
    """

    colour: str
    dash: str
    width: float
    words: str


LOOKS = {
    "untrained_twin": Look("#d55e00", "solid", 1.2, "untrained twins"),
    "shuffled_labels": Look("#8b959c", "solid", 0.8, "shuffled labels"),
    "surface_only": Look("#007a5a", "dash", 1.8, "surface only"),
    "planted_units": Look("#a6487f", "dash", 1.8, "planted units"),
    "rotated_units": Look("#00857c", "dot", 1.6, "units rotated"),
    "planted_modules": Look("#a6487f", "dash", 1.8, "planted modules"),
    "control_task": Look("#7a6a00", "dot", 1.2, "control tasks"),
    "shuffled_nodes": Look("#8b959c", "solid", 0.8, "shuffled heads"),
    "planted_wiring": Look("#a6487f", "dash", 1.8, "planted along wires"),
    "shuffled_items": Look("#8b959c", "solid", 0.8, "shuffled items"),
    "beyond_surface": Look("#007a5a", "dash", 1.8, "beyond the surface"),
    "planted_likeness": Look("#a6487f", "dash", 1.8, "planted likeness"),
    "random_target": Look("#007a5a", "solid", 0.8, "random targets"),
    "known_target": Look("#a6487f", "dash", 1.8, "known to have an effect"),
}
# The other colours of the same palette, for lines that stand side by side.
MODELS = ("#0b5a94", "#d55e00", "#007a5a", "#a6487f", "#7a6a00", "#3b9bd4", "#1d2429")
NAMED_POINTS = 30
SYMBOLS = ("circle", "diamond", "cross", "square")
OTHER = Look("#7a6a00", "dashdot", 1.4, "")


@dataclass(frozen=True)
class Judged:
    """What was registered and judged, to be marked in a figure.

    Attributes
    ----------
    layer : int or str
        A layer, or the reduction over all layers.
    estimate : float or None
    interval : tuple of float or None
    reference : float or None
        What the measure was compared with.
    direction : int
        1 if more was expected, -1 if less.
    smallest_effect : float
    least, greatest : float
        Ends of the scale of the measure.
    """

    layer: int | str
    estimate: float | None
    interval: tuple[float | None, float | None]
    reference: float | None
    direction: int
    smallest_effect: float
    least: float
    greatest: float

    @property
    def edge(self) -> float | None:
        """Where the smallest effect that matters begins."""
        if self.reference is None:
            return None
        return self.reference + self.direction * self.smallest_effect


class Line(NamedTuple):
    """A label for the right end of a line."""

    text: str
    colour: str
    end: float


def band(evidence: xr.Dataset, *, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the observed measure at each layer, from its values on half-samples.

    Parameters
    ----------
    evidence : xarray.Dataset
        ``observed`` (layer), ``half_samples`` (half_sample, layer) and, as attributes, what turns
        the variance of halves into that of the whole (``scale``) and the degrees of freedom.
    level : float
        Confidence, two-sided, at each layer by itself.

    Returns
    -------
    low, high : numpy.ndarray
        layer.
    """
    spread = evidence["half_samples"].var("half_sample", ddof=1).to_numpy()
    error = np.sqrt(evidence.attrs["scale"] * spread)
    half = float(student.ppf((1 + level) / 2, evidence.attrs["freedom"])) * error
    observed = evidence["observed"].to_numpy()
    return observed - half, observed + half


def worlds(evidence: xr.Dataset) -> dict[str, np.ndarray]:
    """The measure in the world of each control, draw x layer."""
    return {
        str(name): np.atleast_2d(values.transpose(..., "layer").to_numpy())
        for name, values in evidence.data_vars.items()
        if name not in ("observed", "half_samples")
    }


def by_layer(evidence: xr.Dataset, *, measure: str, level: float, judged: Judged) -> go.Figure:
    """A measure by layer, in the world and in the worlds of the controls.

    Parameters
    ----------
    evidence : xarray.Dataset
        As `verification.evidence` returns it.
    measure : str
        Name of the measure, for the axis.
    level : float
        Confidence of the band.
    judged : Judged
    """
    figure = go.Figure()
    layers = evidence["layer"].to_numpy().tolist()
    right = layers[-1] + 0.6 + (0 if isinstance(judged.layer, int) else 1.4)
    span = [layers[0] - 0.6, right]
    chance = float(evidence.attrs["chance"])
    lines = _levels(figure, judged, chance, span)
    for name, values in worlds(evidence).items():
        lines.append(_world(figure, name, layers, values))
    lines.append(_observed(figure, evidence, layers, level, judged))
    limits = _limits(evidence, judged, level)
    _point(figure, judged, layers)
    figure.update_layout(
        template=TEMPLATE,
        height=HEIGHT,
        margin={"t": TOP, "b": BOTTOM, "l": LEFT, "r": RIGHT},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        xaxis=_layer_axis(layers) | {"range": span},
        yaxis=bare_axis(plain(measure), limits, grid=True),
    )
    for label in _labels(lines, limits, right):
        figure.add_annotation(label)
    return figure


def by_category(values: xr.DataArray, *, name: str) -> go.Figure:
    """A measure of each category at each layer, as a map; the strongest category on top.

    Parameters
    ----------
    values : xarray.DataArray
        layer, category.
    name : str
        For the colour bar.
    """
    order = np.argsort(values.mean("layer").to_numpy(), kind="stable")
    return by_row(values.isel(category=order).transpose("category", "layer"), name=name)


def by_row(values: xr.DataArray, *, name: str) -> go.Figure:
    """A measure of each row at each layer, as a map, or of one layer as bars; the first row below.

    Parameters
    ----------
    values : xarray.DataArray
        row, layer.
    name : str
        For the colour bar, or the axis.
    """
    layers = values["layer"].to_numpy().tolist()
    if len(layers) == 1:
        return bars(values.isel(layer=0), name=f"{name}, layer {layers[0]}")
    figure = _map(values, name=name, hover="%{y}, layer %{x}: %{z:.3f}<extra></extra>")
    figure.update_layout(xaxis=_layer_axis(layers))
    if _gaps(layers):  # side by side, whatever lies between them
        figure.update_traces(x=list(map(str, layers)))
        figure.update_layout(xaxis={"type": "category", "tickvals": list(map(str, layers))})
    if values.shape[0] < FEW:  # no room beside it, and the title of the panel says the same
        figure.update_traces(colorbar={"title": {"text": ""}})
    return figure


def apart(values: xr.DataArray, *, name: str) -> go.Figure:
    """How far categories or subjects are from each other, those that lie close side by side.

    Parameters
    ----------
    values : xarray.DataArray
        one x other: symmetric.
    name : str
        For the colour bar.
    """
    filled = np.nan_to_num(values.to_numpy(), nan=float(values.min()))
    pairs = filled - filled.min()
    pairs[np.diag_indices_from(pairs)] = 0
    order = leaves_list(linkage(squareform(pairs, checks=False), "average", optimal_ordering=True))
    one, other = values.dims
    ordered = values.isel({one: order[::-1], other: order})
    figure = _map(ordered, name=name, hover="%{y} and %{x}: %{z:.3f}<extra></extra>")
    figure.update_layout(
        height=100 + BOTTOM + 26 * max(4, len(order)),
        xaxis=bare_axis("", None)
        | {"tickangle": -45, "automargin": True, "ticks": "", "showline": False},
    )
    return figure


def table(values: xr.DataArray, *, name: str) -> go.Figure:
    """Rows x columns in their own order, the first row on top, each number in its place."""
    figure = _map(values[::-1], name=name, hover="%{y}, %{x}: %{z:.3g}<extra></extra>")
    figure.update_traces(texttemplate="%{z:.3g}")
    figure.update_layout(
        xaxis=bare_axis("", None)
        | {"tickangle": -45, "automargin": True, "ticks": "", "showline": False},
    )
    return figure


def matrix(values: xr.DataArray, *, name: str) -> go.Figure:
    """How far every two nodes go together, in the order that they are given in.

    Parameters
    ----------
    values : xarray.DataArray
        node, other_node: symmetric.
    name : str
        For the colour bar.
    """
    figure = _map(values.round(2), name=name, hover="%{y} and %{x}: %{z:.2f}<extra></extra>")
    most = float(np.abs(values).max())
    figure.update_traces(zmin=-most, zmax=most, colorscale=EITHER_SIGN, xgap=0, ygap=0)
    for axis in ("xaxis", "yaxis"):
        bare = bare_axis("nodes, by module", None) | {"ticks": "", "showline": False}
        figure.update_layout({axis: bare | {"showticklabels": False, "constrain": "domain"}})
    square = {"autorange": "reversed", "scaleanchor": "x"}
    figure.update_layout(height=400, yaxis=square)
    return figure


def circle(values: xr.DataArray) -> go.Figure:
    """Nodes on a circle, module by module, and the connections of those that go together most.

    Parameters
    ----------
    values : xarray.DataArray
        node, other_node: symmetric, with a coordinate ``module`` of the nodes.
    """
    names, modules = values["node"].to_numpy(), values["module"].to_numpy()
    count = len(names)
    angle = np.pi / 2 - 2 * np.pi * np.arange(count) / count
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    one, other = np.triu_indices(count, 1)
    strength = values.to_numpy()[one, other]
    strongest = np.argsort(-np.abs(strength))[: min(TIES, len(strength) // 10 + 1)]
    figure = go.Figure()
    for sign, colour, words_ in ((1, BLUE, "together"), (-1, "#8a4a00", "against each other")):
        chosen = [pair for pair in strongest if sign * strength[pair] > 0]
        if not chosen:
            continue
        lines = [_chord(places[one[pair]], places[other[pair]]) for pair in chosen]
        figure.add_scatter(
            x=[x for line in lines for x in (*line[:, 0].round(3).tolist(), None)],
            y=[y for line in lines for y in (*line[:, 1].round(3).tolist(), None)],
            mode="lines", name=f"{len(chosen)} strongest, {words_}", hoverinfo="skip",
            line={"color": colour, "width": 0.8}, opacity=0.55,
        )  # fmt: skip
    for module in range(int(modules.max()) + 1):
        inside = np.flatnonzero(modules == module)
        alone = len(inside) == 1
        figure.add_scatter(
            x=places[inside, 0].round(3).tolist(), y=places[inside, 1].round(3).tolist(),
            mode="markers", showlegend=False, text=names[inside].tolist(),
            marker={
                "color": QUIET if alone else MODELS[module % len(MODELS)],
                "symbol": SYMBOLS[module // len(MODELS) % len(SYMBOLS)], "size": 7,
            },
            hovertemplate=f"%{{text}}{'' if alone else f', module {module + 1}'}<extra></extra>",
        )  # fmt: skip
    bare = bare_axis("", None) | {"showticklabels": False, "ticks": "", "showline": False}
    _lines(figure, bare, bare | {"scaleanchor": "x"})
    figure.update_layout(
        height=460, legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0}
    )
    return figure


def _chord(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A bow between two points of the unit circle, drawn towards its middle: place x axis."""
    along = np.linspace(0, 1, 9)[:, None]
    middle = 0.25 * (start + end) / 2
    return (1 - along) ** 2 * start + 2 * along * (1 - along) * middle + along**2 * end


def between_layers(values: xr.DataArray, *, name: str, subjects: Sequence[str]) -> go.Figure:
    """How alike every two layers are, the first layer below and on the left.

    Parameters
    ----------
    values : xarray.DataArray
        layer, other_layer.
    name : str
        For the colour bar.
    subjects : sequence of str
        Of the layers and of the other layers, if they are not of one.
    """
    figure = _map(values, name=name, hover="layers %{y} and %{x}: %{z:.3f}<extra></extra>")
    for axis, dim, subject in zip(
        ("yaxis", "xaxis"), ("layer", "other_layer"), (subjects[0], subjects[-1]), strict=True
    ):
        title = "layer (counted from 0)" if len(subjects) == 1 else f"layer of {subject}"
        ticks = {"tick0": 0, "dtick": layer_step(values.sizes[dim]), "automargin": True}
        figure.update_layout({axis: bare_axis(title, None) | ticks})
    figure.update_layout(height=400)
    return figure


def curve(
    values: xr.DataArray,
    *,
    beside: Mapping[str, xr.DataArray],
    twins: Sequence[xr.DataArray],
) -> go.Figure:
    """What is described by layer, or along another dimension, and the same of untrained twins.

    Parameters
    ----------
    values : xarray.DataArray
        Of one dimension.
    beside : mapping of str to xarray.DataArray
        What else is drawn, dotted, by its name.
    twins : sequence of xarray.DataArray
    """
    figure = go.Figure()
    (dim,) = map(str, values.dims)
    places = values[dim].to_numpy().tolist()
    if twins:
        _world(figure, "untrained_twin", places, np.array([twin.to_numpy() for twin in twins]))
    for name, line in {"trained": values, **beside}.items():
        figure.add_scatter(
            x=places, y=[_json_number(value) for value in line.to_numpy()], mode=_mode(places),
            name=name,
            line={"color": BLUE, "dash": "solid" if line is values else "dot", "width": 2.2},
            hovertemplate=f"{name}, {dim} %{{x}}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    along = _layer_axis(places) if dim == "layer" else bare_axis(ALONG[dim], None)
    return _lines(figure, along, bare_axis("", None, grid=True) | {"rangemode": "tozero"})


def intervals(
    values: xr.DataArray,
    low: xr.DataArray,
    high: xr.DataArray,
    reachable: Sequence[xr.DataArray],
) -> go.Figure:
    """Several models, or parts, along layers or depths, each with its interval.

    Parameters
    ----------
    values, low, high : xarray.DataArray
        place, and what is drawn as a line each.
    reachable : sequence of xarray.DataArray
        Each place: what a model can reach.
    """
    figure = go.Figure()
    dim, lines = map(str, values.dims)
    places = values[dim].to_numpy().tolist()
    if len(places) == 1:
        return _at_one_place(values[0], low[0], high[0])
    for place, name in enumerate(map(str, values[lines].to_numpy())):
        colour = MODELS[place % len(MODELS)]
        one, bottom, top = (each.isel({lines: place}).to_numpy() for each in (values, low, high))
        figure.add_scatter(
            x=[*places, *places[::-1]],
            y=[_json_number(value) for value in (*top, *bottom[::-1])],
            fill="toself", fillcolor=colour, opacity=0.16, line={"width": 0}, mode="lines",
            hoverinfo="skip", legendgroup=name, showlegend=False, name=name,
        )  # fmt: skip
        figure.add_scatter(
            x=places, y=[_json_number(value) for value in one], mode=_mode(places),
            name=plain(name),
            legendgroup=name, line={"color": colour, "width": 2.2},
            hovertemplate=f"{name}, {dim} %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    for place, line in enumerate(reachable):
        figure.add_scatter(
            x=places, y=[_json_number(value) for value in line.to_numpy()], mode="lines",
            name="can be reached", showlegend=place == 0, legendgroup="reachable",
            line={"color": QUIET, "dash": "dot", "width": 1.6},
            hovertemplate=f"can be reached, {dim} %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    along = _layer_axis(places) if dim == "layer" else bare_axis(ALONG[dim], None)
    return _lines(figure, along, bare_axis("", None, grid=True))


def _at_one_place(values: xr.DataArray, low: xr.DataArray, high: xr.DataArray) -> go.Figure:
    """The same where there is a single layer: points with their intervals, side by side."""
    figure = go.Figure()
    (lines,) = values.dims
    for place, name in enumerate(map(str, values[lines].to_numpy())):
        value, bottom, top = (float(one[place]) for one in (values, low, high))
        figure.add_scatter(
            x=[plain(name)], y=[_json_number(value)], mode="markers", name=plain(name),
            showlegend=False, marker={"color": MODELS[place % len(MODELS)], "size": 8},
            error_y={
                "type": "data", "symmetric": False, "array": [_json_number(top - value)],
                "arrayminus": [_json_number(value - bottom)], "thickness": 1.6, "width": 5,
            },
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    across = bare_axis("", None) | {"range": [-0.5, values.size - 0.5]}
    return _lines(figure, across, bare_axis("", None, grid=True))


def plane(places: xr.DataArray) -> go.Figure:
    """Items or subjects in a plane, coloured by their label, with a menu of the layers if any.

    Parameters
    ----------
    places : xarray.DataArray
        layer, item, axis, or without a layer; with a coordinate ``label`` of the items.
    """
    figure = go.Figure()
    (of,) = places["label"].dims
    places = places.rename({of: "item"})
    if "layer" not in places.dims:
        places = places.expand_dims("layer").assign_coords(layer=[0])
    # Names that fit beside their points are told there.
    mode = "markers+text" if places.sizes["item"] <= NAMED_POINTS else "markers"
    names = np.unique(places["label"].to_numpy())
    layers = places["layer"].to_numpy().tolist()
    last = len(layers) - 1
    for number_of_layer in range(len(layers)):
        for order, name in enumerate(names):
            inside = np.flatnonzero(places["label"].to_numpy() == name)
            points = places.isel(layer=number_of_layer, item=inside).to_numpy()
            figure.add_scatter(
                x=[_json_number(x) for x in points[:, 0]],
                y=[_json_number(y) for y in points[:, 1]],
                mode=mode, name=str(name), visible=number_of_layer == last,
                textposition="top center", cliponaxis=False,
                text=places["item"].to_numpy()[inside].tolist(),
                marker={
                    "color": MODELS[order % len(MODELS)], "size": 7, "opacity": 0.8,
                    "symbol": SYMBOLS[order // len(MODELS) % len(SYMBOLS)],
                },
                hovertemplate=f"%{{text}} ({name})<extra></extra>",
            )  # fmt: skip
    menu = [
        {
            "label": f"layer {layer}", "method": "restyle",
            "args": [{"visible": [at == place for at in range(len(layers)) for _ in names]}],
        }
        for place, layer in enumerate(layers)
    ]  # fmt: skip
    bare = bare_axis("", None) | {"showticklabels": False, "ticks": ""}
    # Names are wider than points, of which plotly knows alone.
    wide: dict[str, Any] = {}
    if "text" in mode:
        least, most = float(places[..., 0].min()), float(places[..., 0].max())
        wide["range"] = [least - 0.35 * (most - least), most + 0.35 * (most - least)]
    # As wide as high, so that distances are the same in all directions.
    _lines(figure, bare | wide, bare | {"scaleanchor": "x"})
    figure.update_layout(
        height=460,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
        updatemenus=[] if last == 0 else [
            {"buttons": menu, "active": last, "x": 0, "xanchor": "left", "y": 1.02,
             "yanchor": "bottom", "pad": {"t": 0}}
        ],
    )  # fmt: skip
    return figure


def ranked(values: xr.DataArray, *, critical: float, twins: Sequence[xr.DataArray]) -> go.Figure:
    """The t of units in falling order, beside those of untrained twins.

    Parameters
    ----------
    values : xarray.DataArray
        unit.
    critical : float
        The |t| that is significant.
    twins : sequence of xarray.DataArray
        Each unit.
    """
    figure = go.Figure()
    units = values.sizes["unit"]
    # Every unit near both ends, where they are looked for, and as many as can be seen between.
    shown = np.unique(
        np.concatenate([np.arange(min(units, ENDS)), np.linspace(0, units - 1, SEEN).astype(int)])
    )
    shown = np.union1d(shown, units - 1 - shown)
    order = np.argsort(-values.to_numpy(), kind="stable")[shown]
    lines = [
        (LOOKS["untrained_twin"].colour, 1.2, f"untrained twins ({len(twins)})", twin)
        for twin in twins
    ]
    for colour, width, name, line in [*lines, (BLUE, 2.2, "trained", values)]:
        sorted_t = -np.sort(-line.to_numpy())
        figure.add_scatter(
            x=(shown + 1).tolist(), y=[_json_number(t) for t in sorted_t[shown]], mode="lines",
            line={"color": colour, "width": width}, name=name,
            customdata=order.tolist() if name == "trained" else None,
            hovertemplate="unit %{customdata}: t = %{y:.2f}<extra></extra>"
            if name == "trained" else f"{name}: t = %{{y:.2f}}<extra></extra>",
            showlegend=name == "trained" or line is lines[0][3],
        )  # fmt: skip
    for level in (critical, -critical):
        figure.add_hline(level, line={"color": "#555555", "dash": "dash", "width": 1})
    return _lines(
        figure, bare_axis("units, from the largest t", None), bare_axis("t", None, grid=True)
    )


def _lines(figure: go.Figure, xaxis: dict[str, Any], yaxis: dict[str, Any]) -> go.Figure:
    """A small figure of lines, with their names above."""
    figure.update_layout(
        template=TEMPLATE,
        height=280,
        margin={"t": 60, "b": BOTTOM, "l": 12, "r": 12},
        hovermode="closest",
        dragmode=False,
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        xaxis=xaxis,
        yaxis=yaxis | {"automargin": True},
    )
    return figure


def _layer_axis(layers: Sequence[int]) -> dict[str, Any]:
    """An axis of layers, which may be few and far between."""
    made = bare_axis("layer (counted from 0)", None)
    if _gaps(layers):
        return made | {"tickvals": list(layers)}
    return made | {"tick0": 0, "dtick": layer_step(len(layers))}


def _mode(places: Sequence[float]) -> str:
    """How a line is drawn: with its points, where they are few."""
    return "lines+markers" if len(places) < FEW else "lines"


def _gaps(layers: Sequence[int]) -> bool:
    """Whether layers are left out between the first and the last, or it is one."""
    return len(layers) < 2 or bool((np.diff(layers) != 1).any())


def bars(values: xr.DataArray, *, name: str) -> go.Figure:
    """A number for each row, the first below."""
    (rows,) = (list(map(str, values[dim].to_numpy())) for dim in values.dims)
    numbers = values.to_numpy()
    figure = go.Figure(
        go.Bar(
            x=[_json_number(value) for value in numbers], y=rows, orientation="h",
            marker={"color": BLUE}, width=0.6,
            text=[f"{value:.3g}" if np.isfinite(value) else "none" for value in numbers],
            textposition="outside", cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    )  # fmt: skip
    finite = numbers[np.isfinite(numbers)]
    low, high = min(0.0, *finite.tolist(), 0.0), max(0.0, *finite.tolist(), 0.0)
    room = 0.3 * ((high - low) or 1.0)  # for the numbers
    span = [low - room if low < 0 else 0.0, high + 0.6 * room]
    figure.add_vline(0, line={"color": QUIET, "width": 1})
    figure.update_layout(
        template=TEMPLATE,
        height=32 + BOTTOM + 25 * max(4, len(rows)),
        margin={"t": 32, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False,
        xaxis=bare_axis(name, span),
        yaxis={"type": "category", "automargin": True, "fixedrange": True, "ticks": "",
               "showgrid": False},
    )  # fmt: skip
    return figure


def _map(values: xr.DataArray, *, name: str, hover: str) -> go.Figure:
    """A heat map of rows x columns, the first row below; darker is more."""
    rows, columns = ([_name(label) for label in values[dim].to_numpy()] for dim in values.dims)
    z = values.to_numpy()
    finite = z[np.isfinite(z)]
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=rows,
            z=[[_json_number(value) for value in row] for row in z],
            zmin=min([0.0, *finite.tolist()]),
            zmax=max([1.0, *finite.tolist()]),
            colorscale=[[0, "#ffffff"], [0.35, "#b9d0e4"], [0.7, "#3d7fb3"], [1, "#0a2f51"]],
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": name, "side": "right", "font": {"size": 12}},
                "thickness": 10,
                "outlinewidth": 0,
                "ticks": "outside",
                "ticklen": 3,
            },
            hovertemplate=hover,
        )
    )
    figure.update_layout(
        template=TEMPLATE,
        height=32 + BOTTOM + 25 * max(4, len(rows)),
        margin={"t": 32, "b": BOTTOM, "l": 12, "r": 12},
        dragmode=False,
        yaxis={"automargin": True, "fixedrange": True, "ticks": "", "showgrid": False},
    )
    return figure


def _name(label: Any) -> int | str:
    """Of a row or column: the number of a layer, the name of a category."""
    return int(label) if isinstance(label, int | np.integer) else str(label)


def layer_step(layers: int) -> int:
    """Step of the ticks on an axis of layers: whole numbers, and at most twelve of them."""
    return next((step for step in (1, 2, 5, 10) if layers <= 12 * step), 20)


def bare_axis(title: str, span: list[float] | None, *, grid: bool = False) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 12, "font": {"size": 13}},
        "range": span,
        "showgrid": grid,
        "gridcolor": "#f0f2f3",
        "zeroline": False,
        "showline": not grid,
        "linecolor": QUIET,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": QUIET,
        "fixedrange": True,
    }


def _levels(figure: go.Figure, judged: Judged, chance: float, span: list[float]) -> list[Line]:
    """Chance, the reference, and the ground between it and the smallest effect."""
    same = judged.reference is None or bool(np.isclose(judged.reference, chance))
    levels = [(f"{'chance, reference' if same else 'chance'} {chance:.3g}", chance, "dot", QUIET)]
    if judged.reference is None:
        levels = [(f"chance {chance:.3g}", chance, "dot", QUIET)]
    elif not same:
        levels.append((f"reference {judged.reference:.3g}", judged.reference, "solid", INK))
    if judged.reference is not None and judged.edge is not None:
        low, high = sorted((judged.reference, judged.edge))
        figure.add_shape(
            type="rect", xref="paper", x0=0, x1=1, y0=low, y1=high,
            fillcolor="#f5efdf", line_width=0, layer="below",
        )  # fmt: skip
        levels.append((f"smallest effect {judged.edge:.3g}", judged.edge, "longdash", "#8a6d1b"))
    for text, level, dash, colour in levels:
        figure.add_scatter(
            x=span, y=[level, level], mode="lines", name=text, hoverinfo="skip",
            line={"color": colour, "dash": dash, "width": 1.2},
        )  # fmt: skip
    return [Line(text, colour, level) for text, level, _, colour in levels]


def _world(figure: go.Figure, name: str, layers: list[int], values: np.ndarray) -> Line:
    """One line for each draw of a control's world, and a band over the shuffled ones."""
    look = LOOKS.get(name, OTHER)
    words = look.words or plain(name)
    if len(values) > 1:
        words = f"{words} ({len(values)})"
    if name.startswith("shuffled_"):
        figure.add_scatter(
            x=[*layers, *layers[::-1]],
            y=[_json_number(v) for v in (*values.max(0), *values.min(0)[::-1])],
            fill="toself", fillcolor="rgba(139,149,156,0.22)", line={"width": 0}, mode="lines",
            hoverinfo="skip", legendgroup=name, showlegend=False, name=words,
        )  # fmt: skip
    for place, row in enumerate(values):
        figure.add_scatter(
            x=layers, y=[_json_number(v) for v in row], mode=_mode(layers), name=words,
            legendgroup=name, showlegend=place == 0,
            line={"color": look.colour, "dash": look.dash, "width": look.width},
            hovertemplate=f"{words}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    ends = values[:, -1][np.isfinite(values[:, -1])]
    return Line(words, look.colour, float(ends.mean()) if len(ends) else float("nan"))


def _observed(
    figure: go.Figure, evidence: xr.Dataset, layers: list[int], level: float, judged: Judged
) -> Line:
    observed = evidence["observed"].to_numpy()
    if "half_samples" in evidence:
        low, high = (
            np.clip(end, judged.least, judged.greatest) for end in band(evidence, level=level)
        )
        figure.add_scatter(
            x=[*layers, *layers[::-1]],
            y=[_json_number(value) for value in (*high, *low[::-1])],
            fill="toself", fillcolor="rgba(11,90,148,0.16)", line={"width": 0}, mode="lines",
            hoverinfo="skip", name="interval", legendgroup="observed", showlegend=False,
        )  # fmt: skip
    figure.add_scatter(
        x=layers, y=[_json_number(value) for value in observed], mode=_mode(layers),
        name="observed", legendgroup="observed", line={"color": BLUE, "width": 2.6},
        hovertemplate="observed, layer %{x}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    return Line("<b>observed</b>", BLUE, float(observed[-1]))


def _point(figure: go.Figure, judged: Judged, layers: list[int]) -> None:
    """The judged estimate with its interval, and its words above the plot."""
    low, high = judged.interval
    if judged.estimate is None or low is None or high is None:
        return
    if isinstance(judged.layer, int):
        x, where = float(judged.layer), f"layer {judged.layer}"
    else:
        x, where = layers[-1] + 1.0, f"{judged.layer} over layers"
    early = x - layers[0] < 0.5 * (layers[-1] - layers[0])
    figure.add_shape(
        type="line", xref="x", x0=x, x1=x, yref="paper", y0=0, y1=1.03,
        line={"color": INK, "width": 0.7, "dash": "dot"}, layer="below",
    )  # fmt: skip
    figure.add_scatter(
        x=[x], y=[judged.estimate], mode="markers", name=f"judged: {where}",
        error_y={
            "type": "data", "symmetric": False, "array": [high - judged.estimate],
            "arrayminus": [judged.estimate - low], "color": INK, "thickness": 1.8, "width": 6,
        },
        marker={"symbol": "diamond", "size": 11, "color": INK,
                "line": {"color": "#ffffff", "width": 1.2}},
        hovertemplate=f"judged, {where}: {number(judged.estimate)} "
                      f"({between(judged.interval)})<extra></extra>",
        cliponaxis=False,
    )  # fmt: skip
    figure.add_annotation(
        name="judged", x=x, xref="x", y=1.035, yref="paper", showarrow=False, yanchor="bottom",
        xanchor="left" if early else "right", xshift=-4 if early else 4,
        text=f"◆ judged at {where}: <b>{number(judged.estimate)}</b> ({between(judged.interval)})",
    )  # fmt: skip


def _limits(evidence: xr.Dataset, judged: Judged, level: float) -> list[float]:
    """Range of the axis: the scale of the measure from 0 to 1, and whatever lies beyond it."""
    shown = [*judged.interval, judged.estimate, judged.reference, judged.edge]
    shown += [values for world in worlds(evidence).values() for values in world.ravel()]
    shown += list(evidence["observed"].to_numpy())
    if "half_samples" in evidence:
        low, high = band(evidence, level=level)
        shown += list(np.clip([*low, *high], judged.least, judged.greatest))
    finite = [float(v) for v in shown if v is not None and np.isfinite(v)]
    # A scale that goes on, as differences of correlations may to 2, would leave lines flat.
    greatest = judged.greatest if judged.greatest <= 1 else max(finite)
    low, high = min(0.0, *finite), max(greatest, *finite)
    return [low - 0.03 * (high - low), high + 0.03 * (high - low)]


def _labels(lines: list[Line], limits: list[float], right: float) -> list[dict[str, Any]]:
    """Labels at the ends of the lines, moved apart where they would touch, each with a leader."""
    lines = sorted((line for line in lines if np.isfinite(line.end)), key=lambda line: line.end)
    per_pixel = (limits[1] - limits[0]) / (HEIGHT - TOP - BOTTOM)
    ends = np.array([line.end for line in lines]) / per_pixel
    steps = LABEL_GAP * np.arange(len(lines))
    # The nearest places in the same order that are a gap apart.
    places = isotonic_regression(ends - steps).x + steps
    places += max(0.0, limits[0] / per_pixel - places[0])
    return [
        {
            "name": "label", "text": line.text, "x": right, "y": line.end, "xref": "x",
            "yref": "y", "ax": 16, "ay": float(round(end - place, 1)), "showarrow": True,
            "arrowhead": 0, "arrowwidth": 0.8, "arrowcolor": line.colour, "xanchor": "left",
            "align": "left", "font": {"color": line.colour, "size": 12.5}, "borderpad": 1,
        }
        for line, end, place in zip(lines, ends, places, strict=True)
    ]  # fmt: skip


def _json_number(value: float) -> float | None:
    """A gap where there is no number."""
    return float(value) if np.isfinite(value) else None
