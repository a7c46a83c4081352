"""Number lines and circles: a planted line, curve, step and circle, and nothing."""

import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.circularity import Circularity, _closes, _fits, loop, turn, wrap
from analyses.number_line import NumberLine, values_of
from analyses.rdm import squared_euclidean
from scanner import Subject

SITE = "resid_post"
UNITS, VALUES = 200, 60
ALONG = np.linspace(0, 1, VALUES)
AXES = np.random.default_rng(0).normal(size=(2, UNITS))
LINE = 3 * np.outer(ALONG, AXES[0])
STEP = LINE + 2 * np.outer(ALONG > 0.4, AXES[1])
ANGLE = 2 * np.pi * np.arange(VALUES) / VALUES
CIRCLE = 1.5 * (np.outer(np.cos(ANGLE), AXES[0]) + np.outer(np.sin(ANGLE), AXES[1]))
CENTRES = np.random.default_rng(1).random(UNITS)
TUNED = 3 * np.exp(-((ALONG[:, None] - CENTRES) ** 2) / (2 * 0.15**2))
NOTHING = np.zeros((VALUES, UNITS))


QUARTERS = ANGLE * 0.75
ARCH = 1.5 * (np.outer(np.cos(QUARTERS), AXES[0]) + np.outer(np.sin(QUARTERS), AXES[1]))


def planted(means: np.ndarray, *, seed: int = 0, frames: int = 4, own: float = 0.3) -> Subject:
    """One word a value in four frames: what is planted, what the word has of its own, and noise."""
    rng = np.random.default_rng(seed)
    value, frame = np.repeat(np.arange(len(means)), frames), np.tile(np.arange(frames), len(means))
    x = means[value] + own * rng.normal(size=means.shape)[value]
    x += rng.normal(size=x.shape) + rng.normal(size=(frames, UNITS))[frame]
    labels = {
        "item": value.astype(str), "frame": frame.astype(str), "age": value * 1.0,
        "category": np.where(value % 2, "odd", "even"),
    }  # fmt: skip
    volume = xr.Dataset(
        {SITE: (("stimulus", "layer", "unit"), x[:, None])},
        coords={
            **{name: ("stimulus", values) for name, values in labels.items()},
            "layer": [0], "unit": np.arange(UNITS),
        },
    )  # fmt: skip
    return Subject("toy", volume, {})


def measured(means: np.ndarray, analysis=NumberLine, **settings):
    found = analysis(SITE, "age")(planted(means, **settings), rng=np.random.default_rng(0))
    return found.isel(layer=0)


def test_a_line_is_read_in_values_that_were_not_seen_and_a_line_predicts_it() -> None:
    found = measured(LINE)
    assert float(found["read"]) > 0.95
    assert float(found["order"]) > 0.95
    assert float(found["line"]) > float(found["spline"]) > 0.2  # a spline has more to estimate


def test_a_curve_is_predicted_by_a_spline_and_not_by_a_line() -> None:
    found = measured(CIRCLE)
    assert float(found["spline"]) > 0.5 > float(found["line"]) + 0.2


def test_noise_is_not_read_although_it_would_be_where_it_was_fitted() -> None:
    found = [measured(NOTHING, seed=seed) for seed in range(30)]
    read = np.array([float(one["read"]) for one in found])
    assert read.mean() < 3.5 * read.std() / np.sqrt(30)
    assert max(float(one["line"]) for one in found) < 0.05
    x = values_of(planted(NOTHING), SITE, "age", np.random.default_rng(0)).halves[0].mean(0)
    dual = np.linalg.solve(x @ x.T + 1e-6 * np.eye(VALUES), np.arange(VALUES) - VALUES / 2)
    assert np.corrcoef(x @ (x.T @ dual), np.arange(VALUES))[0, 1] > 0.999


def test_a_step_is_found_where_it_is() -> None:
    places = []
    for seed in range(10):
        found = measured(STEP, seed=seed)
        assert int(found["breaks"]) >= 1
        places.append(float(found["place"][int(found["jump"].argmax("place"))]))
    expected = np.flatnonzero(ALONG > 0.4)[0] - 1
    assert np.mean(np.array(places) == expected) >= 0.8


@pytest.mark.parametrize("means", [NOTHING, LINE, TUNED], ids=["noise", "line", "curve"])
def test_where_nothing_breaks_no_break_is_found(means: np.ndarray) -> None:
    """The largest jump anywhere, of sixty values: at most one time in twenty."""
    found = [float(measured(means, seed=seed)["breaks"]) > 0 for seed in range(100)]
    assert np.mean(found) <= 0.1


def test_a_circle_closes_and_a_line_and_an_arch_do_not() -> None:
    circle, line, arch = (measured(means, Circularity) for means in (CIRCLE, LINE, TUNED))
    assert float(circle["wrap"]) > 0.9
    assert float(circle["turn"]) > 0.95
    assert float(circle["on_a_circle"]) > 0.9 > float(circle["on_a_line"])
    for one in (line, arch):
        assert float(one["on_a_line"]) > float(one["on_a_circle"])
    assert float(line["wrap"]) < 0.1
    assert float(arch["turn"]) > 0.8  # in the plane it looks like a loop, and is none


def test_an_arch_of_three_quarters_does_not_close() -> None:
    arch, circle = measured(ARCH, Circularity), measured(CIRCLE, Circularity)
    assert float(arch["on_an_arch"]) > max(float(arch["on_a_circle"]), float(arch["on_a_line"]))
    assert float(arch["closes"]) < 0
    assert float(circle["closes"]) > 0.1


@pytest.mark.parametrize(("count", "closes"), [(5, 0.180), (6, 0.118), (7, 0.086), (60, 0.170)])
def test_exact_circles_fit_better_than_an_arch_by_what_geometry_says(
    count: int, closes: float
) -> None:
    """Also those whose arch has two distances that are the same."""
    angle = 2 * np.pi * np.arange(count) / count
    for share, expected in ((1, closes), (0.6, None)):
        points = np.array([np.cos(share * angle), np.sin(share * angle)]).T
        distances = np.round(squared_euclidean(points), 9)
        (found,) = _closes(_fits(distances[None], count))
        assert found < -0.2 if expected is None else found == pytest.approx(expected, abs=1e-3)


def test_what_may_be_claimed_is_nothing_on_average_where_there_is_nothing() -> None:
    """And the gate is given the same as the report."""
    found = {"read": [], "gain": [], "closes": []}
    for seed in range(20):
        subject, rng = planted(NOTHING, seed=seed), np.random.default_rng
        for analysis in (NumberLine(SITE, "age", permutations=19), Circularity(SITE, "age")):
            whole = analysis(subject, rng=rng(0))
            for name in analysis.measures:
                one = analysis.measured(subject, variable=name, rng=rng(0))
                xr.testing.assert_identical(one.rename(name), whole[name])
                found[name].append(float(one[0]))
    for values in found.values():
        assert np.mean(values) < 3.5 * np.std(values) / np.sqrt(20)
    assert float(measured(CIRCLE)["gain"]) > 0.2 > 0 > float(measured(LINE)["gain"])


@pytest.mark.parametrize(("count", "life"), [(6, 0.366), (9, 0.532), (20, 0.735), (60, 0.814)])
def test_a_loop_of_exact_circles_lives_as_long_as_geometry_says(count: int, life: float) -> None:
    angle = 2 * np.pi * np.arange(count) / count
    points = np.array([np.cos(angle), np.sin(angle)]).T
    assert loop(squared_euclidean(points)) == pytest.approx(life, abs=1e-3)
    # Born when neighbours are joined; in 200 degrees and on a line there is none to be born.
    bent = np.array([np.cos(angle * 200 / 360), np.sin(angle * 200 / 360)]).T
    assert loop(squared_euclidean(bent)) < 0.02
    assert loop(squared_euclidean(angle[:, None])) == 0
    assert np.isnan(loop(np.zeros(count * (count - 1) // 2)))


def test_loops_of_recordings_live_long_for_circles_alone() -> None:
    circle, *others = (
        [float(measured(means, Circularity, seed=seed)["loop"]) for seed in range(10)]
        for means in (CIRCLE, LINE, TUNED, NOTHING)
    )
    assert min(circle) > 0.4  # 0.81 without noise
    assert max(map(max, others)) < 0.15


def test_noise_is_no_circle() -> None:
    found = [measured(NOTHING, Circularity, seed=seed) for seed in range(20)]
    assert np.mean([float(one["turn"]) for one in found]) < 0.35
    values = np.array([float(one["on_a_circle"]) for one in found])
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(20)


def test_the_wrap_and_the_turn_of_exact_circles() -> None:
    corners = np.exp(2j * np.pi * np.arange(6) / 6)
    points = np.array([corners.real, corners.imag, np.zeros(6)]).T
    assert wrap(np.sum((points - points[0])[1:] ** 2, axis=1)) == pytest.approx(0.75)
    assert turn(np.array([points, points])) == pytest.approx(1)
    assert turn(np.array([points[[0, 3, 1, 5, 2, 4]]] * 2)) < 0.6
    assert np.isnan(turn(np.zeros((2, 6, 3))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_folds": 1}, "value_folds must be at least 2"),
        ({"knots": 2}, "knots must be at least 3"),
        ({"permutations": 9}, "alpha 0.05 cannot be reached with 9 permutations"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NumberLine(SITE, "age", **settings)


def test_what_cannot_be_computed_is_told() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AnalysisError, match="'age' has 7 values; 8 are needed"):
        measured(LINE[:7])
    with pytest.raises(AnalysisError, match="'age' has 4 values; 5 are needed"):
        measured(LINE[:4], Circularity)
    with pytest.raises(AnalysisError, match="'age': 1 frame cannot be divided into halves"):
        measured(LINE, frames=1)
    with pytest.raises(AnalysisError, match="'category' holds no numbers, but 'even'"):
        NumberLine(SITE, "category")(planted(LINE), rng=rng)
    whole = planted(LINE)
    rows = np.flatnonzero((whole.volume["age"] != 3) | (whole.volume["frame"] == "0"))
    with pytest.raises(AnalysisError, match="3 of 'age' is in no frame of one half"):
        NumberLine(SITE, "age")(whole.take(rows), rng=rng)
