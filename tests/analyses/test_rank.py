"""Directions removed one after the other: against a loop, planted ranks, and nothing."""

import numpy as np
import pytest

from analyses import Analysis, AnalysisError
from analyses.rank import Rank, nullspace_scores
from scanner import Subject
from verification.worlds import SITE, world

PLAIN = Rank(SITE, limit=6)
SIZE = {"layers": 1, "twins": 0, "units": 300}


def measured(subject: Subject, analysis: Rank = PLAIN):
    return analysis(subject, rng=np.random.default_rng(0)).isel(layer=0)


def test_scores_are_those_of_probes_trained_anew_on_what_is_left() -> None:
    rng = np.random.default_rng(0)
    x, test, wanted = rng.normal(size=(30, 50)), rng.normal(size=(8, 50)), rng.random((30, 3)) < 0.4
    x -= x.mean(0)
    found = nullspace_scores(x @ x.T, test @ x.T, wanted, penalty=0.5, limit=5)
    ridge = 0.5 * np.trace(x @ x.T) / len(x)
    for column, targets in enumerate((wanted - wanted.mean(0)).T):
        left, right = x.copy(), test.copy()
        for removed in range(6):
            inner = left.T @ left + ridge * np.eye(50)
            direction = np.linalg.solve(inner, left.T @ targets)
            np.testing.assert_allclose(found[removed, :, column], right @ direction, atol=1e-9)
            direction /= np.linalg.norm(direction)
            left -= np.outer(left @ direction, direction)
            right -= np.outer(right @ direction, direction)


def test_patterns_that_do_not_vary_leave_nothing_to_remove() -> None:
    found = nullspace_scores(
        np.zeros((6, 6)), np.zeros((2, 6)), np.eye(6)[:, :2], penalty=1, limit=3
    )
    assert not found.any()


def test_a_planted_direction_is_gone_soon_and_noise_was_never_there() -> None:
    rng = np.random.default_rng(1)
    there = measured(world(rng, code="direction", size=1.0, items=30, **SIZE))
    assert float(there["auc"][0]) > 0.95 > 0.8 > float(there["left"])
    assert (there["directions"] >= 1).all()
    assert (there["directions"] <= 4).all()
    assert float(there["erased"]) == pytest.approx(0.5, abs=0.08)
    noise = measured(world(rng, items=30, **SIZE))
    assert float(noise["auc"][0]) < float(noise["shuffled"][0]) + 0.03
    assert int(noise["directions"].sum()) <= 1


def test_kinds_within_a_category_are_not_counted() -> None:
    """Planted: items of a category lie in one of five directions, and their mean carries it all."""
    rng = np.random.default_rng(3)
    subject = world(rng, items=40, **SIZE)
    items, which = np.unique(subject.volume["item"].to_numpy(), return_inverse=True)
    belongs = subject.volume["category"].to_numpy() == "category0"
    kinds = rng.normal(size=(5, SIZE["units"]))[(np.arange(len(items)) % 5)[which]]
    x = subject.volume[SITE].to_numpy() + (kinds * belongs[:, None])[:, None]
    volume = subject.volume.assign({SITE: (subject.volume[SITE].dims, x)})
    found = measured(subject.replace_volume(volume))["directions"]
    assert 1 <= int(found.sel(category="category0")) <= 2


def test_all_draws_at_once_are_those_of_one_after_the_other() -> None:
    """In distribution: draws are dealt within folds here, and among all items there."""
    subject = world(np.random.default_rng(4), code="direction", size=0.7, **SIZE)
    analysis = Rank(SITE, limit=1, shuffles=1)
    streams = {"rng": np.random.default_rng(5), "shuffles": np.random.default_rng(6)}
    fast = analysis.permuted(subject, "left", draws=60, **streams)
    streams = {"rng": np.random.default_rng(5), "shuffles": np.random.default_rng(7)}
    slow = Analysis.permuted(analysis, subject, "left", draws=60, **streams)
    assert fast.attrs["chance"] == slow.attrs["chance"] == 0.5
    error = np.hypot(fast.std(), slow.std()) / np.sqrt(60)
    assert abs(float(fast.mean() - slow.mean())) < 3.5 * error
    assert float(fast.std()) == pytest.approx(float(slow.std()), rel=0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"limit": 0}, "limit must be at least 1"), ({"shuffles": 0}, "shuffles must be at least 1")],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rank(SITE, **settings)


def test_too_few_items_are_named() -> None:
    with pytest.raises(AnalysisError, match="'category0' has 3 items, 5 groups need as many"):
        measured(world(np.random.default_rng(0), items=3, **SIZE))
