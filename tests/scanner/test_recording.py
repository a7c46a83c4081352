"""A volume holds what the model computes for each prompt alone, whichever tokens are kept."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scanner import (
    Chat,
    Recording,
    SiteError,
    VolumeError,
    open_volume,
    passes,
    record,
    streaming,
)
from scanner.reading import read
from scanner.sites import OUTSIDE, PAIRED, sites_of
from stimuli import StimulusSet

TOKENS = ["target", "target_mean", "last", "mean", "all", (0, -1, 1)]
POOLED = ("target_mean", "mean")
TEXTS = [
    "We saw the cat today.", "We saw the dog.", "We saw the cat", "the cat", "The word was cat",
    "We saw the cat today.", "A cat, a cat and a hammer today.",
]  # fmt: skip
TOLERANCE = 1e-4


def stimuli_of(*texts):
    starts = [max(text.find("cat"), 0) for text in texts]
    return StimulusSet(
        "mine",
        pd.DataFrame(
            {
                "text": texts,
                "target_start": starts,
                "target_end": [start + 3 for start in starts],
                "item": [f"item{n % 3}" for n in range(len(texts))],
                "frame": "f",
                "category": "c",
            }
        ),
    )


@pytest.fixture
def recorded(tmp_path):
    """``recorded(model, stimuli, sites, tokens, **settings)``: the volume."""

    def make(model, stimuli, sites, tokens, **settings):
        plan = Recording(
            model.source, stimuli, tuple(sites), tokens, model.dtype, model.seed, **settings
        )
        path = record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
        return open_volume(path)

    return make


def alone(model, ids, kinds):
    """Of each kind, position x [layer x] what it has; attention as layer x head x query x key."""
    heard = model.activations(model.batch([ids]), kinds)
    found = {}
    for kind in kinds:
        layers = [heard[site][0].float().numpy() for site in sites_of(kind, model.layers)]
        if kind in PAIRED:
            found[kind] = np.stack(layers)
        else:
            found[kind] = layers[0] if kind in OUTSIDE else np.stack(layers, axis=1)
    return found


def by_hand(model, stimuli, tokens, kinds):
    """What a volume should hold, gathered prompt by prompt."""
    reading = read(model, stimuli, tokens)
    found = {kind: [] for kind in kinds}
    for ids, kept in zip(reading.ids, reading.kept, strict=True):
        heard = alone(model, ids, kinds)
        for kind in kinds:
            values = heard[kind]
            if kind in PAIRED:
                pairs = [values[:, :, q, k] for q in kept for k in range(q + 1)]
                found[kind] += pairs
            elif reading.pooled:
                found[kind].append(values[kept].astype(np.float64).mean(axis=0))
            elif reading.ragged:
                found[kind] += list(values[kept])
            elif isinstance(tokens, tuple):
                several = values[kept]
                found[kind].append(several if kind in OUTSIDE else several.swapaxes(0, 1))
            else:
                (value,) = values[kept]
                found[kind].append(value)
    return {kind: np.stack(values) for kind, values in found.items()}


def off(expected, found):
    """The largest relative error of a row, by magnitude."""
    assert expected.shape == found.shape
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (expected, found))
    size = np.linalg.norm(a, axis=1)
    return float((np.linalg.norm(a - b, axis=1) / np.where(size == 0, 1, size)).max())


def kinds_for(model, tokens):
    kinds = model.structure.kinds
    return [kind for kind in kinds if kind not in PAIRED or tokens not in POOLED]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("tokens", TOKENS, ids=str)
def test_every_kind_of_site_is_what_each_prompt_gives_alone(tiny_model, recorded, tokens, share):
    model, stimuli = tiny_model("llama", bos=True), stimuli_of(*TEXTS)
    kinds = kinds_for(model, tokens)
    volume = recorded(model, stimuli, kinds, tokens, share=share)
    assert set(volume.data_vars) == set(kinds)
    for kind, expected in by_hand(model, stimuli, tokens, kinds).items():
        assert off(expected, volume[kind].to_numpy()) < TOLERANCE, kind
        assert np.abs(expected).max() > 1e-3


def test_every_family_is_what_each_prompt_gives_alone_and_says_how_it_shared(
    family, tiny_model, recorded
):
    model, stimuli = tiny_model(family), stimuli_of(*TEXTS)
    kinds = kinds_for(model, "all")
    shared, single = (recorded(model, stimuli, kinds, "all", share=s) for s in (True, False))
    expected = by_hand(model, stimuli, "all", kinds)
    for kind in kinds:
        for volume in (shared, single):
            assert off(expected[kind], volume[kind].to_numpy()) < TOLERANCE, kind
    assert single.attrs["sharing"] == "not asked for"
    said = shared.attrs["sharing"]
    longest = max(len(ids) for ids in read(model, stimuli, "all").ids)
    if model.window is not None:
        assert longest > model.window == 8
        assert said == f"its longest text ({longest} tokens) is longer than the window of 8"
    elif family in ("bloom", "mamba"):
        assert said == model.proof.sharing != ""
    else:
        assert said == "texts that begin alike are computed together"
        assert shared.attrs["tokens_unique"] < shared.attrs["tokens_read"]
    if said != "texts that begin alike are computed together":
        for kind in kinds:  # it fell back to the same computation
            np.testing.assert_array_equal(shared[kind].to_numpy(), single[kind].to_numpy())


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss"])
def test_texts_within_the_window_share(family, tiny_model, recorded):
    model = tiny_model(family)
    stimuli = stimuli_of("the cat", "the dog", "the cat", "A cat")
    assert max(map(len, read(model, stimuli, "all").ids)) <= model.window
    volume = recorded(model, stimuli, ("resid_post",), "all")
    assert volume.attrs["sharing"] == "texts that begin alike are computed together"
    expected = by_hand(model, stimuli, "all", ("resid_post",))["resid_post"]
    assert off(expected, volume["resid_post"].to_numpy()) < TOLERANCE


@pytest.mark.parametrize("tokens", TOKENS, ids=str)
def test_the_embedded_subject_is_what_each_prompt_gives_alone(smollm2, recorded, tokens):
    stimuli = stimuli_of(*TEXTS)
    kinds = kinds_for(smollm2, tokens)
    volume = recorded(smollm2, stimuli, kinds, tokens)
    assert volume.attrs["sharing"] == "texts that begin alike are computed together"
    for kind, expected in by_hand(smollm2, stimuli, tokens, kinds).items():
        assert off(expected, volume[kind].to_numpy()) < TOLERANCE, kind


def test_one_batch_of_equal_lengths_is_the_model_to_the_last_bit(tiny_model, recorded):
    model = tiny_model("llama")
    stimuli = stimuli_of("xxxcat", "yyxcat", "zyxcat", "qqqcat")
    ids = read(model, stimuli, "all").ids
    assert len({len(one) for one in ids}) == 1
    kinds = [kind for kind in model.structure.kinds if kind not in PAIRED]
    volume = recorded(model, stimuli, kinds, "all", share=False)
    heard = model.activations(model.batch(ids), kinds)
    for kind in kinds:
        layers = [heard[site].flatten(0, 1).numpy() for site in sites_of(kind, model.layers)]
        expected = layers[0] if kind in OUTSIDE else np.stack(layers, axis=1)
        np.testing.assert_array_equal(volume[kind].to_numpy(), expected)


@pytest.mark.parametrize("tokens", ["target", "last", "all", (0, -1)], ids=str)
@pytest.mark.parametrize("share", [True, False])
def test_attention_of_a_stimulus_can_be_put_together_again(tiny_model, recorded, tokens, share):
    """Head x query x key from its pairs, against what transformers itself returns."""
    model, stimuli = tiny_model("llama", bos=True), stimuli_of(*TEXTS)
    volume = recorded(model, stimuli, ("attn_probs", "attn_scores"), tokens, share=share).load()
    reading = read(model, stimuli, tokens)
    seen = 0
    for one, (ids, kept) in enumerate(zip(reading.ids, reading.kept, strict=True)):
        with model.eager(), torch.inference_mode():
            out = model.network(torch.tensor([ids]), output_attentions=True)
        theirs = np.stack([layer[0].numpy() for layer in out.attentions])
        mine = np.zeros_like(theirs)
        pairs = volume.isel(pair=np.flatnonzero(volume["pair_stimulus"] == one))
        assert sorted(set(pairs["pair_query"].to_numpy().tolist())) == sorted(set(kept.tolist()))
        query, key = pairs["pair_query"].to_numpy(), pairs["pair_key"].to_numpy()
        mine[:, :, query, key] = np.moveaxis(pairs["attn_probs"].to_numpy(), 0, -1)
        np.testing.assert_allclose(mine[:, :, kept], theirs[:, :, kept], atol=1e-5)
        if tokens == "all":
            for position in kept:
                scores = pairs["attn_scores"].to_numpy()[query == position]
                weights = np.exp(scores - scores.max(0))
                np.testing.assert_allclose(
                    np.moveaxis(weights / weights.sum(0), 0, -1),
                    theirs[:, :, position, : position + 1],
                    atol=1e-5,
                )
        seen += len(query)
    assert seen == volume.sizes["pair"]


def test_attention_has_no_mean(tiny_model, recorded):
    for tokens in POOLED:
        with pytest.raises(SiteError, match=f"have no mean over tokens.*not `{tokens}`"):
            recorded(tiny_model("llama"), stimuli_of(*TEXTS), ("attn_probs",), tokens)


@pytest.mark.parametrize("tokens", ["target", "mean", "all", (0, -1)], ids=str)
@pytest.mark.parametrize("top", [1, 5, 10**6])
def test_the_highest_logits_are_those_of_all_with_their_tokens(tiny_model, recorded, tokens, top):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    whole = recorded(model, stimuli, ("logits",), tokens)["logits"].to_numpy()
    volume = recorded(model, stimuli, ("logits",), tokens, top=top)
    values, chosen = volume["logits"].to_numpy(), volume["logits_token"].to_numpy()
    assert volume["logits"].dims[-1] == volume["logits_token"].dims[-1] == "rank"
    assert values.shape[-1] == min(top, model.vocabulary)
    assert chosen.dtype == np.int32
    np.testing.assert_array_equal(np.take_along_axis(whole, chosen, -1), values)
    np.testing.assert_array_equal(values, -np.sort(-whole, axis=-1)[..., :top])


def test_rows_of_all_tokens_say_which_token_each_is(tiny_model, recorded):
    model, stimuli = tiny_model("llama", bos=True), stimuli_of(*TEXTS)
    volume = recorded(model, stimuli, ("resid_post", "attn_probs"), "all").load()
    row = pair = 0
    for one, text in enumerate(TEXTS):
        for position, token in enumerate(model.tokenizer(text)["input_ids"]):
            at = volume.isel(token=row)
            assert int(at["token_stimulus"]) == one
            assert int(at["token_position"]) == position
            assert int(at["token_id"]) == token
            for key in range(position + 1):
                at = volume.isel(pair=pair)
                where = (one, position, key)
                assert tuple(int(at[f"pair_{n}"]) for n in ("stimulus", "query", "key")) == where
                pair += 1
            row += 1
    assert (row, pair) == (volume.sizes["token"], volume.sizes["pair"])  # no room for padding


def test_positions_are_a_dimension_with_the_numbers_that_were_asked_for(tiny_model, recorded):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    volume = recorded(model, stimuli, ("resid_post", "logits"), (-1, 0)).load()
    assert volume["resid_post"].dims == ("stimulus", "layer", "position", "unit")
    assert volume["logits"].dims == ("stimulus", "position", "vocabulary")
    assert volume["position"].to_numpy().tolist() == [-1, 0]
    last = recorded(model, stimuli, ("resid_post",), "last")["resid_post"]
    found = volume["resid_post"].sel(position=-1).to_numpy()
    assert off(last.to_numpy(), found) < TOLERANCE


@pytest.mark.parametrize("share", [True, False])
def test_half_precision_on_disk_is_the_rounding_of_single(tiny_model, recorded, share):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    single = recorded(model, stimuli, ("resid_post",), "all", share=share)["resid_post"]
    half = recorded(model, stimuli, ("resid_post",), "all", share=share, store="float16")
    assert half["resid_post"].dtype == np.float16
    assert (half.attrs["dtype"], half.attrs["store"]) == ("float32", "float16")
    np.testing.assert_array_equal(half["resid_post"], single.to_numpy().astype(np.float16))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_computed_in_half_precision_is_stored_without_another_rounding(
    tiny_model, recorded, dtype
):
    model, stimuli = tiny_model("llama", dtype=dtype), stimuli_of(*TEXTS)
    volume = recorded(model, stimuli, ("resid_post",), "last", share=False)
    assert volume["resid_post"].dtype == np.float32
    values = torch.from_numpy(volume["resid_post"].to_numpy())
    assert torch.equal(values, values.to(getattr(torch, dtype)).float())
    expected = by_hand(model, stimuli, "last", ("resid_post",))["resid_post"]
    assert off(expected, values.numpy()) < 5e-2


def test_a_cast_that_overflows_names_stimulus_site_and_layer(tiny_model, tmp_path):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    model.proof  # noqa: B018  # before the model is changed
    model.base.layers[1].register_forward_hook(lambda _m, _a, out: out * 1e7)
    plan = Recording(
        model.source, stimuli, ("resid_pre", "resid_post"), "target", "float32", store="float16"
    )
    with pytest.raises(
        VolumeError,
        match=rf"{model.name}: resid_post\.1 of stimulus \d \('.*'\) reaches .*, more than float16",
    ):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert not plan.path(tmp_path).exists()
    assert list(tmp_path.glob("*.sha256")) == []


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("tokens", ["last", "mean", "all"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named_by_the_stimulus_that_it_comes_from(
    tiny_model, tmp_path, value, tokens, share
):
    """Also where others share a row, or a mean, with it: they turn into NaN too."""
    model = tiny_model("llama")
    model.proof  # noqa: B018  # before the model is changed
    stimuli = stimuli_of("We saw the cat", "We saw the cat@", "We saw the cat today.", "the cat")
    ids = read(model, stimuli, "all").ids
    (rare,) = set(ids[1]) - {token for one in (0, 2, 3) for token in ids[one]}
    with torch.no_grad():
        model.base.embed_tokens.weight[rare] = value
    plan = Recording(
        model.source, stimuli, ("resid_post",), tokens, "float32", share=share
    )  # fmt: skip
    with pytest.raises(
        VolumeError,
        match=rf"^{model.name}: resid_post\.0 of stimulus 1 \('We saw the cat@'\) is not finite",
    ):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert not plan.path(tmp_path).exists()
    assert list(tmp_path.glob("*.sha256")) == []


def test_a_twin_is_recorded_from_its_own_weights_and_says_so(tiny_model, recorded):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    trained = recorded(model, stimuli, ("resid_post",), "target")
    for seed in (1, 2):  # the toy itself is the fresh weights of seed 0
        twin = model.twin(seed)
        volume = recorded(twin, stimuli, ("resid_post",), "target")
        expected = by_hand(twin, stimuli, "target", ("resid_post",))["resid_post"]
        assert off(expected, volume["resid_post"].to_numpy()) < TOLERANCE
        assert off(trained["resid_post"].to_numpy(), volume["resid_post"].to_numpy()) > 0.1
        assert volume.attrs["twin_seed"] == seed
        assert volume.attrs["weights"] == "fresh"
        assert volume.attrs["subject"] == f"{model.source.name}.twin{seed}"


def test_a_conversation_is_recorded_as_it_is_read_and_belongs_to_the_key(tiny_model, recorded):
    model, stimuli = tiny_model("llama", bos=True), stimuli_of(*TEXTS)
    model.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    volumes = {
        chat: recorded(model, stimuli, ("resid_post",), "target", chat=chat)
        for chat in (None, Chat(), Chat("Be kind."))
    }
    said = [volume.attrs["chat"] for volume in volumes.values()]
    assert said == ["none", '{"system": null}', '{"system": "Be kind."}']
    assert len({volume.attrs["content"] for volume in volumes.values()}) == 3
    reading = read(model, stimuli, "target", chat=Chat("Be kind."))
    for one, (ids, kept) in enumerate(zip(reading.ids, reading.kept, strict=True)):
        expected = alone(model, ids, ("resid_post",))["resid_post"][kept[0]]
        found = volumes[Chat("Be kind.")]["resid_post"][one].to_numpy()
        assert off(expected, found) < TOLERANCE


def test_the_key_changes_with_all_that_the_numbers_follow_from_and_with_nothing_else(tiny_source):
    stimuli = stimuli_of(*TEXTS)
    plan = Recording(tiny_source("llama"), stimuli, ("q", "k"), "target", "float32")
    others = [
        replace(plan, source=tiny_source("llama", seed=1)),
        replace(plan, source=replace(plan.source, config_sha256="other")),
        replace(plan, source=replace(plan.source, tokenizer_sha256="other")),
        replace(plan, stimuli=stimuli_of(*TEXTS[:-1])),
        replace(plan, sites=("q",)),
        replace(plan, tokens="last"),
        replace(plan, tokens=(0, -1)),
        replace(plan, tokens=(-1, 0)),
        replace(plan, dtype="bfloat16"),
        replace(plan, seed=0),
        replace(plan, seed=1),
        replace(plan, store="float16"),
        replace(plan, share=False),
        replace(plan, top=5),
        replace(plan, chat=Chat()),
        replace(plan, chat=Chat("Be kind.")),
        replace(plan, truncate=True),
    ]
    assert len({one.key for one in (plan, *others)}) == len(others) + 1
    same = replace(plan, sites=("k", "q"), source=replace(plan.source, folder=plan.source.folder))
    assert same.key == plan.key


def limit(model, tokens: int, *, error: Exception):
    """Let the middle block find no memory for more than so many tokens; the shapes it saw."""
    assert model.proof and model.surprisal  # before: with larger batches
    shapes = []

    def refuse(_module, args, kwargs):
        stream = args[0] if args else kwargs["hidden_states"]
        shapes.append(tuple(stream.shape[:2]))
        if stream.shape[0] * stream.shape[1] > tokens:
            raise error

    model.base.layers[1].register_forward_pre_hook(refuse, with_kwargs=True)
    return shapes


NO_MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
def test_without_memory_for_a_batch_it_is_halved_and_the_numbers_are_the_same(
    tiny_model, recorded, tmp_path, toy_stimuli, error, share
):
    sites = ("resid_post", "attn_probs")
    volume = recorded(tiny_model("llama"), toy_stimuli, sites, "all", share=share).load()
    model = tiny_model("llama")
    shapes = limit(model, 40, error=error)
    told = []
    plan = Recording(model.source, toy_stimuli, sites, "all", "float32", share=share)
    path = record(
        plan, tmp_path / "again", lambda: model, protocol_sha256="0" * 64, advance=told.append
    )
    again = open_volume(path)
    assert again.attrs["sharing"] == volume.attrs["sharing"]
    for site in sites:
        assert off(volume[site].to_numpy(), again[site].to_numpy()) < TOLERANCE
    for coordinate in volume.coords:
        assert (again[coordinate].to_numpy() == volume[coordinate].to_numpy()).all()
    assert max(rows * columns for rows, columns in shapes) > 40
    assert sum(rows * columns <= 40 for rows, columns in shapes) > 4
    assert sum(told) == len(toy_stimuli)


def test_without_memory_for_sharing_it_is_done_without_and_says_so(tiny_model, recorded):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    longest = max(len(ids) for ids in read(model, stimuli, "all").ids)
    limit(model, longest, error=NO_MEMORY["CUDA"])
    volume = recorded(model, stimuli, ("resid_post",), "all")
    assert volume.attrs["sharing"] == (
        f"its longest text ({longest} tokens) finds no memory when it shares tokens"
    )
    expected = by_hand(model, stimuli, "all", ("resid_post",))["resid_post"]
    assert off(expected, volume["resid_post"].to_numpy()) < TOLERANCE


@pytest.mark.parametrize("share", [True, False])
def test_without_memory_for_one_stimulus_the_error_names_it(tiny_model, tmp_path, share):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    longest = max(len(ids) for ids in read(model, stimuli, "all").ids)
    limit(model, longest - 1, error=NO_MEMORY["CUDA"])
    plan = Recording(model.source, stimuli, ("resid_post",), "all", "float32", share=share)
    with pytest.raises(
        VolumeError,
        match=rf"{model.name}: cpu has too little memory for stimulus 6 alone \({longest} tokens\)",
    ):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)


def test_an_error_of_the_model_is_told_as_it_is_and_what_was_done_is_kept(
    tiny_model, tmp_path, toy_stimuli, monkeypatch
):
    monkeypatch.setattr(passes, "batch_tokens", lambda _device: 40)
    monkeypatch.setattr("scanner.batches.ROW_TOKENS", 20)
    model = tiny_model("llama")
    limit(model, 10**9, error=RuntimeError())
    calls = iter(range(100))

    def fail(_module, _args):
        if next(calls) == 4:
            raise RuntimeError("shapes cannot be multiplied")

    model.base.layers[2].register_forward_pre_hook(fail)
    plan = Recording(
        model.source, toy_stimuli, ("resid_post",), "target", "float32", share=False
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    journal = plan.path(tmp_path).with_suffix(".zarr.partial") / "journal"
    assert journal.read_text() == "0\n1\n2\n3\n"


def test_permission_that_is_lost_is_an_error_of_the_system_and_with_it_the_recording_goes_on(
    tiny_model, tmp_path, toy_stimuli, monkeypatch
):
    """Root may write everywhere, so the system call itself refuses here."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setattr(passes, "batch_tokens", lambda _device: 40)
    monkeypatch.setattr("scanner.batches.ROW_TOKENS", 20)
    monkeypatch.setattr(streaming, "COMMIT_SECONDS", 0.0)
    model = tiny_model("llama")
    plan = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    whole = record(plan, tmp_path / "whole", lambda: model, protocol_sha256="0" * 64)

    import os

    really, partial = os.pwrite, plan.path(tmp_path / "lost").with_suffix(".zarr.partial")

    def refuse(file, content, offset):
        if (partial / "journal").is_file():  # a batch is there
            raise PermissionError(13, "Permission denied")
        return really(file, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(PermissionError):
            record(plan, tmp_path / "lost", lambda: model, protocol_sha256="0" * 64)
    computed = []
    model.base.layers[0].register_forward_pre_hook(lambda _m, _a: computed.append(1))
    done = len((partial / "journal").read_text().split())
    again = record(plan, tmp_path / "lost", lambda: model, protocol_sha256="0" * 64)
    batches = len(
        passes.Passes(plan, model, read(model, toy_stimuli, "target"), share=True).batches
    )
    assert 0 < done < batches
    assert len(computed) == batches - done
    assert again.with_suffix(".sha256").read_text() == whole.with_suffix(".sha256").read_text()


def test_labels_and_provenance_are_in_plain_xarray(tiny_model, recorded):
    model, stimuli = tiny_model("llama"), stimuli_of(*TEXTS)
    volume = recorded(model, stimuli, ("resid_post", "attn_probs", "logits"), "all", top=3)
    path = volume.encoding["source"]
    plain = xr.open_zarr(path, consolidated=False)
    xr.testing.assert_identical(plain.load(), volume.load())
    assert volume["text"].to_numpy().tolist() == TEXTS
    attributes = volume.attrs
    ids = read(model, stimuli, "all").ids
    assert attributes["tokens_read"] == sum(map(len, ids))
    assert attributes["weights_sha256"] == model.weights_sha256
    assert json.loads(attributes["content"])["tokens"] == "all"
    assert json.loads(attributes["identities"]).keys() == model.proof.deviations.keys()
    assert volume["resid_post"].attrs["module"] == "model.layers.{layer}"
    assert volume["attn_probs"].attrs["units"] == "probability"
    assert "highest" in volume["logits_token"].attrs["meaning"]


def test_a_site_that_the_model_lacks_is_refused_before_anything_is_written(tiny_model, tmp_path):
    model = tiny_model("llama")
    plan = Recording(model.source, stimuli_of(*TEXTS), ("router",), "target", "float32")
    with pytest.raises(SiteError, match="'router'"):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
