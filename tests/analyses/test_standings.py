"""Who is ahead of whom is told item by item, with the errors that statistics' own programs have."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from analyses import AnalysisError
from analyses.choices import Choices
from analyses.shares import bootstrapped, macro, of_categories, of_items, paired, wilson
from analyses.standings import Standings
from scanner import Subject
from verification.effect_worlds import effect_world


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def asked(size: float, name: str = "one", seed: int = 0) -> Subject:
    """Of the same items, whoever is asked."""
    world, first = (
        effect_world(generator(one), Choices(), size=size, items=12).volume for one in (seed, 0)
    )
    labels = {name: ("stimulus", first[name].values) for name in ("item", "category")}
    return Subject(name, world.rename(choices="ask").assign_coords(labels), {})


def test_shares_are_of_items_and_not_of_questions() -> None:
    volume = xr.Dataset(coords={
        "item": ("stimulus", ["a", "a", "a", "b", "c"]),
        "category": ("stimulus", ["x", "x", "x", "x", "y"]),
    })  # fmt: skip
    subject, right = Subject("s", volume, {}), np.array([[1, 1, 0, 0, 1.0]])
    np.testing.assert_allclose(of_items(right, subject), [(2 / 3 + 0 + 1) / 3])
    names, each = of_categories(right, subject)
    assert names.tolist() == ["x", "y"]
    np.testing.assert_allclose(each, [[1 / 3, 1]])
    np.testing.assert_allclose(macro(right, subject), [2 / 3])


def test_intervals_of_shares_are_wilsons() -> None:
    low, high = wilson(np.array([9 / 14]), 14)
    assert (low[0], high[0]) == pytest.approx(proportion_confint(9, 14, method="wilson"))
    assert (low[0], high[0]) == pytest.approx((0.39, 0.84), abs=0.005)


def test_intervals_of_means_hold_what_they_say() -> None:
    held = 0
    for seed in range(200):
        low, high = bootstrapped(generator(seed).normal(size=40), generator(seed))
        held += low <= 0 <= high
    assert 0.90 < held / 200 < 0.98
    assert bootstrapped(np.ones(5), generator()) == (1.0, 1.0)


def test_a_pair_has_the_p_of_changed_signs_and_of_mcnemar() -> None:
    rng = generator()
    one, other = (rng.random(60) < 0.7).astype(float), (rng.random(60) < 0.5).astype(float)
    found = paired(one, other, generator())
    table = [[np.sum((one == a) & (other == b)) for b in (1, 0)] for a in (1, 0)]
    assert found.mcnemar == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.only_first, found.only_second) == (table[0][1], table[1][0])
    scipys = permutation_test(
        (one, other), lambda a, b: np.mean(a - b), permutation_type="samples",
        n_resamples=9999, rng=generator(),
    )  # fmt: skip
    assert found.p == pytest.approx(scipys.pvalue, abs=0.02)
    assert found.ahead == pytest.approx(one.mean() - other.mean())
    same = paired(one, one, generator())
    assert (same.ahead, same.p, same.mcnemar) == (0, 1, 1)
    with pytest.raises(AnalysisError, match="60 and 59 items"):
        paired(one, other[1:], generator())


def test_one_that_knows_more_is_ahead_and_two_that_are_alike_are_not() -> None:
    subjects = [asked(0.7, "knows"), asked(0.0, "guesses", 1), asked(0.0, "guesses too", 2)]
    found = Standings("ask")(*subjects, rng=generator())
    standing = found["standing"]
    assert standing.values[0] > 0.6 and standing.values[1:].max() < 0.4
    for end, sign in (("low", -1), ("high", 1)):
        assert (sign * (found[f"standing_{end}"] - standing) > 0).all()
    lead, p = found["lead"].values, found["lead_p"].values
    np.testing.assert_allclose(lead, -lead.T)
    np.testing.assert_allclose(lead[0], standing.values[0] - standing.values)
    assert p[0, 1] < 0.01 and found["lead_mcnemar"].values[0, 1] < 0.01 and p[1, 2] > 0.05
    assert (found["lead_low"].values <= lead).all() and (found["lead_high"].values >= lead).all()
    np.testing.assert_allclose(found["normalised"].values[0, 1], standing[0] / standing[1])
    by_category = found["standing_by_category"].values
    np.testing.assert_allclose(
        found["normalised_by_category"].values[0, 1], by_category[0] / by_category[1]
    )
    np.testing.assert_allclose(found["standing_macro"], by_category.mean(1))


def test_nothing_over_nothing_is_no_number() -> None:
    one, other = asked(0.5), asked(0.5, "other")
    none = other.replace_volume(other.volume.assign(ask=0 * other.volume["ask"]))
    found = Standings("ask")(one, none, rng=generator())
    assert np.isnan(found["normalised"].values[0, 1]) and found["normalised"].values[1, 0] == 0


def test_another_score_is_read_by_its_name() -> None:
    subject = asked(0.5)
    by_name = Standings("ask", score="margin")(subject, rng=generator())
    margin = subject.volume["margin"].transpose("target", "layer", "stimulus").values[0, 0]
    np.testing.assert_allclose(by_name["standing"], of_items(margin, subject))


def test_what_was_not_asked_alike_is_refused() -> None:
    one, other = asked(0.5), asked(0.5, "other")
    items = one.volume["item"].values
    fewer = other.take(np.flatnonzero(items != items[0]))
    with pytest.raises(AnalysisError, match="other and one have been asked about other items"):
        Standings("ask")(one, fewer, rng=generator())
    assert "has no answers" in Standings("resid_post").misfit(("stimulus", "layer", "unit"))
    assert Standings("ask").misfit(Choices.makes) == ""
