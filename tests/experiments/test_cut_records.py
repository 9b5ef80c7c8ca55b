"""Records of shrink runs as tables: seeds averaged, ways apart, the README's two kinds of records beside each other."""

import pytest

from experiments import cut_records, results
from experiments.records import Record
from tests.experiments.records import sample_report


def cut(score, removed, accuracy, **changes):
    return {
        "name": f"{score}-uniform-macs-{100 * removed:g}",
        "score": score,
        "allocation": "uniform",
        "cost": "macs",
        "removed": removed,
        "before_accuracy": accuracy - 0.1,
        "test_accuracy": accuracy,
        "macs_ratio": 1 / (1 - removed),
        "speedup": 1.25,
        **changes,
    }


def record(seed, *cuts):
    return Record("net_shrink", seed, {"dense": {"test_accuracy": 0.92, "macs": 41_000_000}, "cuts": list(cuts)})


def test_rows_are_ways_and_columns_are_shares():
    text = cut_records.to_markdown(
        [
            record(0, cut("l1", 0.5, 0.9), cut("l1", 0.3, 0.91), cut("taylor", 0.5, 0.8)),
            record(1, cut("l1", 0.5, 0.8), cut("l1", 0.3, 0.91), cut("taylor", 0.5, 0.8)),
        ]
    )
    lines = text.splitlines()
    assert lines[0] == "`net_shrink`: dense 92.00 %, 41.00 M multiply-adds; 2 seeds"
    assert lines[2] == "| cut | 30 % of the cost removed | 50 % of the cost removed |"
    assert lines[4].startswith("| l1, uniform | 81.00 % → 91.00 ± 0.00 %; 1.43× fewer MACs, 1.25× faster |")
    assert "75.00 % → 85.00 ± 7.07 %; 2.00× fewer MACs" in lines[4]
    assert lines[5].startswith("| taylor, uniform |  | 70.00 % → 80.00 ± 0.00 %")


def test_cuts_to_given_widths_and_zeros_have_names_of_their_own():
    assert cut_records.way(cut("l2", 0.5, 0.9, name="l2-3-15-175")) == "3-15-175 units, l2"
    assert cut_records.way(cut("l2", 0.5, 0.9, name="zeros", allocation="zeros")) == "zeroed by training"


def test_cuts_that_were_not_made_by_a_share_stand_under_none():
    lines = cut_records.to_markdown(
        [record(0, cut("l2", 0.5, 0.9, name="l2-3-15-175"), cut("l2", 0.5, 0.9, name="zeros"), cut("l1", 0.5, 0.9))]
    ).splitlines()
    assert lines[2] == "| cut | 50 % of the cost removed | as named |"
    assert lines[4].startswith("| 3-15-175 units, l2 |  | 80.00 %")
    assert lines[5].startswith("| zeroed by training |  | 80.00 %")
    assert lines[6].endswith("|  |")


def test_what_pretrained_networks_have_seen_is_said():
    seen = Record("net", 0, {**record(0, cut("l1", 0.5, 0.9)).report, "config": {"load": "pretrained"}})
    assert "no unseen one" in results.section([seen])
    assert "no unseen one" not in results.section([record(0, cut("l1", 0.5, 0.9))])


def test_the_readme_section_holds_both_kinds():
    pruned = Record("net_admm", 0, sample_report())
    text = results.section([pruned, record(0, cut("l1", 0.5, 0.9))])
    assert text.index("**Pruning**") < text.index("**Channels**")
    assert "removed, not masked" in text


def test_a_record_of_neither_kind_is_refused(tmp_path):
    (tmp_path / "net-seed0.json").write_text('{"dense": {}}')
    with pytest.raises(ValueError, match="'stages', 'cuts' or 'curves'"):
        results.load(tmp_path)
