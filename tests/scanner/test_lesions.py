"""A volume holds what each lesion did to each stimulus, recorded like anything else."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from scanner import Edit, Recording, SiteError, lesions, open_volume, record
from scanner.lesions import MEANINGS, SITES
from scanner.reading import read
from scanner.sites import PARTS
from scanner.volume import volume_digest
from stimuli import StimulusSet


@pytest.fixture(scope="module")
def stimuli(toy_stimuli) -> StimulusSet:
    """Those of the tests, each a few tokens longer: some are one for a toy tokenizer."""
    table = toy_stimuli.table
    return StimulusSet("mine", table.assign(text=table["text"] + " A cat and a dog."))


def plan(model, stimuli, *, parts=PARTS) -> Recording:
    sites = ("resid_post",)
    return Recording(model.source, stimuli, sites, "target", "float32", lesions=tuple(parts))


def recorded(recording, model, folder, advance=lambda stimuli: None):
    return record(recording, folder, lambda: model, protocol_sha256="0" * 64, advance=advance)


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
def test_every_stimulus_layer_and_part_stands_at_its_place(
    family, proved, stimuli, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(lesions, "STIMULI", 5)
    model = proved(family)
    seen = []
    recording = plan(model, stimuli)
    volume = open_volume(recorded(recording, model, tmp_path, seen.append))
    assert sum(seen) == recording.steps == 2 * len(stimuli)
    assert volume["part"].to_numpy().tolist() == list(PARTS)
    ids = read(model, stimuli, "last").ids  # to the end, not to the target
    for stimulus in (0, 17, 35):
        for layer in range(model.layers):
            for part in PARTS:
                at = volume.isel(stimulus=stimulus, layer=layer).sel(part=part)
                found = [float(at[name]) for name in MEANINGS]
                expected = by_hand(model, ids[stimulus], part, layer)
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-6)
    for name in MEANINGS:
        assert volume[name].dims == ("stimulus", "layer", "part")
        assert volume[name].dtype == np.float32
        assert volume[name].attrs["units"] == "nats"


def test_what_was_interrupted_goes_on_and_ends_as_the_same_bytes(
    proved, stimuli, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setattr(lesions, "STIMULI", 6)
    model = proved("llama")
    recording = plan(model, stimuli, parts=["mlp"])
    whole = recorded(recording, model, tmp_path / "whole")
    done = 0

    def interrupt(more: int) -> None:
        nonlocal done
        done += more
        if done >= len(stimuli) + 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(recording, model, tmp_path / "again", interrupt)
    calls = []
    sweeping = lesions.lesioned
    monkeypatch.setattr(
        lesions,
        "lesioned",
        lambda model, ids, parts: calls.append(len(ids)) or sweeping(model, ids, parts),
    )
    again = recorded(recording, model, tmp_path / "again")
    assert 0 < sum(calls) <= len(stimuli) - 6
    assert volume_digest(again) == volume_digest(whole)


def test_lesions_are_part_of_the_name_of_a_volume_and_none_leave_it_as_it_was(
    proved, stimuli
) -> None:
    model = proved("llama")
    without = plan(model, stimuli, parts=[])
    assert "lesions" not in without.content
    keys = {plan(model, stimuli, parts=parts).key for parts in ([], ["mlp"], ["block"])}
    assert len(keys) == 3


def test_a_model_without_the_part_is_named(proved, stimuli, tmp_path) -> None:
    model = proved("mamba")
    with pytest.raises(SiteError, match="no 'attn_out_post'"):
        recorded(plan(model, stimuli, parts=["attention"]), model, tmp_path)
    volume = open_volume(recorded(plan(model, stimuli, parts=["block"]), model, tmp_path))
    assert float(volume["lesion_divergence"].min()) > 0


def test_a_stimulus_of_one_token_is_named(tiny_model, stimuli, tmp_path) -> None:
    model = tiny_model("llama")
    table = stimuli.table.iloc[:3].copy()
    table.loc[1, ["text", "target_start", "target_end"]] = ["a", 0, 1]
    with pytest.raises(SiteError, match=r"stimulus 1 \('a'\) is one token.*leave `lesions` out"):
        recorded(plan(model, StimulusSet("mine", table)), model, tmp_path)
