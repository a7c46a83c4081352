"""The spread of a direction over units: planted numbers of units, random directions, noise."""

import numpy as np
import pytest

from analyses import AnalysisError
from analyses.participation import Participation, directions, participation
from scanner import Subject
from verification.worlds import SITE, world

UNITS = 300


def measured(subject: Subject):
    return Participation(SITE)(subject, rng=np.random.default_rng(0)).isel(layer=0)


def along(direction: np.ndarray, *, noise: float = 1.0, seed: int = 0) -> Subject:
    """A world of two categories whose means differ by a direction."""
    rng = np.random.default_rng(seed)
    size = {"layers": 1, "twins": 0, "units": UNITS, "categories": 2, "items": 40}
    subject = world(rng, noise=noise, item_spread=noise / 2, **size)
    belongs = subject.volume["category"].to_numpy() == "category0"
    x = subject.volume[SITE].to_numpy() + np.outer(belongs, direction)[:, None]
    return subject.replace_volume(subject.volume.assign({SITE: (subject.volume[SITE].dims, x)}))


@pytest.mark.parametrize("count", [1, 20, 200])
def test_the_units_of_a_direction_are_counted(count: int) -> None:
    """METHODS A5: uniform on k units is k; without correction noise adds to a few."""
    direction = np.where(np.arange(UNITS) < count, np.sqrt(40 / count), 0)
    found = measured(along(direction))
    np.testing.assert_allclose(found["units"], count, rtol=0.1)
    np.testing.assert_allclose(found["spread"], count / (UNITS / 3), rtol=0.15)


def test_noise_makes_few_units_many_where_it_is_not_taken_out() -> None:
    direction = np.where(np.arange(UNITS) < 20, 0.8, 0)
    naive, found = [], []
    for seed in range(20):
        subject = along(direction, seed=seed)
        x = subject.volume[SITE].isel(layer=0)
        apart = x.groupby(subject.volume["category"]).mean().diff("category").to_numpy()
        naive.append(np.sum(apart**2) ** 2 / np.sum(apart**4))
        found.append(float(measured(subject)["units"].mean()))
    assert np.mean(naive) > 24
    assert np.mean(found) == pytest.approx(20, rel=0.1)


def test_a_random_direction_is_as_one_turned_at_random() -> None:
    rng = np.random.default_rng(1)
    found = [
        measured(along(rng.normal(size=UNITS), seed=seed))["spread"].mean() for seed in range(40)
    ]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / np.sqrt(40))
    assert np.std(found) < 0.25


def test_where_units_differ_in_size_scaling_tells_their_spread() -> None:
    """A direction of equal parts, in standard deviations, of units of which three are large."""
    subject = along(np.ones(UNITS))
    size = np.where(np.arange(UNITS) < 3, 30.0, 1.0)
    x = subject.volume[SITE].to_numpy() * size
    volume = subject.volume.assign({SITE: (subject.volume[SITE].dims, x)})
    found = measured(subject.replace_volume(volume))
    assert float(found["units"].mean()) < 5
    assert float(found["spread_scaled"].mean()) == pytest.approx(3, rel=0.1)  # all, not a third


def test_in_noise_parts_do_not_agree_and_nothing_is_counted() -> None:
    found = [measured(world(np.random.default_rng(seed), layers=1)) for seed in range(40)]
    agreement = np.array([float(one["agreement"]) for one in found])
    assert abs(agreement.mean()) < 3.5 * agreement.std() / np.sqrt(len(agreement))
    assert np.mean([np.isnan(one["spread"]).mean() for one in found]) > 0.5


def test_directions_are_means_less_those_of_all_others() -> None:
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(20, 4)), np.repeat(np.arange(3), [5, 7, 8])
    found = directions(x, codes == np.arange(3)[:, None])
    for code in range(3):
        np.testing.assert_allclose(found[code], x[codes == code].mean(0) - x[codes != code].mean(0))
    some = (codes == np.arange(3)[:, None]) & (np.arange(20) % 2 == 0)
    np.testing.assert_allclose(
        directions(x, some), directions(x[::2], codes[::2] == np.arange(3)[:, None])
    )


def test_participation_of_noise_is_no_number() -> None:
    squared, fourth = np.array([-1.0, 4, 2, 50]), np.array([1.0, 2, -1, 1])
    found = participation(squared, fourth, 20)
    np.testing.assert_array_equal(found, [np.nan, 2, np.nan, np.nan])


def test_too_few_items_are_named() -> None:
    with pytest.raises(AnalysisError, match="'category0' of 'category' has 7 items; 8 are needed"):
        measured(world(np.random.default_rng(0), items=7, layers=1))
