"""The README's tables: rows computed by hand, and the check that they are up to date."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from experiments import picture, results
from experiments import records as rows_of
from experiments.records import Measure, Record
from tests.experiments.records import sample_report

ROOT = Path(__file__).parent.parent.parent


def record(config: str, seed: int, accuracy: float, ratio: float = 100.0, **stage: Any) -> Record:
    return Record(
        config,
        seed,
        {
            "seed": seed,
            "dataset": "mnist",
            "config": {"model": "lenet5"},
            "dense": {"weights": 1000, "test_accuracy": 0.99},
            "stages": [
                {"name": "stage-1", "solver": "admm", "weights": 10, "ratio": ratio, "test_accuracy": accuracy, **stage}
            ],
            "quantized": [],
        },
    )


def save(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(exist_ok=True)
    for r in records:
        (folder / f"{r.config}-seed{r.seed}.json").write_text(json.dumps(r.report))
    return folder


def test_means_and_deviations_are_over_seeds() -> None:
    rows = rows_of.stage_rows([record("a", 1, 0.98), record("a", 0, 0.96, published="85x"), record("a", 2, 0.97)])
    assert [(row.config, row.stage) for row in rows] == [("a", "dense"), ("a", "stage-1")]
    assert rows[0].accuracy.mean == pytest.approx(0.99)
    assert rows[0].ratio == 1.0
    assert rows[1].accuracy.mean == pytest.approx(0.97)
    assert rows[1].accuracy.std == pytest.approx(0.01)
    assert rows[1].accuracy.n == 3
    assert rows[1].published == "85x"
    assert rows[1].control is None


def test_one_seed_has_no_deviation() -> None:
    assert rows_of.measure([0.97]) == Measure(0.97, None, 1)
    assert "| 97.00 % |" in results.to_markdown(rows_of.stage_rows([record("a", 0, 0.97)]))


@pytest.mark.parametrize(("control", "wins"), [(0.98, True), (0.97, False), (0.96, False)])
def test_the_control_stands_beside_every_row_and_wins_when_it_wins(control: float, wins: bool) -> None:
    records = [record("a", 0, 0.97), record("a_control", 0, control, solver="gradual_magnitude")]
    rows = rows_of.stage_rows(records)
    assert [row.config for row in rows] == ["a", "a"]  # the control has no rows of its own
    assert rows[1].control == Measure(control, None, 1)
    assert rows[1].control_wins is wins
    assert ("**control wins**" in results.to_markdown(rows)) is wins


def test_equal_means_summed_in_another_order_are_no_win() -> None:
    values = [0.1, 0.2, 0.3]
    records = [record("a", i, v) for i, v in enumerate(values)]
    records += [record("a_control", i, v) for i, v in enumerate(reversed(values))]
    assert not rows_of.stage_rows(records)[1].control_wins


def test_what_differs_at_the_control_is_said() -> None:
    records = [record("a", 0, 0.97), record("a", 1, 0.97), record("a_control", 0, 0.96, ratio=90.0)]
    assert "96.00 % (n = 1) at 90.0×" in results.to_markdown(rows_of.stage_rows(records))


def test_a_control_without_its_run_has_rows_of_its_own() -> None:
    rows = rows_of.stage_rows([record("a_control", 0, 0.96, solver="gradual_magnitude")])
    assert [row.config for row in rows] == ["a_control", "a_control"]
    assert "stage-1 (control)" in results.to_markdown(rows)


def test_files_have_both_ratios_and_the_bytes() -> None:
    records = [Record("a", seed, sample_report(seed)) for seed in range(2)]
    rows = rows_of.file_rows(records)
    expected = sample_report()["quantized"]
    assert [row.name for row in rows] == [item["name"] for item in expected]
    assert rows[0].ratio_file == pytest.approx(expected[0]["ratio_file"])
    table = results.to_markdown(rows)
    assert f"| {expected[0]['bytes']:,} |" in table
    assert "99.11 ± 0.00 %" in table
    assert "control" not in table  # an empty column is left out


def test_the_ablation_compares_with_and_without() -> None:
    records = [
        record("a", 0, 0.98, projected_validation_accuracy=0.95),
        record("a_norescale", 0, 0.97, projected_validation_accuracy=0.90),
        record("b_norescale", 0, 0.97),
    ]
    (row,) = rows_of.ablation_rows(records)
    assert (row.config, row.stage) == ("a", "stage-1")
    assert (row.rescaled.mean, row.plain.mean) == (0.98, 0.97)
    assert row.plain_projected == Measure(0.90, None, 1)
    assert {r.config for r in rows_of.stage_rows(records)} == {"a"}
    assert "97.00 %" in results.to_markdown([row])


def test_rows_are_frozen_and_cells_cannot_break_the_table() -> None:
    row = rows_of.stage_rows([record("a", 0, 0.97, published="a | b")])[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.ratio = 1.0  # type: ignore[misc]
    assert "a \\| b" in results.to_markdown([row])
    assert results.to_markdown([]) == ""


def test_the_section_names_only_what_there_is() -> None:
    assert results.section([]) == "No results yet."
    text = results.section([record("a", 0, 0.97)])
    assert "**Pruning**" in text
    assert "**Files**" not in text
    assert "**Ablation" not in text


def test_records_are_read_by_name_and_other_files_left_alone(tmp_path: Path) -> None:
    save(tmp_path, [record("b", 0, 0.97), record("a-x", 10, 0.97), record("a-x", 9, 0.97)])
    (tmp_path / "bench_cpu.json").write_text("[]")
    assert [(r.config, r.seed) for r in rows_of.load(tmp_path)] == [("a-x", 9), ("a-x", 10), ("b", 0)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "not the report.json of a run"),
        ('{"dense": {}, "stages": [], "seed": 4}', "seed 4"),
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "a-seed0.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        rows_of.load(tmp_path)


@pytest.mark.parametrize("text", ["", results.BEGIN, results.END + results.BEGIN, 2 * (results.BEGIN + results.END)])
def test_a_readme_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        results.insert(text, "new")


def test_the_check_sees_a_readme_that_is_out_of_date(tmp_path: Path) -> None:
    folder = save(tmp_path / "results", [record("a", 0, 0.97)])
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{results.BEGIN}\n{results.END}\n\nend\n")
    with pytest.raises(ValueError, match="out of date"):
        results.run(folder, readme, None, check=True)
    assert results.run(folder, readme, tmp_path / "images" / "figure.svg").endswith("figure.svg.")
    assert readme.read_text().startswith(f"# Title\n\n{results.BEGIN}\n\n**Pruning**")
    assert readme.read_text().endswith(f"{results.END}\n\nend\n")
    assert "agrees with 1 records" in results.run(folder, readme, None, check=True)
    save(folder, [record("a", 1, 0.96)])
    with pytest.raises(ValueError, match="out of date"):
        results.run(folder, readme, None, check=True)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        results.run(tmp_path / "results", tmp_path / "README.md", None)


@pytest.mark.parametrize(("suffix", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_the_figure_is_drawn(tmp_path: Path, suffix: str, magic: bytes) -> None:
    records = [Record("a", seed, sample_report(seed, accuracy=0.993 + 0.0002 * seed)) for seed in range(2)]
    records += [Record("a_control", 0, sample_report(0, "gradual_magnitude")), record("b", 0, 0.99)]
    path = picture.figure(records, tmp_path / "images" / f"figure{suffix}")
    assert path is not None
    assert path.read_bytes().startswith(magic)


def test_configurations_with_the_same_networks_share_a_line() -> None:
    drawn = picture._draw([record("a", 0, 0.98), record("b", 0, 0.98), record("c", 0, 0.97)])
    lines = {line.get_label() for line in drawn.axes[0].containers}
    assert lines == {"a, b", "c"}


def test_no_figure_is_drawn_from_nothing(tmp_path: Path) -> None:
    assert picture.figure([], tmp_path / "figure.svg") is None
    assert not (tmp_path / "figure.svg").exists()


def test_the_readme_of_this_repository_is_up_to_date() -> None:
    readme = ROOT / "README.md"
    if not readme.exists() or results.BEGIN not in readme.read_text():
        pytest.skip("the README has no result tables")
    results.run(ROOT / "results", readme, None, check=True)
