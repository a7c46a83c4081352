"""What lesions did is averaged over frames, then over items, with their interval."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analyses import AnalysisError
from analyses.lesion import Lesion
from analyses.neutral import sentences
from scanner import Live, Recording, Subject, added
from scanner import lesioned as lesion_parts
from verification.worlds import world

LAYERS, PARTS = 4, ("block", "attention")


def lesioned(harm: np.ndarray, *, items: int = 10, seed: int = 0) -> tuple[Subject, np.ndarray]:
    """Two categories; harm (layer x part) is done to the first alone, around it noise by item."""
    rng = np.random.default_rng(seed)
    subject = world(rng, categories=2, items=items, layers=LAYERS, frames=3)
    first = subject.volume["category"].to_numpy().astype(str) == "category0"
    _, which = np.unique(subject.volume["item"].to_numpy().astype(str), return_inverse=True)
    noise = rng.normal(size=(which.max() + 1, LAYERS, len(PARTS)))[which]
    values = 1 + 0.1 * noise + first[:, None, None] * harm
    dims = ("stimulus", "layer", "part")
    volume = subject.volume.assign(divergence=(dims, values), surprisal=(dims, values / 2))
    items = subject.volume["item"].to_numpy().astype(str)
    known, which = np.unique(items, return_inverse=True)
    dealt = np.array([rng.permutation(len(known)) < len(known) / 2 for _ in range(6)])
    inside = np.column_stack([first, dealt.T[which]])
    volume = volume.assign(inside=(("stimulus", "target"), inside)).assign_coords(
        part=list(PARTS), target_kind=("target", ["own", *["shuffled"] * 6])
    )
    return subject.replace_volume(volume), values


def analysed(subject: Subject, **settings: object) -> xr.Dataset:
    return Lesion("category0", **settings)(subject, rng=np.random.default_rng(0))


def test_harm_to_one_category_at_one_layer_is_found_there_alone() -> None:
    harm = np.zeros((LAYERS, 2))
    harm[2, 1] = 3.0
    found = analysed(lesioned(harm)[0])
    contrast = found["attention_by_category"].sel(category="category0") - found[
        "attention_by_category"
    ].sel(category="category1")
    np.testing.assert_allclose(contrast, [0, 0, 3, 0], atol=0.15)
    np.testing.assert_allclose(found["block_by_category"], 1, atol=0.15)
    assert int(found["divergence"].sel(part="attention").argmax("layer")) == 2


def test_what_one_category_loses_beside_the_rest_is_a_difference_of_logarithms_of_items() -> None:
    harm = np.zeros((LAYERS, 2))
    harm[1, 0] = 2.0
    subject, values = lesioned(harm)
    found = analysed(subject)
    items = subject.volume["item"].to_numpy().astype(str)
    first = subject.volume["category"].to_numpy().astype(str) == "category0"
    known = np.unique(items)
    means = np.log([values[items == item].mean(0) for item in known])
    inside = np.array([first[items == item][0] for item in known])
    expected = means[inside].mean(0) - means[~inside].mean(0)
    np.testing.assert_allclose(found["selective"], expected[:, 0])
    np.testing.assert_allclose(found["selective_of"].sel(arm=list(PARTS)), expected)
    assert found["selective"][1] == pytest.approx(np.log(3), abs=0.1)
    assert float(np.abs(found["selective_of"].sel(arm="dealings of labels")).max()) < 0.5


def test_labels_dealt_anew_are_kept_beside_what_was_done(tiny_model, toy_stimuli) -> None:
    model = tiny_model("llama")
    recording = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    table = toy_stimuli.table
    columns = {name: ("stimulus", table[name].to_numpy()) for name in ("item", "category")}
    subject = Subject("toy", xr.Dataset(coords=columns), {})
    analysis = Lesion("animals", parts=("mlp",), left="mean", random=3)
    live = Live(model, recording)
    (run,) = analysis.runs(live, subject)
    found = analysis.act(live, subject, run, rng=np.random.default_rng(0))
    assert found["target_kind"].values.tolist() == ["own", *["shuffled"] * 3]
    inside = found["inside"].to_numpy()
    np.testing.assert_array_equal(inside[:, 0], table["category"] == "animals")
    for item in table["item"].unique():
        assert (np.ptp(inside[table["item"] == item] * 1, axis=0) == 0).all()
    assert len(np.unique(inside, axis=1).T) == 4
    assert (inside.sum(0) == inside.sum(0)[0]).all()
    instead = added(model, sentences(live))
    expected = lesion_parts(model, live.ids, ["mlp"], instead=instead)["divergence"]
    np.testing.assert_allclose(found["divergence"], expected)
    with pytest.raises(AnalysisError, match="no 'plants' among 'category'"):
        Lesion("plants").runs(live, subject)


def test_intervals_are_those_of_scipy_over_items_and_not_over_stimuli() -> None:
    subject, values = lesioned(np.zeros((LAYERS, 2)))
    found = analysed(subject, level=0.9)
    items = subject.volume["item"].to_numpy().astype(str)
    means = np.array([values[items == item].mean(0) for item in np.unique(items)])
    low, high = stats.t.interval(0.9, len(means) - 1, means.mean(0), stats.sem(means))
    np.testing.assert_allclose(found["divergence"], means.mean(0))
    np.testing.assert_allclose(found["divergence_low"], low)
    np.testing.assert_allclose(found["divergence_high"], high)
    np.testing.assert_allclose(found["surprisal"], means.mean(0) / 2)


def test_an_item_counts_once_however_many_frames_it_stands_in() -> None:
    subject, _ = lesioned(np.zeros((LAYERS, 2)))
    items = subject.volume["item"].to_numpy().astype(str)
    frames = subject.volume["frame"].to_numpy().astype(str)
    kept = np.flatnonzero((items != items[0]) | (frames == frames[0]))
    part = subject.take(kept)
    # The noise is of the item, so fewer frames of one change nothing.
    np.testing.assert_allclose(analysed(part)["divergence"], analysed(subject)["divergence"])


def test_where_nothing_is_lost_intervals_hold_nothing_as_often_as_they_say() -> None:
    missed = []
    for seed in range(200):
        found = analysed(lesioned(np.zeros((LAYERS, 2)), seed=seed)[0])
        at = found.isel(layer=0, part=0)
        missed.append(not float(at["divergence_low"]) <= 1 <= float(at["divergence_high"]))
    assert 0.01 < np.mean(missed) < 0.10  # 5 %, give or take what 200 can tell


def test_what_cannot_be_averaged_is_refused() -> None:
    subject, _ = lesioned(np.zeros((LAYERS, 2)))
    items = subject.volume["item"].to_numpy().astype(str)
    category = subject.volume["category"].to_numpy().astype(str)
    one = np.flatnonzero((category == "category1") | (items == items[category == "category0"][0]))
    with pytest.raises(AnalysisError, match="'category0' has one item; an average needs 2"):
        analysed(subject.take(one))
    with pytest.raises(ValueError, match="level of 1 is no share"):
        Lesion("category0", level=1)
    with pytest.raises(ValueError, match="parts: block, attention, mlp, each once"):
        Lesion("category0", parts=("mlp", "mlp"))


# --- double dissociations

TWO = ("category0", "category1")


def dissociated(harm: np.ndarray, seed: int = 0, **settings: object) -> xr.Dataset:
    subject, values = lesioned(harm, seed=seed)
    volume = subject.volume.assign(divergence=(("stimulus", "layer", "part"), np.exp(values)))
    return analysed(subject.replace_volume(volume), between=TWO, permutations=199, **settings)


def test_two_lesions_dissociate_what_one_alone_does_not() -> None:
    harm = np.zeros((LAYERS, 2))
    harm[1], harm[3, 0] = 0.5, -0.5
    found = dissociated(harm)
    assert float(found["dissociated_block"]) < 0.02
    # Of attention one lesion harms the first category more, and none the second.
    assert float(found["dissociated_attention"]) > 0.05
    assert (
        found["dissociation"].sel(arm=list(PARTS)).sel(arm="block")[1]
        > 3
        > -3
        > found["dissociation"][3, 0]
    )


def test_t_is_welchs_and_no_item_counts_more_for_its_frames() -> None:
    subject, values = lesioned(np.zeros((LAYERS, 2)))
    found = dissociated(np.zeros((LAYERS, 2)))
    items = subject.volume["item"].to_numpy().astype(str)
    means = np.array([np.exp(values[items == item]).mean(0) for item in np.unique(items)])
    first = np.array([
        subject.volume["category"].to_numpy().astype(str)[items == item][0] == "category0"
        for item in np.unique(items)
    ])  # fmt: skip
    expected = stats.ttest_ind(np.log(means[first]), np.log(means[~first]), equal_var=False)
    np.testing.assert_allclose(found["dissociation"].sel(arm=list(PARTS)), expected.statistic)


def test_noise_is_dissociated_no_more_often_than_the_p_says() -> None:
    """One way alone is there in half of these worlds: to find both is rarer still."""
    harm = np.zeros((LAYERS, 2))
    harm[1, 1] = 1.0
    p = np.array([
        [float(found[f"dissociated_{part}"]) for part in PARTS]
        for found in (dissociated(harm, seed=seed) for seed in range(100))
    ])  # fmt: skip
    # Binomial: more than 12 of 100 at 0.05 happens once in a thousand.
    assert ((p < 0.05).sum(0) <= 12).all()


def test_what_cannot_be_dissociated_is_refused() -> None:
    subject, _ = lesioned(np.zeros((LAYERS, 2)))
    with pytest.raises(AnalysisError, match="no 'stars' among 'category'"):
        analysed(subject, between=("category0", "stars"))
    with pytest.raises(ValueError, match="between: two categories, not the same"):
        Lesion("category0", between=("one", "one"))
    with pytest.raises(ValueError, match="span must be at least 1"):
        Lesion("category0", span=0)
    assert "leaves nothing of the model's 3 layers" in Lesion("category0", span=3).beyond(3)
    assert Lesion("category0", span=2).beyond(3) == ""
