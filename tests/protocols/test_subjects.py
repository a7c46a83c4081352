"""`scan subjects`: the anatomy of a model, for people."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.cli import main
from scanner.sites import KINDS


@pytest.fixture
def shown(capfd, monkeypatch, tiny_source) -> Callable[..., list[str]]:
    """``shown(family, width)``: the lines that are printed on a terminal of that width."""

    def show(family: str = "llama", width: int = 80) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit, match="0"):
            main(["subjects", str(tiny_source(family).folder)])
        return [line.rstrip() for line in capfd.readouterr().out.splitlines()]

    return show


def rows(lines: list[str]) -> dict[str, list[str]]:
    """The table: site, shape, bytes and place."""
    first = next(place for place, line in enumerate(lines) if line.startswith("site "))
    split = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[first:]]
    return {cells[0]: cells[1:] for cells in split[1 : split.index([])]}


def test_a_subject_is_shown_with_its_sites_their_shapes_costs_and_places(shown) -> None:
    lines = shown("llama")
    assert "LlamaForCausalLM, 53,472 weights (as published), on cpu in float32" in lines[0]
    assert lines[1] == "3 layers of 32 units, context of 64 tokens"
    assert lines[2] == "blocks: model.layers.N; modules inside are named from there"
    found = rows(lines)
    assert list(found) == [kind for kind in KINDS if kind != "router"]
    assert found["embeddings"] == ["32 units", "128", "model.embed_tokens (output)"]
    assert found["resid_pre"] == ["32 units", "384", "the block (input)"]
    assert found["k"] == ["2 kv heads x 8 units", "192", "self_attn (operation)"]
    assert found["attn_probs"] == ["4 heads a key", "48", "self_attn (operation)"]
    assert found["resid_mid"] == ["32 units", "384", "the block + self_attn (sum)"]
    assert found["mlp_act"] == ["64 neurons", "768", "mlp.down_proj (input)"]
    assert found["logits"] == ["400 tokens", "1,600", "the network (output)"]
    assert lines[-1] == "texts that begin alike are computed together"


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mamba"])
def test_nothing_is_wider_than_the_terminal_and_no_row_is_broken(shown, family) -> None:
    narrow, wide = shown(family, 80), shown(family, 160)
    assert max(map(len, narrow)) <= 80
    assert rows(narrow) == rows(wide)


def test_what_a_family_lacks_is_said_once_with_the_reason(shown) -> None:
    text = " ".join(shown("mamba"))
    assert "no mlp_pre, mlp_act, mlp_out, mlp_out_post: its blocks have no attention" in text
    assert text.count("no attention was heard in its blocks") == 1
    assert "texts that begin alike are computed apart: " in text
    assert "no resid_mid: attention and MLP of a block read the same" in " ".join(shown("gpt_neox"))
    assert "the stream begins as embeddings + transformer.wpe" in shown("gpt2")


def test_a_name_that_leads_to_no_model_is_one_line(tmp_path: Path, capfd, tiny_source) -> None:
    bare, strange = tmp_path / "bare", tmp_path / "strange"
    bare.mkdir()
    shutil.copy(tiny_source("llama").folder / "config.json", bare)
    shutil.copytree(tiny_source("llama").folder, strange)
    config = strange / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"lamma"'))
    for name, message in (
        ("smollm2-135-instruct", "unknown subject 'smollm2-135-instruct'; did you mean 'smollm2-"),
        (str(tmp_path / "nowhere"), "Otherwise give a folder that exists or a hub id"),
        (str(bare), "subject 'bare': no *.safetensors in"),
        (str(strange), "subject 'strange': The checkpoint you are trying to load has model type"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(["subjects", name])
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line
