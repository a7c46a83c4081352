"""What is done to a subject is done to its twins, and to nothing else."""

import shutil

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scanner import Subject

ROWS, LAYERS, UNITS, SEEDS = 6, 3, 2, (0, 4)


def volume(offset):
    values = np.arange(ROWS * LAYERS * UNITS, dtype=np.float32).reshape(ROWS, LAYERS, UNITS)
    return xr.Dataset(
        {"resid_post": (("stimulus", "layer", "unit"), values + offset)},
        coords={
            "item": ("stimulus", np.array(list("aabbcc"))),
            "category": ("stimulus", np.array(list("xxxxyy"))),
            "layer": [0, 1, 2],
        },
        attrs={"subject": "toy"},
    )


SUBJECT = Subject("toy", volume(0), {seed: volume(100 + seed) for seed in SEEDS})
ALL = (None, *SEEDS)
rows = st.lists(st.integers(0, ROWS - 1), max_size=10).map(lambda some: np.array(some, dtype=int))


def of(subject, seed):
    return subject.volume if seed is None else subject.twins[seed]


@given(rows=rows)
def test_take_is_indexing_of_activations_and_labels_in_the_subject_and_each_twin(rows):
    taken = SUBJECT.take(rows)
    assert tuple(taken.twins) == SEEDS
    for seed in ALL:
        for name in ("resid_post", "item", "category"):
            expected = of(SUBJECT, seed)[name].to_numpy()[rows]
            np.testing.assert_array_equal(of(taken, seed)[name].to_numpy(), expected)
        assert of(taken, seed).attrs == of(SUBJECT, seed).attrs


@given(first=rows, second=st.data())
def test_taking_twice_is_taking_once(first, second):
    if len(first) == 0:
        return
    then = np.array(second.draw(st.lists(st.integers(0, len(first) - 1), max_size=5)), dtype=int)
    twice, once = SUBJECT.take(first).take(then), SUBJECT.take(first[then])
    for seed in ALL:
        xr.testing.assert_identical(of(twice, seed), of(once, seed))


@given(values=st.permutations(range(ROWS)), label=st.sampled_from(["item", "category", "new"]))
def test_relabel_changes_one_label_in_the_subject_and_each_twin_and_nothing_else(values, label):
    relabelled = SUBJECT.relabel(label, np.array(values))
    for seed in ALL:
        assert of(relabelled, seed)[label].to_numpy().tolist() == list(values)
        before = of(SUBJECT, seed).drop_vars(label, errors="ignore")
        xr.testing.assert_identical(of(relabelled, seed).drop_vars(label), before)


def test_relabel_with_another_number_of_values_is_an_error():
    with pytest.raises(ValueError, match="stimulus"):
        SUBJECT.relabel("item", np.arange(ROWS - 1))


@pytest.mark.parametrize("layer", range(LAYERS))
def test_at_leaves_one_layer_of_the_subject_and_each_twin(layer):
    one = SUBJECT.at(layer)
    for seed in ALL:
        whole = of(SUBJECT, seed)["resid_post"].to_numpy()
        np.testing.assert_array_equal(of(one, seed)["resid_post"].to_numpy(), whole[:, [layer]])
        assert of(one, seed)["layer"].to_numpy().tolist() == [layer]


def test_at_a_layer_that_was_not_recorded_is_an_error():
    with pytest.raises(KeyError):
        SUBJECT.at(LAYERS)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_twin_is_a_subject_with_its_own_recording_and_no_twins(seed):
    twin = SUBJECT.twin(seed)
    assert twin.name == f"toy.twin{seed}"
    assert twin.twins == {}
    xr.testing.assert_identical(twin.volume, SUBJECT.twins[seed])


def test_a_twin_that_was_not_recorded_is_an_error():
    with pytest.raises(KeyError):
        SUBJECT.twin(1)


def test_a_twin_of_what_was_taken_and_relabelled_is_taken_and_relabelled_too():
    twin = SUBJECT.take(np.array([5, 0])).relabel("category", np.array(["p", "q"])).at(1).twin(4)
    assert twin.volume["item"].to_numpy().tolist() == ["c", "a"]
    assert twin.volume["category"].to_numpy().tolist() == ["p", "q"]
    assert twin.volume["resid_post"].to_numpy()[:, 0, 0].tolist() == [104 + 32, 104 + 2]


def test_another_volume_in_its_place_has_no_twins():
    other = SUBJECT.replace_volume(volume(7))
    assert (other.name, other.twins) == ("toy", {})
    xr.testing.assert_identical(other.volume, volume(7))


def test_load_brings_lazy_volumes_into_memory(tmp_path):
    """Shown by taking the files away."""
    for name in ("trained", "twin"):
        only_numbers = volume(0).drop_vars(["item", "category"])
        only_numbers.to_zarr(tmp_path / name, zarr_format=3, consolidated=False)
    lazy, twin = (xr.open_zarr(tmp_path / n, consolidated=False) for n in ("trained", "twin"))
    loaded = Subject("toy", lazy, {0: twin}).load()
    for name in ("trained", "twin"):
        shutil.rmtree(tmp_path / name)
    for seed in (None, 0):
        np.testing.assert_array_equal(of(loaded, seed)["resid_post"], volume(0)["resid_post"])


def test_of_one_site_stays_what_is_told_of_its_dimensions_and_of_pairs_of_them():
    bare = SUBJECT.volume.assign(
        told=(("stimulus", "parcel"), np.zeros((ROWS, 2))), read=(("token",), np.zeros(9))
    ).assign_coords(
        wired=(("parcel", "other_parcel"), np.eye(2)),
        name=("parcel", ["a", "b"]),
        directions=(("parcel", "unit"), np.eye(2)),
        token_stimulus=("token", np.arange(9)),
    )
    kept = SUBJECT.replace_volume(bare).keep("told").volume
    assert set(kept.data_vars) == {"told"}
    assert {"wired", "name", "item", "category"} <= set(kept.coords)
    assert not {"token_stimulus", "resid_post", "directions"} & set(kept.variables)
    assert "wired" not in SUBJECT.replace_volume(bare).keep("resid_post").volume.coords


def test_nothing_of_all_this_changes_the_subject_itself():
    before = {seed: volume(0 if seed is None else 100 + seed) for seed in ALL}
    SUBJECT.take(np.array([1])), SUBJECT.at(0), SUBJECT.relabel("item", np.arange(ROWS))
    for seed in ALL:
        xr.testing.assert_identical(of(SUBJECT, seed), before[seed])
