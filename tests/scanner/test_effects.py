"""What comes of acting is kept run by run, sealed like a recording, and never done twice."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from scanner import (
    Acts,
    Edit,
    Live,
    Recording,
    Site,
    SiteError,
    VolumeError,
    added,
    lesioned,
    open_volume,
    record,
    record_effects,
    verify_volume,
    without_heads,
)
from scanner.lesions import ADDED, MEANINGS, SITES
from scanner.sites import PARTS
from stimuli import StimulusSet


@pytest.fixture
def recording(proved, toy_stimuli) -> Recording:
    return Recording(proved("llama").source, toy_stimuli, ("resid_post",), "target", "float32")


@pytest.fixture
def acts(recording, proved, tmp_path) -> Acts:
    record(recording, tmp_path, lambda: proved("llama"), protocol_sha256="0" * 64)
    return Acts(recording, "toy", {"size": 2}, 7)


def effect(run: range) -> xr.Dataset:
    """Of some stimuli: their numbers, times one and two."""
    values = np.array(run)[:, None] * np.array([1.0, 2.0])
    return xr.Dataset(
        {"moved": (("stimulus", "target"), values)},
        coords={
            "stimulus": np.array(run), "target": [0, 1],
            "target_kind": ("target", ["own", "matched"]),
        },
    )  # fmt: skip


RUNS = [range(0, 10), range(10, 25), range(25, 36)]


def kept(acts: Acts, folder, act: Callable = effect, **settings):
    return record_effects(acts, folder, RUNS, act, protocol_sha256="1" * 64, **settings)


def test_runs_are_put_together_with_the_labels_of_the_stimuli(acts, tmp_path) -> None:
    seen: list[int] = []
    path = kept(acts, tmp_path, advance=seen.append)
    volume = open_volume(path)
    assert sum(seen) == len(RUNS)
    np.testing.assert_array_equal(volume["moved"][:, 1], 2.0 * np.arange(36))
    known = open_volume(acts.recording.path(tmp_path))
    for label in ("item", "frame", "category", "text"):
        assert list(volume[label].values) == list(known[label].values)
    assert volume.attrs["weights_sha256"] == known.attrs["weights_sha256"]
    assert volume.attrs["recording"] == acts.recording.path(tmp_path).name
    assert volume["target_kind"].values.astype(object).tolist() == ["own", "matched"]
    verify_volume(path)
    (path / "moved" / "zarr.json").write_text("{}")
    with pytest.raises(VolumeError, match="not those that were recorded"):
        verify_volume(path)


def test_a_label_of_the_name_of_something_in_effects_is_left_out_of_them(
    recording, proved, tmp_path
) -> None:
    table = recording.stimuli.table.assign(dose=1, note=2, moved=3)
    named = Recording(recording.source, StimulusSet("named", table), ("resid_post",), "target",
                      "float32")  # fmt: skip
    record(named, tmp_path, lambda: proved("llama"), protocol_sha256="0" * 64)
    volume = open_volume(kept(Acts(named, "toy", {}, 0), tmp_path))
    assert "note" in volume.coords and "dose" not in volume.coords
    # So is one of the name of what was found.
    assert "moved" in volume.data_vars and float(volume["moved"][1, 0]) == 1.0


def test_what_is_there_is_not_done_again_and_what_was_interrupted_goes_on(acts, tmp_path) -> None:
    done: list[range] = []

    def act(run: range) -> xr.Dataset:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        return effect(run)

    with pytest.raises(KeyboardInterrupt):
        kept(acts, tmp_path, act)
    assert not acts.path(tmp_path).exists()
    again: list[range] = []
    path = kept(acts, tmp_path, lambda run: again.append(run) or effect(run))
    assert (done, again) == (RUNS[:2], RUNS[2:])
    np.testing.assert_array_equal(open_volume(path)["moved"][:, 0], np.arange(36))
    assert kept(acts, tmp_path, lambda run: 1 / 0) == path
    assert not list(tmp_path.glob("*.partial"))


def test_other_settings_seeds_and_recordings_are_other_effects(acts, recording, tmp_path) -> None:
    others = [
        Acts(recording, "toy", {"size": 3}, 7),
        Acts(recording, "toy", {"size": 2}, 8),
        Acts(recording, "other", {"size": 2}, 7),
        Acts(Recording(recording.source, recording.stimuli, ("resid_pre",), "target", "float32"),
             "toy", {"size": 2}, 7),
    ]  # fmt: skip
    assert len({one.path(tmp_path) for one in (acts, *others)}) == 5
    path = kept(acts, tmp_path)
    path.rename(others[0].path(tmp_path))
    path.with_suffix(".sha256").rename(others[0].path(tmp_path).with_suffix(".sha256"))
    with pytest.raises(VolumeError, match="recorded with other settings"):
        kept(others[0], tmp_path)


def test_an_effect_that_is_not_finite_is_named_and_nothing_is_sealed(acts, tmp_path) -> None:
    def act(run: range) -> xr.Dataset:
        return effect(run).where(lambda made: made["stimulus"] != 12)

    with pytest.raises(VolumeError, match="moved is not finite at stimulus 12"):
        kept(acts, tmp_path, act)
    assert not acts.path(tmp_path).exists()


def test_a_live_subject_knows_its_texts_to_their_end_and_where_it_is_acted_on(
    recording, proved
) -> None:
    model, table = proved("llama"), recording.stimuli.table
    live = Live(model, recording)
    for row, (ids, target) in enumerate(zip(live.ids, live.targets, strict=True)):
        assert ids == model.tokenizer(table["text"][row])["input_ids"]
        said = model.tokenizer.decode([ids[one] for one in target]).strip()
        start, end = table["target_start"][row], table["target_end"][row]
        assert table["text"][row][start:end] in said
    assert live.acted == live.targets
    last = Recording(recording.source, recording.stimuli, recording.sites, "last", "float32")
    assert [list(one) for one in Live(model, last).acted] == [[len(ids) - 1] for ids in live.ids]
    short = table.iloc[:3].copy()
    short.loc[1, ["text", "target_start", "target_end"]] = ["a", 0, 1]
    alone = Recording(recording.source, StimulusSet("s", short), ("resid_post",), "target",
                      "float32")  # fmt: skip
    with pytest.raises(SiteError, match=r"stimulus 1 \('a'\) is one token"):
        _ = Live(model, alone).ids


def by_hand(model, ids, part, layer) -> tuple[float, float]:
    batch, following = model.batch([ids]), torch.tensor(ids[1:])
    with torch.no_grad():
        intact = model.forward(batch, head=True)[0]
        with model.intervene([Edit(SITES[part], "skip", layers=[layer])]):
            cut = model.forward(batch, head=True)[0]
    before, after = intact[-1].double().log_softmax(-1), cut[-1].double().log_softmax(-1)
    rise = cross_entropy(cut[:-1], following) - cross_entropy(intact[:-1], following)
    return float(torch.sum(before.exp() * (before - after))), float(rise)


@pytest.mark.having("attn_out_post", "mlp_out_post")
def test_every_text_layer_and_part_that_is_left_out_stands_at_its_place(family, proved) -> None:
    model = proved(family)
    ids = [model.prompt(length, seed=length) for length in (9, 5, 7)]
    found = lesioned(model, ids, PARTS)
    for text, layer, part in np.ndindex(3, model.layers, len(PARTS)):
        expected = by_hand(model, ids[text], PARTS[part], layer)
        values = [found[name][text, layer, part] for name in MEANINGS]
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-6)


def test_layers_in_a_row_and_single_heads_are_left_out(proved) -> None:
    model = proved("llama", num_hidden_layers=4)
    ids = [model.prompt(length, seed=length) for length in (9, 5)]
    found = lesioned(model, ids, ["block", "mlp"], span=2)["divergence"]
    heads = without_heads(model, ids)
    assert found.shape == (2, 3, 2) and heads.shape == (2, 4, 4)
    edits = {
        (layer, part): Edit(SITES[part], "skip", layers=[layer, layer + 1])
        for layer in range(3)
        for part in ("block", "mlp")
    }
    for text in range(2):
        batch = model.batch([ids[text]])
        with torch.no_grad():
            before = model.forward(batch, head=True)[0, -1].double().log_softmax(-1)

            def moved(edit, batch=batch, before=before) -> float:
                with model.intervene([edit]):
                    after = model.forward(batch, head=True)[0, -1].double().log_softmax(-1)
                return float(torch.sum(before.exp() * (before - after)))

            for (layer, part), edit in edits.items():
                place = ("block", "mlp").index(part)
                np.testing.assert_allclose(
                    found[text, layer, place], moved(edit), rtol=2e-3, atol=2e-6
                )
            for layer, head in np.ndindex(4, 4):
                edit = Edit("z", "ablate", layers=[layer], heads=[head])
                np.testing.assert_allclose(
                    heads[text, layer, head], moved(edit), rtol=2e-3, atol=2e-6
                )


@pytest.mark.having("attn_out_post", "mlp_out_post")
def test_what_parts_add_on_average_is_added_in_their_place(family, proved) -> None:
    model = proved(family)
    ids = [model.prompt(length, seed=length) for length in (9, 5, 7)]
    others = [model.prompt(length, seed=90 + length) for length in (6, 8)]
    instead = added(model, others)
    for kind in ADDED:
        heard = [model.activations(model.batch([text]), [kind]) for text in others]
        for layer in range(model.layers):
            tokens = torch.cat([one[Site(kind, layer)][0, 1:] for one in heard]).detach()
            np.testing.assert_allclose(instead[kind][layer], tokens.mean(0), rtol=1e-3, atol=1e-6)
    found = lesioned(model, ids, PARTS, span=2, instead=instead)["divergence"]
    for text, layer, part in np.ndindex(3, model.layers - 1, len(PARTS)):
        kinds = {"block": ADDED, "attention": ADDED[:1], "mlp": ADDED[1:]}[PARTS[part]]
        edits = [
            Edit(kind, "replace", layers=[at], start=1, value=instead[kind][at])
            for at in (layer, layer + 1) for kind in kinds
        ]  # fmt: skip
        batch = model.batch([ids[text]])
        with torch.no_grad():
            before = model.forward(batch, head=True)[0, -1].double().log_softmax(-1)
            with model.intervene(edits):
                after = model.forward(batch, head=True)[0, -1].double().log_softmax(-1)
        expected = float(torch.sum(before.exp() * (before - after)))
        np.testing.assert_allclose(found[text, layer, part], expected, rtol=2e-3, atol=2e-6)


def test_a_model_without_the_part_is_named(proved) -> None:
    model = proved("mamba")
    with pytest.raises(SiteError, match="no 'attn_out_post'"):
        lesioned(model, [model.prompt(5)], ["attention"])
    with pytest.raises(SiteError, match="no 'z'"):
        without_heads(model, [model.prompt(5)])
    assert float(lesioned(model, [model.prompt(5)], ["block"])["divergence"].min()) > 0
