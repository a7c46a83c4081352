"""The localiser: planted units, responses of known size, and nothing where there is nothing."""

import numpy as np
import pytest

from analyses import AnalysisError
from analyses.localiser import Localiser, responses
from scanner import Subject
from verification.worlds import SITE, world

FIVE = Localiser(SITE, "category0 - rest", mask=5 / 60, masks=(5 / 60, 0.5), splits=10)


def measured(subject: Subject, analysis: Localiser = FIVE):
    return analysis(subject, rng=np.random.default_rng(0)).isel(layer=0)


def test_responses_are_means_over_the_spread_within_categories() -> None:
    rng = np.random.default_rng(0)
    words, codes = rng.normal(size=(20, 5)) + 100, np.repeat(np.arange(3), [5, 7, 8])
    member = codes == np.arange(3)[:, None]
    found = responses(words, member)
    means = np.array([words[codes == code].mean(0) for code in range(3)])
    within = sum(((words[codes == code] - means[code]) ** 2).sum(0) for code in range(3))
    np.testing.assert_allclose(found, (means - means.mean(0)) / np.sqrt(within / 17), atol=1e-9)
    some = member & (rng.permutation(20) < 14)
    both = responses(words, np.array([member, some]))
    np.testing.assert_allclose(both[0], found, atol=1e-12)
    np.testing.assert_allclose(both[1], responses(words[some.any(0)], some[:, some.any(0)]))


def test_a_unit_that_does_not_vary_does_not_respond() -> None:
    words = np.random.default_rng(0).normal(size=(20, 3))
    words[:, 1] = 1e5 + 0.1
    assert not responses(words, np.repeat([0, 1], 10) == [[0], [1]])[:, 1].any()


def test_planted_units_are_chosen_and_their_response_is_what_was_planted() -> None:
    """A shift of 2 over the spread of an item: of items 0.5, of four stimuli 1 / sqrt(4)."""
    subject = world(np.random.default_rng(0), code="localist", size=2, items=60, layers=1)
    found = measured(subject)
    expected = 2 / np.sqrt(0.5**2 + 1 / 4)
    assert float(found["response"]) == pytest.approx(expected, rel=0.05)
    by_category = found["response_by_category"].to_numpy()
    shares = np.array([0.75, -0.25, -0.25, -0.25])
    np.testing.assert_allclose(by_category, expected * shares, atol=0.15)
    # Of half of all units most were not planted.
    assert float(found["response_by_mask"][1]) == pytest.approx(expected / 6, rel=0.4)


def test_neither_where_a_mask_is_asked_nor_the_size_of_weights_matters() -> None:
    subject = world(np.random.default_rng(0), code="graded", size=0.5, layers=1)
    found = measured(subject)
    assert float(found["response"]) == pytest.approx(float(found["response_by_mask"][0]))
    twice = measured(subject, Localiser(SITE, "2*category0 - 2*rest", mask=5 / 60, splits=10))
    assert float(twice["response"]) == pytest.approx(float(found["response"]))


def test_units_chosen_by_one_contrast_know_nothing_of_another() -> None:
    """Planted: five units for each category, which tell the others not from each other."""
    subject = world(np.random.default_rng(0), code="localist", size=2, items=60, layers=1)
    others = ("category1 - category2", "category0 - category3")
    analysis = Localiser(SITE, "category0 - rest", mask=5 / 60, splits=10, others=others)
    found = measured(subject, analysis)["response_to_others"]
    assert found["contrast"].values.tolist() == list(others)
    expected = 2 / np.sqrt(0.5**2 + 1 / 4)
    np.testing.assert_allclose(found, [0, expected], atol=0.2)
    with pytest.raises(AnalysisError, match="contrast 'cats - rest': 'cats' is no category"):
        measured(subject, Localiser(SITE, "category0 - rest", others=("cats - rest",)))


def test_noise_has_no_response_where_measuring_what_chose_would_see_one() -> None:
    found, circular = [], []
    for seed in range(40):
        subject = world(np.random.default_rng(seed), layers=1, twins=0)
        found.append(float(measured(subject)["response"]))
        x = subject.volume[SITE].isel(layer=0).groupby("item").mean().to_numpy()
        category = subject.volume["category"].groupby("item").first().to_numpy()
        apart = responses(x, category == np.unique(category)[:, None])
        contrast = apart[0] - apart[1:].mean(0)
        circular.append(np.sort(contrast)[-5:].mean())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3.5 * error
    assert np.mean(circular) > 0.5 > 5 * error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": 0.0}, "mask of 0 is no share"),
        ({"masks": (0.1, 1.5)}, "mask of 1.5 is no share"),
        ({"splits": 0}, "splits must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Localiser(SITE, "a - b", **settings)


def test_what_cannot_be_computed_is_told() -> None:
    with pytest.raises(AnalysisError, match="'category0' of 'category' has 3 items; 4 are needed"):
        measured(world(np.random.default_rng(0), items=3, layers=1))
    with pytest.raises(AnalysisError, match="'animals' is no category"):
        measured(world(np.random.default_rng(0), layers=1), Localiser(SITE, "animals - rest"))
