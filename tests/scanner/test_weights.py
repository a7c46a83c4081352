"""Matrices are found by what they compute, read one at a time, and changes are what was added."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scanner import Model
from scanner.components import MATRICES, components
from scanner.weights import Change, Folder, InMemory, LowRank, WeightsError, by_component, changes

# Which of the seven a family cannot have: no gate, or experts in the place of an MLP.
UNGATED = {"gpt2", "gpt_neox", "falcon", "bloom", "opt"}
EXPERTS = {"mixtral", "qwen2_moe", "gpt_oss"}


def expected(family: str) -> set[str]:
    if family == "mamba":
        return set()
    mlp = set() if family in EXPERTS else {"up", "down"}
    return {"q", "k", "v", "o", *mlp, *({"gate"} if mlp and family not in UNGATED else ())}


def test_every_family_has_the_matrices_that_it_has(family, tiny_source) -> None:
    weights = Folder.open(tiny_source(family).folder)
    found = by_component(weights)
    assert {one for one in MATRICES if one in found} == expected(family)
    for one in expected(family):
        assert [piece.layer for piece in found[one]] == [0, 1, 2]
    assert len({piece.name for piece in weights.pieces}) == len(weights.pieces)
    # Every number of every tensor is in one piece.
    sizes = sum(weights.matrix(piece).size for piece in weights.pieces)
    assert sizes == sum(np.prod(one.shape) for one in weights.stored.values())


@pytest.mark.having("q", "value")
def test_rows_are_those_that_reach_queries_keys_and_values(family, tiny_model, tiny_source) -> None:
    """Rows that are taken away are gone from what the attention hears, and nothing else is."""
    model = tiny_model(family)
    weights = Folder.open(tiny_source(family).folder)
    batch = model.batch([(5, 9, 17, 33, 8)])
    kinds = {"q": "q", "k": "k", "v": "value"}

    def heard(kind: str) -> torch.Tensor:
        ((_, found),) = (
            one for one in model.activations(batch, [kind]).items() if one[0].layer == 1
        )
        return found

    before = {name: heard(kind) for name, kind in kinds.items()}
    for name in kinds:
        (piece,) = (one for one in by_component(weights)[name] if one.layer == 1)
        parameter = model.network.get_parameter(piece.tensor)
        kept = parameter.detach().clone()
        rows = slice(None) if piece.rows is None else list(piece.rows)
        with torch.no_grad():
            (parameter.T if piece.flipped else parameter)[rows] = 0
        moved = {one: not torch.equal(heard(kind), before[one]) for one, kind in kinds.items()}
        assert moved == {one: one == name for one in kinds}
        with torch.no_grad():
            parameter.copy_(kept)


def test_a_gate_and_what_goes_up_stand_in_one_tensor_in_their_order(
    tiny_model, tiny_source
) -> None:
    model = tiny_model("phi3")
    found = by_component(Folder.open(tiny_source("phi3").folder))
    both = model.base.layers[2].mlp.gate_up_proj.weight.detach().numpy()
    weights = Folder.open(tiny_source("phi3").folder)
    assert np.array_equal(weights.matrix(found["gate"][2]), both[:64])
    assert np.array_equal(weights.matrix(found["up"][2]), both[64:])


def test_matrices_are_output_by_input(tiny_source) -> None:
    weights = Folder.open(tiny_source("gpt2").folder)
    (up, *_), (down, *_) = (by_component(weights)[name] for name in ("up", "down"))
    assert up.flipped and weights.matrix(up).shape == (128, 32)
    assert weights.matrix(down).shape == (32, 128)
    twin = Model.load(tiny_source("gpt2"), device="cpu").twin(3)
    fresh = InMemory.of(twin, weights)
    assert fresh.matrix(up).shape == (128, 32)
    assert not np.allclose(fresh.matrix(up), weights.matrix(up))


def tuned(source, folder: Path, change, *, dtype=None) -> Path:
    """The folder of a model with other weights."""
    folder.mkdir(parents=True)
    for path in source.folder.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(source.folder / "model.safetensors")
    weights = {name: change(name, one) for name, one in weights.items()}
    weights = {name: one if dtype is None else one.to(dtype) for name, one in weights.items()}
    save_file({name: one.contiguous() for name, one in weights.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    return folder


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_change_is_what_was_added(tiny_source, tmp_path, dtype) -> None:
    source = tiny_source("gpt_neox")
    added = {}

    def change(name: str, one: torch.Tensor) -> torch.Tensor:
        added[name] = torch.full_like(one, 0.5)
        return one + added[name]

    folder = tuned(source, tmp_path / "tuned", change, dtype=dtype)
    found = changes(Folder.open(source.folder), folder)
    assert isinstance(found, Change) and not found.left_out
    assert len(found.pieces) == len(found.base.pieces)
    for piece in found.pieces:
        matrix = found.matrix(piece)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, 0.5, atol=1e-6 if dtype is None else 1e-2)
    # theta_tuned - T is theta_base, whatever T is.
    for piece in found.pieces:
        back = found.tuned.matrix(piece) - found.matrix(piece)
        np.testing.assert_allclose(back, found.base.matrix(piece), atol=1e-6)


def test_what_two_models_do_not_share_is_left_out_and_said(tiny_source, tmp_path) -> None:
    source = tiny_source("llama", tie_word_embeddings=True)

    def change(name: str, one: torch.Tensor) -> torch.Tensor:
        return torch.cat([one, one[:8]]) if "embed_tokens" in name else one + 1

    folder = tuned(source, tmp_path / "resized", change)
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["extra.weight"] = torch.ones(2, 2)
    weights["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 32, dtype=torch.uint8)
    save_file(weights, path, {"format": "pt"})
    found = changes(Folder.open(source.folder), folder)
    assert found.left_out == {
        "lm_head.weight of the tuned": "it is model.embed_tokens.weight once more",
        "extra.weight of the tuned": "it is no tensor of this architecture",
        "model.layers.0.mlp.up_proj.weight of the tuned": "it is kept as U8, and no number by itself",  # noqa: E501
        "model.layers.0.mlp.up_proj.weight": "the tuned model does not have it",
        "model.layers.1.mlp.up_proj.weight": "the tuned model does not have it",
        "model.embed_tokens.weight": "it was resized, from (400, 32) to (408, 32)",
    }
    assert {one.component for one in found.pieces} == {*MATRICES, "norm"}
    other = tiny_source("llama", hidden_size=64)
    with pytest.raises(WeightsError, match="share no tensor .*it was resized, from"):
        changes(Folder.open(source.folder), other.folder)


def test_names_with_and_without_the_prefix_of_the_network_are_the_same(
    tiny_source, tmp_path
) -> None:
    source = tiny_source("gpt2")
    folder = tuned(source, tmp_path / "bare", lambda _, one: one + 1)
    path = folder / "model.safetensors"
    weights = {name.removeprefix("transformer."): one for name, one in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    found = changes(Folder.open(source.folder), folder)
    assert not found.left_out
    assert all(np.allclose(found.matrix(piece), 1) for piece in found.pieces)


def adapter(folder: Path, factors: dict[str, torch.Tensor], **config: object) -> Path:
    """A folder as peft saves it."""
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({f"base_model.model.{name}": one.contiguous() for name, one in factors.items()},
              folder / "adapter_model.safetensors")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {"q_proj": 16}}, 4.0)],
)
def test_an_adapter_is_read_as_the_product_of_its_factors(
    tiny_source, tmp_path, config, scale
) -> None:  # noqa: E501
    source, generator = tiny_source("llama"), torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 32, generator=generator), torch.randn(32, 4, generator=generator)
    name = "model.layers.1.self_attn.q_proj"
    folder = adapter(
        tmp_path / "lora",
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b, "score.weight": a.clone()},
        **config,
    )
    found = changes(Folder.open(source.folder), folder)
    assert isinstance(found, LowRank)
    (piece,) = found.pieces
    assert (piece.component, piece.layer) == ("q", 1)
    assert list(found.left_out) == ["base_model.model.score.weight"]
    np.testing.assert_allclose(found.matrix(piece), scale * (b @ a).numpy(), rtol=1e-5, atol=1e-5)
    first, second = found.thin(piece)
    assert first.shape == (32, 4) and second.shape == (4, 32)


def test_an_adapter_of_a_fused_tensor_changes_rows_of_each_of_its_parts(
    tiny_source, tmp_path
) -> None:  # noqa: E501
    source, generator = tiny_source("gpt2"), torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 32, generator=generator), torch.randn(96, 4, generator=generator)
    name = "transformer.h.0.attn.c_attn"
    factors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    found = changes(
        Folder.open(source.folder), adapter(tmp_path / "lora", factors, fan_in_fan_out=True)
    )
    product = 2 * (b @ a).numpy()
    assert [one.component for one in found.pieces] == ["q", "k", "v"]
    for place, piece in enumerate(found.pieces):
        rows = product[32 * place : 32 * place + 32]
        np.testing.assert_allclose(found.matrix(piece), rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [{"peft_type": "IA3"}, {"use_dora": True}])
def test_adapters_of_other_kinds_are_refused(tiny_source, tmp_path, config) -> None:
    folder = adapter(tmp_path / "other", {}, **config)
    with pytest.raises(WeightsError, match="not the product of two matrices; merge it"):
        changes(Folder.open(tiny_source("llama").folder), folder)


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no \\*.safetensors"):
        Folder.open(tmp_path)


def test_components_need_no_weights(tiny_source, tmp_path) -> None:
    (tmp_path / "config.json").write_bytes(
        (tiny_source("qwen2").folder / "config.json").read_bytes()
    )
    found = components(tmp_path)
    (told,) = found.inside["self_attn.q_proj.weight"]
    assert told.component == "q" and found.inside["self_attn.q_proj.bias"][0].component == "bias"
