"""Numbers that stand in frames: lines, curves, steps and circles of items, and of all things."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.base import Analysis
from analyses.circularity import Circularity
from analyses.number_line import NumberLine
from scanner import Subject

SITE = "resid_post"
UNITS, SENTENCES, ITEMS = 60, 3, 8
OWN = NumberLine(SITE, "category", of="ours", number="number", permutations=19)
CLOSED = Circularity(SITE, "category", of="ours", number="number")


def line(along: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return 4 * np.outer(along, axes[0])


def step(along: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return line(along, axes) + 4 * np.outer(along > 0.4, axes[1])


def arch(along: np.ndarray, axes: np.ndarray, turns: float = 0.6) -> np.ndarray:
    angle = 2 * np.pi * turns * along
    return 2 * (np.outer(np.cos(angle), axes[0]) + np.outer(np.sin(angle), axes[1]))


def circle(along: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return arch(along, axes, turns=1 - 1 / len(along))


def nothing(along: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.zeros((len(along), UNITS))


def planted(ours=nothing, others=nothing, *, values: int = 24, seed: int = 0) -> Subject:
    """Three categories of items, each item along axes of its own, in sentences at every number."""
    rng = np.random.default_rng(seed)
    rows = []
    for category in ("ours", "pages", "rooms"):
        for item in range(ITEMS):
            axes = rng.normal(size=(2, UNITS))
            way = (ours if category == "ours" else others)(np.linspace(0, 1, values), axes)
            way = way + 3 * rng.normal(size=UNITS)
            for sentence in range(SENTENCES):
                x = way + rng.normal(size=UNITS) + rng.normal(size=way.shape)
                rows += [
                    (f"{category} {item}", f"{sentence} at {at}", category, at, one)
                    for at, one in enumerate(x)
                ]
    item, frame, category, number, x = map(np.array, zip(*rows, strict=True))
    columns = {"item": item, "frame": frame, "category": category, "number": number}
    volume = xr.Dataset(
        {SITE: (("stimulus", "layer", "unit"), x[:, None])},
        coords={
            **{name: ("stimulus", values) for name, values in columns.items()},
            "layer": [0], "unit": np.arange(UNITS),
        },
    )  # fmt: skip
    return Subject("toy", volume, {})


def measured(analysis: Analysis, *ways, **settings) -> xr.Dataset:
    found = analysis(planted(*ways, **settings), rng=np.random.default_rng(0))
    return found.isel(layer=0)


def dealt(analysis: Analysis, variable: str, *ways) -> tuple[float, np.ndarray]:
    """A measure, and what is found of it when items are dealt out among categories."""
    found = analysis.permuted(
        planted(*ways), variable, draws=99, rng=np.random.default_rng(0),
        shuffles=np.random.default_rng(1),
    )  # fmt: skip
    return float(measured(analysis, *ways)[variable]), found.isel(layer=0).to_numpy()


def test_items_lie_on_a_line_of_their_own_and_bend_along_curves_of_their_own() -> None:
    straight, bent = measured(OWN, line), measured(OWN, circle)
    assert float(straight["read"]) > 0.95 and float(straight["order"]) > 0.95
    assert float(straight["line"]) > 0.3 and float(straight["gain"]) < 0
    assert float(bent["gain"]) > 0.2
    of = dict(zip(bent["category"].values, bent["gain_by_category"].values, strict=True))
    assert of["ours"] == pytest.approx(float(bent["gain"]))
    assert max(of["pages"], of["rooms"]) < 0


def test_a_step_bends_and_is_found_where_it_is_if_items_share_it() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=(2, UNITS))
    found = measured(OWN, lambda along, axes: step(along, common))
    assert float(found["gain"]) > 0.02 and int(found["breaks"]) >= 1
    assert float(found["place"][int(found["jump"].argmax("place"))]) == 9  # 9/23 < 0.4 < 10/23
    assert int(measured(OWN, line)["breaks"]) == 0


def test_what_all_things_do_at_these_numbers_is_theirs_when_they_are_dealt_out() -> None:
    """As where numbers gain a digit: bent, and no more so than pages and rooms are."""
    ours, null = dealt(OWN, "gain", circle, circle)
    assert ours > 0.2 and np.mean(null >= ours) > 0.05
    ours, null = dealt(OWN, "gain", circle, line)
    assert ours > null.max() + 0.05


def test_a_circle_of_five_to_seven_closes_and_a_line_and_an_arch_do_not() -> None:
    # Without noise 0.18, 0.12 and 0.09: of few values, an arch has nearly the same neighbours.
    for values, least in ((5, 0.1), (6, 0.05), (7, 0.03)):
        closed = measured(CLOSED, circle, values=values)
        assert float(closed["closes"]) > least
        assert closed["closes_by_item"].sizes["item"] == ITEMS
        for way in (line, arch, step):
            assert float(measured(CLOSED, way, values=values)["closes"]) < 0
    ours, null = dealt(CLOSED, "closes", circle, line)
    assert ours > null.max() + 0.05
    ours, null = dealt(CLOSED, "closes", circle, circle)
    assert np.mean(null >= ours) > 0.05


def test_in_noise_nothing_is_above_zero_on_average() -> None:
    """And the gate is given the same as the report, of all and of parts."""
    found = {"read": [], "gain": [], "closes": []}
    for seed in range(15):
        subject = planted(seed=seed, values=12)
        for analysis in (OWN, CLOSED):
            whole = analysis(subject, rng=np.random.default_rng(0))
            for name in analysis.measures:
                one = analysis.measured(subject, variable=name, rng=np.random.default_rng(0))
                xr.testing.assert_allclose(one.rename(name), whole[name].drop_attrs(), rtol=1e-12)
                found[name].append(float(one[0]))
    for values in found.values():
        assert np.mean(values) < 3.5 * np.std(values) / np.sqrt(15)


def test_permutations_are_those_of_the_gate() -> None:
    subject = planted(circle, line, values=12)
    for analysis, variable in ((OWN, "gain"), (CLOSED, "closes")):
        own, gates = (
            one(
                analysis, subject, variable, draws=40, rng=np.random.default_rng(0),
                shuffles=np.random.default_rng(1),
            )
            for one in (type(analysis).permuted, Analysis.permuted)
        )  # fmt: skip
        assert own.dims == gates.dims == ("draw", "layer")
        assert float(own.mean()) == pytest.approx(float(gates.mean()), abs=4 * float(own.std()) / 6)
        assert float(own.std()) == pytest.approx(float(gates.std()), rel=0.5)


def test_an_item_that_does_not_vary_has_no_say() -> None:
    """As its spelling may, where the surface of the words is in the place of activations."""
    subject = planted(circle, values=7)
    x = subject.volume[SITE].copy(deep=True)
    x[subject.volume["item"].to_numpy() == "ours 0"] = 1.0
    same = subject.replace_volume(subject.volume.assign({SITE: x}))
    found = CLOSED(same, rng=np.random.default_rng(0)).isel(layer=0)
    assert np.isnan(float(found["closes_by_item"].sel(item="ours 0")))
    assert float(found["closes"]) > 0.03
    dead = subject.replace_volume(subject.volume.assign({SITE: 0 * x}))
    assert np.isnan(float(CLOSED(dead, rng=np.random.default_rng(0))["closes"][0]))


def test_what_cannot_be_asked_is_told() -> None:
    rng = np.random.default_rng(0)
    for analysis in (NumberLine, Circularity):
        with pytest.raises(ValueError, match="of and number go together"):
            analysis(SITE, "category", of="ours")
    subject = planted(values=12)
    for one in (OWN, CLOSED):
        with pytest.raises(AnalysisError, match="'category' is nowhere 'ages'; it is ours, pages"):
            replace(one, of="ages")(subject, rng=rng)
        with pytest.raises(AnalysisError, match="'frame' holds no numbers, but '0 at 0'"):
            replace(one, number="frame")(subject, rng=rng)
    with pytest.raises(AnalysisError, match="circularity: 'ours 0' has 4 values of 'number'; 5"):
        measured(CLOSED, values=4)
    with pytest.raises(AnalysisError, match="number_line: 'number' has 7 values; 8 are needed"):
        measured(OWN, values=7)
    here = (subject.volume["item"] != "ours 3") | (subject.volume["number"] != 2)
    with pytest.raises(AnalysisError, match="item 'ours 3' does not stand at 2 of 'number'"):
        OWN(subject.take(np.flatnonzero(here)), rng=rng)
    alone = subject.take(np.flatnonzero(np.isin(subject.volume["item"], ["ours 0", "pages 0"])))
    with pytest.raises(AnalysisError, match="'ours' has 1 item; 2 are needed for halves"):
        OWN(alone, rng=rng)
