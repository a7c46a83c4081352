"""Volumes in object storage, and what keeps two writers apart, on a server that speaks S3."""

import json
import os
import time
from pathlib import Path

import numpy as np
import obstore
import pytest
import xarray as xr

from scanner import Recording, VolumeError, object_store, open_volume, record, verify_volume
from scanner.object_store import Lease, Store, StoreError, TakenError
from scanner.remote import fetch, push
from scanner.volume import digest_file


@pytest.fixture(scope="module")
def volume(tiny_source, tiny_model, toy_stimuli, tmp_path_factory):
    """A finished volume with some shards."""
    plan = Recording(tiny_source("llama"), toy_stimuli, ("resid_post", "z"), "target", "float32")
    folder = tmp_path_factory.mktemp("volumes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanner.shards.CHUNK_BYTES", 1000)
        patch.setattr("scanner.shards.SHARD_BYTES", 6000)
        return record(plan, folder, lambda: tiny_model("llama"), protocol_sha256="0" * 64)


@pytest.fixture
def store(bucket):
    return Store(f"{bucket}/volumes")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def objects(store: Store) -> dict[str, bytes]:
    return {name: store.get(name).content for name in store.names()}


def test_a_volume_that_is_pushed_is_the_same_bytes_and_is_read_and_verified_there(volume, store):
    push(volume, store)
    assert objects(store) == files(volume.parent)
    url = f"{store.url}/{volume.name}"
    verify_volume(url)
    found, here = open_volume(url), open_volume(volume)
    xr.testing.assert_identical(found.load(), here.load())
    assert found.encoding["source"] == url
    assert np.array_equal(found["z"].isel(layer=1, stimulus=[3, 1]), here["z"][[3, 1], 1])


def test_what_was_being_pushed_is_no_volume_and_goes_on_without_sending_again(
    volume, store, monkeypatch
):
    monkeypatch.setattr(object_store, "THREADS", 1)
    sent = []

    def stop():
        sent.append(1)
        if len(sent) > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(volume, store, check=stop)
    assert len(store.names()) == 7
    url = f"{store.url}/{volume.name}"
    for use in (open_volume, verify_volume):
        with pytest.raises(VolumeError, match=f"no finished volume at {url}; run `scan record`"):
            use(url)
    again = []
    push(volume, store, check=lambda: again.append(1))
    assert objects(store) == files(volume.parent)
    assert len(again) == len(files(volume)) - 7 + 1  # and the digest
    push(volume, store, check=lambda: pytest.fail("nothing is left to do"))


def test_what_is_left_of_another_recording_is_not_mixed_with_this_one(volume, store):
    below = store.below(volume.name)
    first = sorted(files(volume))[0]
    obstore.put(below.objects, first, b"another")
    obstore.put(below.objects, "stray", b"another")
    push(volume, store)
    assert objects(store) == files(volume.parent)


def test_a_finished_volume_is_not_replaced_by_another(volume, store):
    obstore.put(store.objects, digest_file(volume).name, b"f" * 64)
    with pytest.raises(VolumeError, match="holds another recording of this name. Keep that one"):
        push(volume, store)


def test_a_damaged_volume_is_not_pushed(volume, store, tmp_path):
    copy = tmp_path / volume.name
    Store(store.url)  # nothing is asked of the server
    for name, content in files(volume.parent).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (copy / "z/zarr.json").write_text("{}")
    with pytest.raises(VolumeError, match="its bytes are not those that were recorded"):
        push(copy, store)
    assert store.names() == {}


def test_a_volume_is_fetched_whole_or_not_at_all(volume, store, tmp_path):
    push(volume, store)
    assert fetch(store, volume.name, tmp_path) == tmp_path / volume.name
    assert files(tmp_path) == files(volume.parent)
    shard = next(name for name in store.below(volume.name).names() if "z/c/" in name)
    obstore.put(store.below(volume.name).objects, shard, b"other bytes")
    url = f"{store.url}/{volume.name}"
    with pytest.raises(VolumeError, match=f"volume {url}: its bytes are not those that were rec"):
        verify_volume(url)
    with pytest.raises(VolumeError, match="its bytes are not those that were recorded. Remove it"):
        fetch(store, volume.name, tmp_path / "other")
    assert not files(tmp_path / "other")
    with pytest.raises(VolumeError, match="no finished volume at .*/none.zarr"):
        fetch(store, "none.zarr", tmp_path)


def test_an_object_is_replaced_only_by_who_has_seen_it(store):
    first = store.put("ledger", b"1", instead_of=None)
    with pytest.raises(TakenError, match="/ledger was written by another process meanwhile"):
        store.put("ledger", b"2", instead_of=None)
    second = store.put("ledger", b"12", instead_of=first)
    with pytest.raises(TakenError):
        store.put("ledger", b"13", instead_of=first)
    # What was put without being told so, and is put again by obstore, is put.
    assert store.put("ledger", b"12", instead_of=first) == second
    assert store.get("ledger").content == b"12"
    store.delete("ledger")
    with pytest.raises(TakenError):
        store.put("ledger", b"123", instead_of=second)
    assert store.get("ledger") is None


def test_a_lease_keeps_others_out_and_lets_in_who_has_the_same_folder(store):
    with Lease(store, ".lock", "mine") as held:
        held.check()
        with pytest.raises(
            TakenError, match=rf"another run \(\w+, process {os.getpid()} on .*\) is"
        ):
            with Lease(store, ".lock", "other"):
                pass
        assert json.loads(store.get(".lock").content)["holder"] == "mine"
    assert store.names() == {}
    store.put(".lock", json.dumps({"holder": "mine"}).encode(), instead_of=None)  # it was killed
    with Lease(store, ".lock", "mine"):
        pass


def test_a_lease_lives_while_it_is_held_and_is_anyones_when_it_does_not(store, monkeypatch):
    monkeypatch.setattr(object_store, "LEASE", 1.5)
    with Lease(store, ".lock", "mine") as held:
        time.sleep(3.0)  # its age is told in whole seconds
        with pytest.raises(TakenError):
            with Lease(store, ".lock", "other"):
                pass
        held.check()
        # A machine that sleeps: no beat is sent, and another takes over.
        monkeypatch.setattr(Lease, "_beat", lambda *_: None)
        time.sleep(3.0)
        with pytest.raises(TakenError, match="no sign of life for 2 s, and another may have taken"):
            held.check()
        monkeypatch.undo()
        monkeypatch.setattr(object_store, "LEASE", 1.5)
        with Lease(store, ".lock", "other") as other:
            time.sleep(0.6)  # the first wakes up, and sees it
            with pytest.raises(TakenError):
                held.check()
            other.check()
            assert json.loads(store.get(".lock").content)["holder"] == "other"


def test_credentials_may_stand_in_the_file_of_other_tools(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "none").write_text(
        "[default]\naws_access_key_id = k%y\naws_secret_access_key = s\n[b]\nregion = x\n"
    )
    assert Store(store.url).names() == {}
    monkeypatch.setenv("AWS_PROFILE", "none")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        Store(store.url).names()


@pytest.mark.parametrize("url", ["s3:/bucket", "s3://", "gs://bucket", "s3://bucket/a b"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(StoreError, match=f"'{url}' is no folder in object storage; give s3://buc"):
        Store(url)


def test_without_obstore_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(object_store, "find_spec", lambda _name: None)
    with pytest.raises(StoreError, match=r"needs obstore; install it with: pip install 'lmfmri\["):
        Store("s3://bucket")
