"""What a person reads: tables on three grounds, one page without outside help, intervals, figures."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from mer_ray.evaluation.figures import per_label_figure
from mer_ray.evaluation.metrics import Level, evaluate_songs
from mer_ray.evaluation.report import label_grid, report_sections, summary_grid, verdict, with_interval
from mer_ray.pages import Grid, Picture, Player, Section, markdown, page, table, text_table

VOID = {"meta", "img"}
LABELS = ("calm", "happy", "<b>loud</b>", "never")
TRAINED = {"name": "MERT", "licence": "CC-BY-NC-4.0"}
FACTS = {"model": "models/a & b", "ranking": "cosine"}


class Outline(HTMLParser):
    """Texts and addresses of a page; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())


def levels(clusters: bool = True) -> dict[str, Level]:
    generator = np.random.default_rng(0)
    truth = generator.random((30, 4)) < 0.4
    truth[:, 3] = False
    windows = generator.normal(size=(90, 4)) + np.repeat(truth, 3, axis=0)
    groups = [["calm", "happy"], ["<b>loud</b>"], ["never"]] if clusters else []
    return evaluate_songs(windows, np.repeat(np.arange(30), 3), truth, LABELS, 2, truth.mean(0), clusters=groups)


def test_a_table_is_markdown_with_figures_to_the_right() -> None:
    assert table(["", "F1"], [["a", "0.1"]]) == "|  | F1 |\n| --- | ---: |\n| a | 0.1 |\n"


def test_a_console_table_is_aligned_whatever_the_cells_hold() -> None:
    text = text_table(["", "macro F1"], [["windows", "0.417 [0.371, 0.466]"], ["chance", "–"]])
    assert text.splitlines() == [
        "                     macro F1",
        "-------  --------------------",
        "windows  0.417 [0.371, 0.466]",
        "chance                      –",
    ]


def test_a_page_table_escapes_its_text() -> None:
    grid = Grid(["label", "F1"], [["<b>loud</b>", "a & b"]])
    texts = Outline(page("A", [Section("", [grid])])).texts
    assert texts[2:] == ["label", "F1", "<b>loud</b>", "a & b"]


def test_a_page_is_whole_escaped_and_links_to_its_sections() -> None:
    sections = [Section("", ["first"]), Section("C & D", [Picture("c", 'a "c"', b"png")])]
    outline = Outline(page("A < B", sections))
    assert outline.texts == ["A < B", "A < B", "C & D", "first", "C & D"]
    links = [address for address in outline.addresses if address.startswith("#")]
    assert [link[1:] for link in links] == outline.ids[1:] == ["s1"]
    images = [address for address in outline.addresses if not address.startswith("#")]
    assert images == ["data:image/png;base64," + base64.b64encode(b"png").decode()]


def test_the_same_sections_are_markdown_that_names_its_pictures_as_files() -> None:
    remarks = Section("C", [["one", "two"], Picture("c", "a c", b"png"), Grid(["", "F1"], [["a", "0.1"]])])
    assert markdown("A", [Section("", ["first"]), remarks]).split("\n\n") == [
        "# A",
        "first",
        "## C",
        "- one\n- two",
        "![a c](c.png)",
        "|  | F1 |\n| --- | ---: |\n| a | 0.1 |\n",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"f1": 0.4168, "f1_low": 0.3714, "f1_high": 0.4656}, "0.417 [0.371, 0.466]"),
        ({"f1": 0.5}, "0.500"),
        ({"f1": float("nan"), "f1_low": float("nan"), "f1_high": float("nan")}, "–"),
        ({}, "–"),
    ],
)
def test_a_figure_stands_with_its_interval_where_it_has_one(values: dict[str, float], text: str) -> None:
    assert with_interval(values, "f1") == text


def test_the_summary_shows_cluster_f1_beside_label_f1_only_where_it_is_defined() -> None:
    known, unknown = summary_grid(levels()), summary_grid(levels(clusters=False))
    assert known.header[:3] == ["", "macro F1", "cluster F1"]
    assert "cluster F1" not in unknown.header
    assert [row[0] for row in known.rows][-2:] == ["chance (random labels)", "most frequent labels"]
    assert [bool(re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", row[1])) for row in known.rows] == [True] * 4 + [
        False
    ] * 2
    assert "Cluster F1" in markdown("E", report_sections({"x": levels()}, FACTS, {"x": []}, {"x": []}, TRAINED))
    assert "Cluster F1" not in markdown(
        "E", report_sections({"x": levels(clusters=False)}, FACTS, {"x": []}, {"x": []}, TRAINED)
    )


def test_labels_are_listed_best_first_with_areas_and_a_dash_where_there_is_none() -> None:
    grid = label_grid(levels()["song_vote"])
    assert grid.header == ["label", "songs", "F1", "precision", "recall", "ROC-AUC", "PR-AUC"]
    f1 = [float(row[2].split()[0]) for row in grid.rows]
    assert f1 == sorted(f1, reverse=True)
    never = next(row for row in grid.rows if row[0] == "never")
    assert never[1:] == ["0", "0.000 [0.000, 0.000]", "0.000", "0.000", "–", "–"]


def test_report_and_page_tell_the_same_and_the_page_asks_nobody() -> None:
    one = levels()
    figure = per_label_figure("x", one)
    sections = report_sections(
        {"x": one}, FACTS, {"x": [Picture("per_label_x", "each label", figure)]}, {"x": []}, TRAINED
    )
    outline, report = Outline(page("Evaluation", sections)), markdown("Evaluation", sections)
    for grid in (summary_grid(one), label_grid(one["song_vote"])):
        for row in grid.rows:
            assert f"| {' | '.join(row)} |" in report
            assert set(row) <= set(outline.texts)
    assert "model: models/a & b" in outline.texts
    assert all(address.startswith(("#s", "data:image/png;base64,")) for address in outline.addresses)
    assert "data:image/png;base64," + base64.b64encode(figure).decode() in outline.addresses


def test_a_figure_grows_with_its_labels() -> None:
    def height(labels: int) -> int:
        truth = np.random.default_rng(0).random((40, labels)) < 0.3
        names = tuple(f"label {at}" for at in range(labels))
        one = evaluate_songs(truth.astype(float), np.arange(40), truth, names, 2, truth.mean(0))
        return matplotlib.image.imread(io.BytesIO(per_label_figure("x", one)), format="png").shape[0]

    assert height(56) - height(6) == pytest.approx(50 * 0.24 * 130, rel=0.02)


def test_the_verdict_comes_first_and_the_encoder_with_it() -> None:
    player = Player("<i>song</i>", "truly calm; told happy", "../a%20b.mp3")
    one = {"x": levels()}
    text = page(
        "T", report_sections(one, FACTS, {"x": []}, {"x": [player]}, {"name": "tiny", "licence": "(untrained)"})
    )
    outline = Outline(text)
    start = next(at for at, said in enumerate(outline.texts) if "ROC-AUC is" in said)
    assert outline.texts[start].startswith("x: ")
    assert start < outline.texts.index("label")
    assert "is untrained" in outline.texts[start + 1]
    assert "models/a & b" in outline.texts[-2]
    assert "<i>song</i>" in outline.texts
    assert "../a%20b.mp3" in outline.addresses


def test_a_verdict_names_chance_and_ridge_and_does_not_boast_of_noise() -> None:
    one = levels()
    said = verdict("x", one)
    assert "Over 30 songs ROC-AUC is" in said
    assert "chance 0.5" in said
    assert "ridge" not in said
    assert "a ridge regression on the same features has" in verdict("x", {**one, "ridge": one["random"]})
    noise = {**one, "song_mean": one["random"], "song_vote": one["random"]}
    assert "better than chance" in verdict("x", noise)
    assert "tells" not in verdict("x", noise)
