"""What breaks the contract of a volume is refused, and named: while recording and when opened."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from scanner import Recording, VolumeError, check_volume, open_volume, record, verify_volume
from scanner.volume import PROVENANCE, digest_file, provenance, volume_digest
from stimuli import StimulusError, StimulusSet


@pytest.fixture(scope="module")
def finished(tiny_model, toy_stimuli, tmp_path_factory):
    model = tiny_model("llama")
    plan = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    return record(
        plan, tmp_path_factory.mktemp("volumes"), lambda: model, protocol_sha256="ab" * 32
    )


@pytest.fixture
def path(finished, tmp_path):
    """A copy of a finished volume, to be damaged."""
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    shutil.copy(digest_file(finished), digest_file(copy))
    return copy


@pytest.fixture
def volume(finished):
    return xr.open_zarr(finished, consolidated=False).load()


def sealed(path):
    """Give a changed volume the digest of what it is now: only the contract can refuse it."""
    digest_file(path).write_text(volume_digest(path) + "\n")
    return path


def test_a_finished_volume_keeps_the_contract(finished, volume):
    assert check_volume(volume, "v") is volume
    xr.testing.assert_identical(open_volume(finished).load(), volume)
    assert volume["resid_post"].dims == ("stimulus", "layer", "unit")


def test_a_finished_volume_says_where_it_comes_from(volume, tiny_source, toy_stimuli):
    source, said = tiny_source("llama"), provenance(volume)
    assert set(PROVENANCE) <= set(said)
    assert said["subject"] == source.name
    assert said["stimuli_sha256"] == toy_stimuli.digest
    assert said["protocol_sha256"] == "ab" * 32
    assert said["config_sha256"] == source.config_sha256
    assert said["twin_seed"] == "none"
    assert {"hooks_leave_logits", "blocks_chain", "alone_equals_batched"} <= set(said["identities"])
    assert said["content"]["sites"] == ["resid_post"]
    assert said["refused"].keys() == {"router"}
    assert said["environment"]["torch"] == torch.__version__


def test_opening_adds_nothing_that_plain_xarray_does_not_and_reads_labels_only(finished, volume):
    opened = open_volume(finished)
    assert not opened["resid_post"].variable._in_memory
    xr.testing.assert_identical(xr.open_zarr(finished, consolidated=False).load(), opened.load())
    array = zarr.open_array(finished / "resid_post")
    assert array.shards is not None
    np.testing.assert_array_equal(array[:], volume["resid_post"].to_numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_site_layer_and_stimulus(volume, value):
    changed = volume.copy(deep=True)
    changed["resid_post"][7, 2, 5] = value
    text = volume["text"].to_numpy()[7]
    with pytest.raises(
        VolumeError,
        match=rf"volume v: resid_post is not finite at stimulus 7, layer 2, unit 5 "
        rf"\('{text}'\), and in 1 places of that layer",
    ):
        check_volume(changed, "v")


@pytest.mark.parametrize("label", ["item", "frame", "category"])
def test_a_missing_label_is_named(volume, label):
    with pytest.raises(VolumeError, match=f"volume v: no label '{label}' on its stimuli"):
        check_volume(volume.drop_vars(label), "v")


def test_a_label_that_is_not_one_a_stimulus_is_refused(volume):
    constant = volume.drop_vars("item").assign_coords(item="cat")
    with pytest.raises(VolumeError, match="no label 'item' on its stimuli"):
        check_volume(constant, "v")


def test_an_unknown_dimension_is_named(volume):
    with pytest.raises(VolumeError, match="volume v: unknown dimension 'voxel'"):
        check_volume(volume.rename(unit="voxel"), "v")


@pytest.mark.parametrize("key", PROVENANCE)
def test_a_missing_attribute_is_named(volume, key):
    attributes = {name: value for name, value in volume.attrs.items() if name != key}
    with pytest.raises(VolumeError, match=f"volume v: no attribute '{key}'"):
        check_volume(volume.drop_attrs().assign_attrs(attributes), "v")


def test_a_missing_attribute_is_named_on_disk(path):
    about = json.loads((path / "zarr.json").read_text())
    del about["attributes"]["dtype"]
    (path / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(VolumeError, match="no attribute 'dtype'"):
        open_volume(sealed(path))


def test_a_volume_without_a_site_or_a_site_without_stimuli_is_refused(volume):
    with pytest.raises(VolumeError, match="no site was recorded"):
        check_volume(volume.drop_vars("resid_post"), "v")
    mean = volume.assign(resid_post=volume["resid_post"].mean("stimulus"))
    with pytest.raises(VolumeError, match="'resid_post' has no dimension 'stimulus'"):
        check_volume(mean, "v")


def flip(path, at=100):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a changed byte of a chunk": lambda path: flip(path / "resid_post/c/0/0/0"),
    "a changed attribute": lambda path: flip(path / "zarr.json"),
    "a missing shard": lambda path: (path / "resid_post/c/0/0/0").unlink(),
    "a renamed array": lambda path: (path / "resid_post").rename(path / "resid_pre"),
    "a file too many": lambda path: (path / "note.txt").write_text("mine"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_bytes_that_are_not_those_recorded_are_refused(path, damage):
    verify_volume(path)
    damage(path)
    with pytest.raises(VolumeError, match=r"its bytes are not .* Remove it and .*\.sha256, and "):
        verify_volume(path)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_changed_byte_is_named_by_its_chunk_and_plain_zarr_does_not_read_it(path, layer):
    shard = path / "resid_post/c/0/0/0"
    chunk = 36 * 32 * 4 + 4  # rows x units in float32, and a checksum
    flip(shard, at=layer * chunk + 100)
    with pytest.raises(
        VolumeError, match=rf"\(resid_post, shard 0, layer {layer}, rows 0 to 35\). Remove it"
    ):
        verify_volume(path)
    array = zarr.open_array(path / "resid_post")
    with pytest.raises(ValueError, match="checksum"):
        array[:, layer]
    assert np.isfinite(array[:, 1]).all()  # other chunks are whole
    with pytest.raises(VolumeError, match=rf"resid_post, shard 0, layer {layer}, rows 0 to 35"):
        open_volume(path)["resid_post"].isel(layer=layer).load()


def test_no_volume_and_one_that_is_not_finished_are_refused(path, tmp_path):
    with pytest.raises(VolumeError, match="no finished volume at .*run `scan record`"):
        open_volume(tmp_path / "nowhere.zarr")
    digest_file(path).unlink()
    with pytest.raises(VolumeError, match="no finished volume"):
        open_volume(path)


@pytest.mark.parametrize("column", ["layer", "unit", "n_tokens", "target_position", "resid_post"])
def test_a_column_of_the_stimuli_that_the_volume_would_overwrite_is_refused(
    tiny_model, toy_stimuli, tmp_path, column
):
    model = tiny_model("llama")
    stimuli = StimulusSet("mine", toy_stimuli.table.assign(**{column: 7}))
    plan = Recording(model.source, stimuli, ("resid_post",), "target", "float32")
    with pytest.raises(StimulusError, match=f"'mine': a volume holds '{column}' of its own"):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_float16_that_overflows_in_computing_is_refused_where_float32_is_recorded(
    tiny_source, toy_stimuli, tmp_path
):
    from scanner import Model

    for dtype in ("float32", "float16"):
        model = Model.load(tiny_source("llama"), dtype=dtype, device="cpu")
        model.base.embed_tokens.register_forward_hook(lambda _m, _a, output: output * 1e7)
        plan = Recording(model.source, toy_stimuli, ("resid_post",), "target", dtype)
        if dtype == "float32":
            record(plan, tmp_path, lambda m=model: m, protocol_sha256="0" * 64)
        else:
            with pytest.raises(ValueError, match="fails by nan|is not finite"):
                record(plan, tmp_path, lambda m=model: m, protocol_sha256="0" * 64)
            assert not plan.path(tmp_path).exists()


RESERVE = 20_000_000  # of one forward pass, of allocators and labels


@pytest.fixture(scope="module")
def measured(tiny_source, tmp_path_factory):
    """What a process of its own found while it recorded and read more than it may hold."""
    if sys.platform != "linux":
        pytest.skip("resident memory is read from /proc")
    folder = tmp_path_factory.mktemp("large")
    source = tiny_source("llama", hidden_size=2048, num_hidden_layers=4, head_dim=8)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("weigh_recording.py"), source.folder, folder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(folder)
    return json.loads(done.stdout)


def test_a_volume_ten_times_as_large_as_what_is_in_flight_is_recorded_within_its_bound(measured):
    assert measured["volume"] >= 10 * measured["in_flight"]
    assert measured["recording"] <= measured["in_flight"] + RESERVE
    assert measured["volume"] > 3 * (measured["in_flight"] + RESERVE)  # so that it could fail


def test_one_layer_of_it_is_read_within_the_size_of_that_layer(measured):
    assert measured["layer"] * 4 == measured["volume"]
    assert measured["reading"] <= measured["layer"] + RESERVE
