"""The report page: complete, self-contained, and honest about what is missing."""

import base64
import doctest
import importlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments import plots, report, style
from experiments.published import published
from tests.experiments.records import PATHS, sample_metrics, sample_report, stage

PROGRAMS = ("bench", "bench_storage", "evaluate", "picture", "plots", "published", "records")
PROGRAMS += ("report", "results", "style", "text", "timing")
VOID = {"meta", "img", "br", "link"}


class Balance(HTMLParser):
    """Checks that every element is closed where it was opened, and collects the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write(folder: Path, record: Any, metrics: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if record is not None:
        (folder / "report.json").write_text(json.dumps(record))
    if metrics is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete page, drawn once."""
    return report.write_html(write(tmp_path_factory.mktemp("run"), sample_report(), sample_metrics()))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are composed but not rendered, where only the page around them matters."""
    monkeypatch.setattr(style, "render", lambda figure: b"<svg/>")


def tags(page: str) -> list[str]:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def test_a_full_page_holds_the_headline_first_and_six_plots(full: Path) -> None:
    page = full.read_text()
    assert full.name == "report.html"
    assert tags(page).count("img") == 6
    best = sample_report()["quantized"][-1]
    for text in ("99.04 %", report.times(best["ratio_file"]), report.times(best["ratio_data"]), f"{best['bytes']:,}"):
        assert f"<b>{text}</b>" in page
        assert page.index(f"<b>{text}</b>") < page.index("<table")
    assert "<b>99.37 %</b><span>dense baseline, 1.7 MB" in page
    assert page.index("Stages") < page.index("Accuracy against ratio")
    assert "--config.control=True" in page  # the control is missing, and the page says so
    assert sorted(p.name for p in full.parent.iterdir()) == ["metrics.jsonl", "report.html", "report.json"]


def test_the_page_needs_nothing_from_outside(full: Path) -> None:
    page = full.read_text()
    assert not {"script", "link", "iframe", "object"} & set(tags(page))
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "http" not in page
    assert "url(" not in page
    for data in re.findall(r'base64,([^"]+)"', page):
        image = base64.b64decode(data).decode()
        assert not re.search(r'href="(?!#)', image)  # references within the image only


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("change", "images"),
    [
        ({"quantized": []}, 5),
        ({"quantized": [], "stages": []}, 3),
        ({"histograms": {}}, 5),
        ({"stages": []}, 5),
        ({"config": {}, "dataset": ""}, 6),
    ],
)
def test_missing_pieces_are_left_out(tmp_path: Path, change: dict[str, Any], images: int) -> None:
    page = report.write_html(write(tmp_path, sample_report() | change, sample_metrics())).read_text()
    assert tags(page).count("img") == images
    assert "nan" not in page.lower().split("<pre>")[0].split("base64")[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("key", ["stages", "quantized", "histograms", "seconds", "seed"])
def test_absent_keys_are_like_empty_ones(tmp_path: Path, key: str) -> None:
    record = sample_report()
    del record[key]
    tags(report.write_html(write(tmp_path, record, sample_metrics())).read_text())


@pytest.mark.usefixtures("undrawn")
def test_optional_fields_of_stages_may_be_absent_or_null(tmp_path: Path) -> None:
    record = sample_report()
    for item in record["stages"]:
        item |= {"published": None, "projected_validation_accuracy": None, "milliseconds": None, "widths": None}
        del item["macs"]
    page = report.write_html(write(tmp_path, record)).read_text()
    head = re.search(r"<thead>(.*?)</thead>", page)
    assert head
    assert "before retraining" not in head[1]
    assert "published" not in head[1]
    assert tags(page).count("img") == 4  # no metrics: no plots over steps


@pytest.mark.usefixtures("undrawn")
def test_a_control_run_stands_beside_this_one(tmp_path: Path) -> None:
    run = write(tmp_path / "run", sample_report(), sample_metrics())
    control = write(tmp_path / "control", sample_report(solver="gradual_magnitude", accuracy=0.9912))
    page = report.write_html(run, control).read_text()
    assert page.count("gradual magnitude (control)") == 4
    assert "99.12 %" in page
    assert "--config.control=True" not in page


@pytest.mark.usefixtures("undrawn")
def test_text_from_the_records_is_escaped(tmp_path: Path) -> None:
    record = sample_report()
    record["stages"][0]["published"] = "<script>alert(1)</script> & more"
    record["config"]["note"] = "</pre><script>"
    page = report.write_html(write(tmp_path, record)).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_an_unfinished_run_is_named_with_its_last_step(tmp_path: Path) -> None:
    write(tmp_path, None, sample_metrics()[:3])
    with pytest.raises(ValueError, match=r"has not finished: its last record is step 860 of pretrain\. Run the same"):
        report.write_html(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "not the directory of a run"),
        ("{", "not valid JSON"),
        ("[1]", "holds a list"),
        ("{}", "has no entry 'dense'"),
    ],
)
def test_a_bad_directory_is_refused_in_one_sentence(tmp_path: Path, text: str | None, match: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        report.write_html(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_line_of_metrics_is_refused(tmp_path: Path) -> None:
    write(tmp_path, sample_report())
    (tmp_path / "metrics.jsonl").write_text("{oops\n")
    with pytest.raises(ValueError, match="not valid JSON"):
        report.write_html(tmp_path)


def test_steps_that_count_on_and_steps_that_start_again_give_the_same_time_line() -> None:
    again = [("a", 0), ("a", 5), ("b/x", 0), ("b/x", 3), ("b/y", 0), ("b/y", 2)]
    on = [("a", 0), ("a", 5), ("b/x", 5), ("b/x", 8), ("b/y", 8), ("b/y", 10)]
    lines = [plots.timeline([{"phase": p, "step": s} for p, s in steps]) for steps in (again, on)]
    assert lines[0] == lines[1] == ([0, 5, 5, 8, 8, 10], [("a", 0, 5), ("b", 5, 10)])


def test_plots_have_nothing_to_draw_from_nothing() -> None:
    empty = {"dense": {"test_accuracy": 0.9}}
    assert plots.accuracy_against_ratio(empty, [], published("mnist", "lenet5")) is None
    assert plots.keep_counts(empty) is None
    assert plots.weight_histograms(empty) is None
    assert plots.bytes_by_stream({}) is None
    assert plots.residuals([{"phase": "pretrain", "step": 0}]) is None
    assert plots.validation_accuracy([{"phase": "pretrain", "step": 0, "validation_accuracy": None}]) is None


def test_extreme_values_can_be_drawn() -> None:
    perfect = [{"phase": "pretrain", "step": i, "validation_accuracy": 1.0} for i in range(3)]
    first = {"phase": "stage-1/admm", "step": 0, "primal": dict.fromkeys(PATHS, 0.0)}
    first["dual"] = dict.fromkeys(PATHS, math.inf)
    bare = {"dense": {"test_accuracy": 1.0}, "stages": [stage(0, accuracy=1.0) | {"nonzeros": {"conv1/kernel": 0}}]}
    for figure in (
        plots.validation_accuracy(perfect),
        plots.residuals([first]),
        plots.accuracy_against_ratio(bare, [], []),
        plots.keep_counts(bare),
        plots.bytes_by_stream({"streams": {"fc/kernel": {"values": 8, "other": 8}}}),
    ):
        assert figure is not None
        assert style.render(figure).startswith(b"<?xml")


def test_bytes_by_stream_add_up_to_the_file() -> None:
    item = {"streams": {"a": {"values": 16, "positions": 8}, "b": {"values": 8}}, "header_bits": 32}
    figure = plots.bytes_by_stream(item)
    assert figure is not None
    assert sum(bar.get_width() for bar in figure.axes[0].patches) == 8


def test_equal_records_give_equal_files() -> None:
    one, two = (plots.keep_counts(sample_report()) for _ in range(2))
    assert one is not None
    assert two is not None
    assert style.render(one) == style.render(two)


def test_pretraining_is_not_taken_for_retraining() -> None:
    figure = plots.validation_accuracy(sample_metrics()[:10])
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dense training"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_examples_in_the_programs_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"experiments.{name}"))
    assert failed == 0
