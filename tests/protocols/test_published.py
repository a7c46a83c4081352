"""Published tables are as they were printed: what they say of themselves adds up."""

import pytest

from protocols.report.published import _OURS, TABLES


def test_every_row_has_a_cell_for_each_column() -> None:
    for name, table in TABLES.items():
        widths = {len(cells) for cells in table.get("rows", {}).values()}
        assert table["columns"] == "categories" or widths <= {len(table["columns"])}, name
        assert bool(widths) != ("says" in table), name  # numbers, or what a figure shows
    assert set(_OURS) == set(TABLES)


@pytest.mark.parametrize(("name", "rounding"), [("accuracy", 0.011), ("overlap", 0.011)])
def test_averages_are_those_of_their_rows(name, rounding) -> None:
    for model, (average, *each) in TABLES[name]["rows"].items():
        assert average == pytest.approx(sum(each) / len(each), abs=rounding), model


def test_shares_are_of_squares_in_all_but_three_cells() -> None:
    """E-parallel over both, but where a power of ten is missing or too much in table 6."""
    wrong = [
        (model, column)
        for model, shares in TABLES["shares"]["rows"].items()
        for column, share, inside, outside in zip(
            TABLES["shares"]["columns"], shares, TABLES["inside"]["rows"][model],
            TABLES["outside"]["rows"][model], strict=True,
        )
        if abs(share - inside / (inside + outside)) > 0.011
    ]  # fmt: skip
    assert wrong == [
        ("Qwen2.5-Coder-Instruct", "gate"), ("Qwen2.5-Math-Instruct", "gate"),
        ("Qwen2.5-Math-Instruct", "up"),
    ]  # fmt: skip


def test_shares_of_gates_of_medical_models_are_what_noise_has() -> None:
    rows, gate = TABLES["shares"]["rows"], TABLES["shares"]["columns"].index("gate")
    assert rows["Llama3-Aloe-8B-Alpha"][gate] < 4096 / 14336
    assert rows["Qwen2.5-Aloe-Beta-7B"][gate] < 3584 / 18944 + 0.01
    assert rows["Qwen2.5-Coder-Instruct"][gate] > 3584 / 18944 + 0.2  # of others it is not
