"""A digest is one of content: equal content has one, any change has another."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner import Recording, record
from scanner.plan import estimate
from scanner.provenance import (
    canonical,
    digest,
    environment,
    file_digest,
    files_digest,
    folder_digest,
    now,
)
from stimuli import StimulusSet

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(a, b):
    """Equal in value and kind: 1, 1.0 and True are three values, and so are 0.0 and -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return a == b


@given(value=values)
def test_the_canonical_text_holds_the_whole_value(value):
    assert same(json.loads(canonical(value)), value)


@given(value=st.dictionaries(st.text(), values, min_size=2), data=st.data())
def test_the_order_of_keys_does_not_matter(value, data):
    shuffled = {key: value[key] for key in data.draw(st.permutations(list(value)))}
    assert canonical(shuffled) == canonical(value)
    assert digest(shuffled) == digest(value)


@given(a=values, b=values)
def test_different_values_have_different_digests_and_equal_ones_the_same(a, b):
    assert (digest(a) == digest(b)) == same(a, b)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"deep": [1, {"down": value}]})


def test_digests_of_known_content_are_those_of_sha256(tmp_path):
    assert canonical({"b": [1, None], "a": "é"}) == '{"a":"\\u00e9","b":[1,null]}'
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180, of "abc"
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == known
    expected = hashlib.sha256(f'{{"a":"{known}"}}'.encode()).hexdigest()
    assert folder_digest(tmp_path) == expected


def test_a_file_whose_sha256_is_known_by_name_is_not_read(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a", "b/c"):
        (tmp_path / name).write_text(name)
    plain = folder_digest(tmp_path)
    known = {"b/c": file_digest(tmp_path / "b/c"), "gone": "0" * 64}
    (tmp_path / "b/c").write_text("something else")
    assert folder_digest(tmp_path, known) == plain != folder_digest(tmp_path)


def test_a_folders_digest_changes_with_names_bytes_and_files_but_not_with_its_own_name(tmp_path):
    def folder(name, **files):
        for file, content in files.items():
            path = tmp_path / name / file.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return folder_digest(tmp_path / name)

    base = folder("one", a="x", b_c="y")
    assert folder("two", b_c="y", a="x") == base
    others = [
        folder("bytes", a="x", b_c="z"),
        folder("name", a="x", b_d="y"),
        folder("swapped", a="y", b_c="x"),
        folder("more", a="x", b_c="y", e=""),
        folder("fewer", a="x"),
    ]
    assert len({base, *others}) == 6
    some = [tmp_path / "more" / "a", tmp_path / "more" / "b" / "c"]
    assert files_digest(reversed(some), root=tmp_path / "more") == base


def test_source_date_epoch_sets_the_time_and_without_it_it_is_now(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert now() == "1970-01-02T00:00:00+00:00"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert now() > "2025" and now().endswith("+00:00")


@pytest.fixture
def plan(tiny_source, toy_stimuli):
    return Recording(tiny_source("llama"), toy_stimuli, ("resid_post",), "target", "float32")


def cell(stimuli, column, value):
    table = stimuli.table.copy()
    table.loc[3, column] = value
    return StimulusSet(stimuli.name, table)


CHANGES = {
    "weights": lambda p, source: replace(p, source=source("llama", seed=1)),
    "tokenizer": lambda p, source: replace(
        p, source=replace(p.source, tokenizer_sha256=source("llama", bos=True).tokenizer_sha256)
    ),
    "text": lambda p, _: replace(p, stimuli=cell(p.stimuli, "text", "We had the ottex today.")),
    "category": lambda p, _: replace(p, stimuli=cell(p.stimuli, "category", "food")),
    "item": lambda p, _: replace(p, stimuli=cell(p.stimuli, "item", "otters")),
    "span": lambda p, _: replace(p, stimuli=cell(p.stimuli, "target_end", 13)),
    "a site more": lambda p, _: replace(p, sites=("resid_pre", "resid_post")),
    "another site": lambda p, _: replace(p, sites=("resid_pre",)),
    "tokens": lambda p, _: replace(p, tokens="all"),
    "dtype": lambda p, _: replace(p, dtype="bfloat16"),
    "twin 0": lambda p, _: replace(p, seed=0),
    "twin 1": lambda p, _: replace(p, seed=1),
    "twin 0 of another shape": lambda p, source: replace(
        p, source=source("llama", num_hidden_layers=2), seed=0
    ),
}


def test_each_thing_that_changes_a_number_or_a_label_changes_the_key(plan, tiny_source):
    keys = {name: change(plan, tiny_source).key for name, change in CHANGES.items()}
    keys["unchanged"] = plan.key
    assert len(set(keys.values())) == len(CHANGES) + 1, keys


def test_what_changes_no_number_leaves_the_key(plan, tiny_source, toy_stimuli, tmp_path):
    assert tiny_source("llama", seed=1).tokenizer_sha256 == plan.source.tokenizer_sha256
    same = [
        replace(plan, source=replace(plan.source, folder=tmp_path, name="other", revision="2")),
        replace(plan, stimuli=StimulusSet("renamed", toy_stimuli.table.copy())),
    ]
    assert {one.key for one in same} == {plan.key}
    both = replace(plan, sites=("resid_pre", "resid_post"))
    assert replace(both, sites=("resid_post", "resid_pre")).key == both.key
    # Fresh weights are drawn without the trained ones.
    twin = replace(plan, seed=0)
    assert replace(twin, source=tiny_source("llama", seed=1)).key == twin.key


def test_the_name_of_a_volume_is_its_subject_and_key_in_any_folder(plan, tiny_model, tmp_path):
    for place in ("one", "two/deeper"):
        path = record(plan, tmp_path / place, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
        assert path == tmp_path / place / f"{plan.source.name}--{plan.key}.zarr"
    twin = replace(plan, seed=3)
    assert twin.path(tmp_path).name == f"{plan.source.name}.twin3--{twin.key}.zarr"


def test_a_twins_key_changes_with_the_versions_that_draw_its_weights(plan, monkeypatch):
    twin = replace(plan, seed=0)
    before = {"trained": plan.key, "twin": twin.key}
    newer = {**environment(), "torch": "99.0"}
    monkeypatch.setattr("scanner.plan.environment", lambda: newer)
    assert plan.key == before["trained"]
    assert twin.key != before["twin"]


def test_the_size_that_is_foretold_is_the_size_on_disk(plan, tiny_model, tmp_path):
    both = replace(plan, sites=("resid_pre", "resid_post"))
    path = record(both, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    shards = [*path.glob("resid_pre/c/*/*/*"), *path.glob("resid_post/c/*/*/*")]
    # Of each shard, with a chunk for each of three layers: checksums, and the index with its own.
    beside = 3 * 4 + 3 * 16 + 4
    assert sum(shard.stat().st_size - beside for shard in shards) == estimate(both).bytes
