"""Published tables are as they were printed: what they say of themselves adds up."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from protocols.report.published import _OURS, NONE, TABLES, Measured, beside
from protocols.schema import load_study


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


def one_table(study, found: list[Measured]):
    (table,) = beside(study, found)
    return table


def test_what_is_lost_is_of_what_was_right_and_random_neurons_stand_behind() -> None:
    study = load_study(Path("protocols/domain_places.yaml"))
    measures = xr.Dataset(
        {
            "accuracy": 0.8,
            "accuracy_by": (("layer", "chosen"), [[0.6, 0.5, 0.4, 0.7]]),
            "relative_drop": (("layer", "arm"), [[0.25, 0.5, 0.01, 0.125]]),
        },
        coords={
            "chosen": [*(f"activation, {share} %" for share in (1, 5, 100)), "magnitude, 1 %"],
            "arm": ["own", "known", "equal", "matched"],
        },
    )
    table = one_table(study, [Measured("silenced", "neurons", ["medical"], measures)])
    assert table.ours == [("medical", ["25.0; 1.0 and 12.5", "37.5", "50.0"])]
    assert len(table.theirs) == 1


def test_a_figure_without_numbers_is_told_in_words_beside_ours() -> None:
    study = load_study(Path("protocols/domain_places.yaml"))
    measures = xr.Dataset(
        {
            "map": (("subject", "patch", "block"), np.zeros((2, 1, 1))),
            "alike": ("layer", [0.8]),
            "ceiling": 0.9,
            "alike_of": (("layer", "arm"), [[0.8, 0.7]]),
        },
        coords={"arm": ["own", "other"]},
    )
    table = one_table(study, [Measured("places", "circuits", ["medical"], measures)])
    assert "Similar regions" in table.says and table.theirs == []
    assert table.ours == [("medical", ["0.80", "0.90", "0.70", NONE, NONE, NONE])]


def test_a_sum_is_told_over_each_of_its_specialists_by_domain() -> None:
    study = load_study(Path("protocols/domain_answers.yaml"))
    names = ["medical", "maths", "medical-maths", "no-medical"]
    categories = ["drugs", "stages", "stories", "sums"]
    shares = [[0.4, 0.6, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8], [0.5, 0.5, 0.4, 0.4], [0.0] * 4]
    scores = xr.DataArray(
        shares, dims=("subject", "category"), coords={"subject": names, "category": categories}
    )
    found = Measured("standing", "standings", names, scores.to_dataset(name="standing_by_category"))
    assert one_table(study, [found]).ours == [
        ("medical-maths over medical", ["1.00", "4.00"]),
        ("medical-maths over maths", ["2.50", "0.50"]),
    ]
