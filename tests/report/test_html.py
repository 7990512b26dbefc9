"""The HTML page of a finished run, and of figures that are given, read by a real parser."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest
import torch
from helpers.cli import FinishedRun

from drc.core.errors import RunError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.folders import load_pair
from drc.evaluation.benchmark import Bicubic
from drc.report.compare import compare, figures_table
from drc.report.gallery import MOST_PHOTOS, choose, most_photos, photograph
from drc.report.html.charts import plan_figure, scatter_figure
from drc.report.html.page import Recipe, comparison_page, page
from drc.report.html.png import require_resvg, save_plots
from drc.report.html.points import Point, Scatter, quality_charts
from drc.report.pictures import GAIN, error_map
from drc.report.run_files import RunFiles, read_report, read_run
from drc.report.schema import ImageQuality, Report
from drc.report.text import summary
from drc.store.plan import Plan
from drc.store.run_folder import RunFolder

HOSTILE = '<script>alert("x")</script>&\'"><img src=x onerror=alert(1)>'
VOID = {"meta", "link", "img", "input", "br"}


@dataclass
class Node:
    """An element as a browser would see it, roughly: HTML and the SVG inside it."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Node] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Node]:
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.all(tag)

    @property
    def text(self) -> str:
        parts = [*self.texts, *(child.text for child in self.children)]
        return " ".join(" ".join(parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].texts.append(data)


def parse(text: str) -> Node:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], "an element is never closed"
    return reader.root


def named(root: Node, node: Node) -> str:
    """The text of the element that labels another."""
    (label,) = (
        n for n in _every(root) if n.attributes.get("id") == node.attributes["aria-labelledby"]
    )
    return label.text


@pytest.fixture(scope="module")
def run(finished_run: FinishedRun) -> RunFiles:
    folder = RunFolder.open(finished_run.run)
    return read_run(folder, read_report(folder))


@pytest.fixture(scope="module")
def photos():
    return photograph(
        {"dense": Bicubic(4), "pruned": _Nearest(4)}, bundled_pairs("test")[:1], device="cpu"
    )


class _Nearest(Bicubic):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")


def test_the_page_loads_nothing_from_elsewhere(run, photos):
    root = parse(page(run, photos, Recipe("", ["drc search"])))
    for tag in ("img", "script", "link", "iframe", "source", "image", "use"):
        for node in root.all(tag):
            for name in ("src", "href", "srcset", "xlink:href"):
                assert (node.attributes.get(name) or "data:").startswith("data:"), node
    (style,) = root.all("style")
    assert "url(" not in style.text and "@import" not in style.text
    (script,) = root.all("script")
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(", script.text)
    policies = [m for m in root.all("meta") if "http-equiv" in m.attributes]
    assert policies[0].attributes["content"].startswith("default-src 'none'")
    for link in root.all("a"):
        target = link.attributes["href"][1:]
        assert any(n.attributes.get("id") == target for t in ("h2", "main") for n in root.all(t))


def test_figures_on_the_page_equal_those_of_report_json(run, finished_run):
    report = json.loads((finished_run.run / "report.json").read_text())
    root = parse(page(run))
    table = next(t for t in root.all("table") if t.attributes.get("class") == "before-after")
    cells = {tr.children[0].text: [td.text for td in tr.all("td")] for tr in table.all("tr")}
    assert cells["parameters"][0] == f"{report['before']['params']:,}"
    assert cells["parameters"][2] == f"{report['after']['params']:,}"
    assert cells["PSNR (dB)"][:3] == [
        f"{report[side]['psnr']:.2f}" for side in ("before", "pruned_only", "after")
    ]
    assert cells["latency (ms, LR 32x32)"][0] == f"{report['before']['latency_ms']:,.1f}"
    caption = named(root, table)
    assert report["counters"]["macs"] in caption and "32 x 32" in caption
    bars = next(t for t in root.all("table") if t.attributes.get("class") == "bars")
    kept = {tr.children[0].text: [td.text for td in tr.all("td")][:2] for tr in bars.all("tr")}
    for name, (keep, of) in report["plan"]["groups"].items():
        assert kept[name] == [str(keep), str(of)]
    for image in report["data"]["images"]:
        assert f"{image['psnr_after']:.2f}" in root.text
    assert all(card in root.text for card in ("parameters", "MACs", "PSNR", "latency"))


def test_warnings_say_what_makes_figures_worthless(run):
    warnings = next(
        s for s in parse(page(run)).all("section") if s.attributes.get("class") == "warnings"
    )
    assert "initial weights" in warnings.text  # the run was made on --weights none
    assert "means over 2 images" in warnings.text
    bare = run.report.model_copy(
        update={
            "latency": None,
            "data": run.report.data.model_copy(update={"images": []}),
            "after": run.report.after.model_copy(update={"psnr": 20.0}),
        }
    )
    text = page(RunFiles("r", bare, problems=["no curves at all"]), photo_problem="no photos: why")
    for part in ("not measured: there were no test images", "latency was not measured",
                 "no curves at all", "no photos: why", "worse than bicubic"):  # fmt: skip
        assert part in text


def test_hostile_names_stay_text(run, photos):
    report = run.report.model_copy(
        update={
            "model": HOSTILE,
            "notes": [HOSTILE],
            "files": {HOSTILE: HOSTILE},
            "data": run.report.data.model_copy(
                update={"images": [ImageQuality(name=HOSTILE, psnr_before=1, psnr_after=2)]}
            ),
            "plan": run.report.plan.model_copy(update={"groups": {HOSTILE: (4, 8)}}),
        }
    )
    hostile = RunFiles(HOSTILE, report)
    named = [type(photo)(**{**vars(photo), "name": HOSTILE}) for photo in photos]
    pages = [
        page(hostile, named, Recipe(HOSTILE, [HOSTILE])),
        comparison_page(compare([hostile, run], [HOSTILE, "b"])),
    ]
    for text in pages:
        root = parse(text)
        assert len(list(root.all("script"))) == 1
        assert not any("onerror" in img.attributes for img in root.all("img"))
        assert 'alert("x")' in root.text  # it is there, as text


def test_tables_images_and_controls_have_names(run, photos):
    root = parse(page(run, photos))
    for table in root.all("table"):
        assert named(root, table)
        assert all(th.attributes.get("scope") for th in table.all("th"))
    assert all(img.attributes["alt"] for img in root.all("img"))
    drawings = [svg for svg in root.all("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert drawings and all(next(svg.all("title")).text for svg in drawings)
    ranges = [i for i in root.all("input") if i.attributes.get("type") == "range"]
    assert len(ranges) == 1 and ranges[0].attributes["aria-label"]
    identifiers = [n.attributes["id"] for n in _every(root) if n.attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))


def _every(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _every(child)


def _luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_both_themes_are_there_and_have_contrast(run):
    (style,) = parse(page(run)).all("style")
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", style.text)
    assert "prefers-color-scheme: dark" in style.text
    assert [name.strip() for name, _ in blocks] == [
        ":root", ':root[data-theme="dark"]', ":root:not([data-theme])"
    ]  # fmt: skip
    themes = [dict(re.findall(r"--(\w[\w-]*): (#\w{6})", body)) for _, body in blocks]
    assert themes[1] == themes[2] != themes[0]
    for theme in themes:
        for ground in ("page", "card"):
            for text in ("ink", "soft", "accent"):
                assert _contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        assert _contrast(theme["warn-ink"], theme["warn"]) >= 4.5
        for name in (f"share{n}" for n in range(5)):
            assert _contrast(theme[name], theme["card"]) >= 2.8, name


def test_photos_show_the_place_where_the_networks_differ_most(photos):
    (photo,) = photos
    lr, hr = load_pair(bundled_pairs("test")[0], 4)
    names = [form.name for form in photo.forms]
    assert names == ["LR", "bicubic", "dense", "pruned", "HR"]
    assert photo.whole == tuple(hr.shape[1:]) and photo.corner == (0, 0)
    assert torch.equal(photo.forms[0].pixels, lr) and torch.equal(photo.forms[-1].pixels, hr)
    assert torch.equal(photo.forms[1].pixels, photo.forms[2].pixels)  # dense is bicubic here
    assert photo.forms[3].psnr < photo.forms[2].psnr
    apart = (photo.forms[2].pixels.float() - photo.forms[3].pixels.float()).abs().mean(0)
    side, (top, left) = photo.close_up_side, photo.close_ups[0]
    means = torch.nn.functional.avg_pool2d(apart[None], side, 1)[0]
    assert apart[top : top + side, left : left + side].mean() >= 0.97 * means.max()
    other_top, other_left = photo.close_ups[1]
    assert max(abs(other_top - top), abs(other_left - left)) >= side
    assert top % 4 == left % 4 == 0


def test_error_maps_are_black_without_error_and_bright_with_much():
    drawn = error_map(torch.tensor([[0.0, 1 / GAIN, 1.0]])).long().sum(0)
    assert drawn[0, 0] == 0
    assert drawn[0, 1] == drawn[0, 2] > 600


def test_many_photos_are_shown_in_smaller_parts(tmp_path, run):
    pairs = bundled_pairs("test") * 4
    shown = photograph({"dense": Bicubic(4), "pruned": _Nearest(4)}, pairs[:MOST_PHOTOS])
    assert all(max(photo.forms[-1].pixels.shape[1:]) <= 320 for photo in shown)
    assert len(page(run, shown).encode()) < 5_000_000


def test_photos_of_many_networks_leave_the_page_small(run):
    networks = {"dense": Bicubic(4), **{f"run {n}": _Nearest(4) for n in range(50)}}
    pairs = (bundled_pairs("test") * 4)[: most_photos(len(networks))]
    assert len(pairs) == 1 and most_photos(3) == most_photos(6) == MOST_PHOTOS
    shown = photograph(networks, pairs, compared=list(networks)[1:], device="cpu")
    assert len(shown[0].forms) == 54 and len(shown[0].close_ups) == 1
    text = comparison_page(compare([run, run], ["a", "b"]), shown)
    assert len(text.encode()) < 5_000_000


def test_networks_are_opened_one_at_a_time():
    alive: list[weakref.ref[Bicubic]] = []

    class Opened(dict[str, Bicubic]):
        def __getitem__(self, name: str) -> Bicubic:
            assert not any(network() for network in alive), "an earlier one is still held"
            made = super().__getitem__(name)(4)
            alive.append(weakref.ref(made))
            return made

    names = {"dense": Bicubic, "a": _Nearest, "b": _Nearest}
    (photo,) = photograph(Opened(names), bundled_pairs("test")[:1], compared=["a", "b"])
    assert [form.name for form in photo.forms] == ["LR", "bicubic", *names, "HR"]
    assert len(alive) == len(names)
    whole = photo.whole[0] * photo.whole[1]
    stored = (form.pixels.untyped_storage().nbytes() for form in photo.forms)
    assert all(size <= 3 * min(whole, 512 * 512) for size in stored)  # parts, not whole images


def test_the_slider_starts_with_what_is_compared_whatever_the_names(run):
    networks = {"dense": Bicubic(4), "error of a": _Nearest(4), "a": Bicubic(4)}
    pairs = bundled_pairs("test")[:1]
    shown = photograph(networks, pairs, compared=["error of a", "a"], device="cpu")
    root = parse(comparison_page(compare([run, run], ["x", "y"]), shown))
    for side, select in zip(("left", "right"), root.all("select"), strict=True):
        assert select.attributes["aria-label"].endswith(f"{side} image")
        (option,) = [o for o in select.all("option") if "selected" in o.attributes]
        assert option.text.startswith({"left": "error of a", "right": "a"}[side])
        forms = [i for i in root.all("img") if "form" in i.attributes["class"].split()]
        (form,) = [i for i in forms if side in i.attributes["class"].split()]
        assert int(option.attributes["value"]) == forms.index(form)


def test_photos_are_chosen_from_the_worst_to_the_best():
    pairs = bundled_pairs("train")
    losses = dict(zip((p.name for p in pairs), (0.1, 0.5, 0.2, 0.0, 0.3), strict=True))
    figures = [ImageQuality(name=n, psnr_before=30, psnr_after=30 - x) for n, x in losses.items()]
    chosen = [losses[pair.name] for pair in choose(pairs, figures, 3)]
    assert chosen == [0.5, 0.2, 0.0]
    assert len(choose(pairs, figures, 9)) == 5
    assert [losses[p.name] for p in choose(pairs, figures, 1)] == [0.5]


def drawn(chart: Scatter) -> str:
    return str(scatter_figure([chart]).charts[0].drawing)


def test_charts_place_points_and_columns_where_the_figures_say():
    chart = Scatter("t", "x", "y", [Point("a", "dense", 1, 10), Point("b", "after", 2, 20)])
    svg = parse(drawn(chart))
    (square,) = svg.all("rect")
    rhombus = next(p for p in svg.all("path"))
    place = [float(v) for v in re.match(r"M([\d.]+) ([\d.]+)", rhombus.attributes["d"]).groups()]
    assert float(square.attributes["x"]) < place[0]  # cheaper is further left
    assert float(square.attributes["y"]) > place[1]  # better is higher
    columns = list(
        parse(plan_figure("", {"a": (4, 16), "b": (16, 16)}).charts[0].drawing).all("rect")
    )
    heights = [float(column.attributes["height"]) for column in columns]
    assert heights[0] == heights[2] == heights[3] == pytest.approx(4 * heights[1], rel=0.01)
    assert [c.attributes["class"] for c in columns] == ["of", "kept share1", "of", "kept share4"]


def test_crowded_points_get_numbers_and_a_key_and_no_label_covers_another(run):
    changes = [{"psnr": 30 + n / 9, "params": 300_000 + 500 * n} for n in range(9)]
    runs = [
        RunFiles(
            f"a_long_name_of_a_run_{n}",
            run.report.model_copy(update={"after": run.report.after.model_copy(update=change)}),
        )
        for n, change in enumerate(changes)
    ]
    charts = quality_charts(runs)
    figure = scatter_figure(charts)
    numbers = {name: number for _, number, name in figure.numbers}
    assert sorted(numbers.values()) == list(range(1, 11))
    root = parse(comparison_page(compare(runs, list(numbers)[1:])))
    (key,) = [n for n in root.all("ol") if "numbers" in n.attributes["class"]]
    entries = [item.text for item in key.all("li")]
    assert entries == [f"{label} {number}" for label, number in numbers.items()]
    boxes = []
    svg = parse(figure.charts[0].drawing)
    for text in (t for t in svg.all("text") if t.attributes["class"] == "name"):
        x, y = float(text.attributes["x"]), float(text.attributes["y"])
        width = 6.5 * len(text.text)
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.attributes["text-anchor"]]
        boxes.append((left, y - 10, left + width, y + 2))
    for place, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_a_dense_network_is_drawn_once_and_told_from_runs_by_its_shape(run):
    other = run.report.model_copy(update={"weights": "file other.pt"})
    plan = run.plan.model_copy(update={"base_checksum": "another"})
    runs = [run, replace(run, name="b"), RunFiles("c", other, plan)]
    chart = quality_charts(runs)[0]
    assert [p.label for p in chart.points if p.kind == "dense"] == [
        f"drn_tiny x4, dense ({run.name})", "drn_tiny x4, dense (c)"
    ]  # fmt: skip
    svg = parse(drawn(chart))
    marks = {g.attributes["class"]: g.children[-1].tag for g in svg.all("g")}
    assert marks == {"point dense": "rect", "point after": "path"}
    timed = [replace(run, name="a"), replace(run, name="b", report=_on_gpu(run.report))]
    assert [sum(p.kind == "dense" for p in c.points) for c in quality_charts(timed)] == [1, 1, 2]


def _on_gpu(report: Report) -> Report:
    latency = report.latency.model_copy(update={"device": "a GPU"})
    return report.model_copy(update={"latency": latency})


def _plans(plan: Plan, ratios: Sequence[float]) -> list[Plan]:
    budgets = [plan.budget.model_copy(update={"ratio": ratio}) for ratio in ratios]
    return [
        plan.model_copy(update={"budget": budget, "expected_loss": budget.ratio})
        for budget in budgets
    ]


def test_plans_whose_names_do_not_fit_have_numbers_with_a_key(run):
    ratios = [0.3, 0.31, 0.32, 0.33, 0.34, 0.35]
    root = parse(page(replace(run, plans=_plans(run.plan, ratios))))
    (key,) = [n for n in root.all("ol") if "numbers" in n.attributes["class"]]
    entries = {item.text.split()[-1]: item.text for item in key.all("li")}
    (chart,) = [n for n in root.all("figure") if "not measured" in n.text]
    shown = [t.text for t in chart.all("text") if t.attributes["class"] == "name"]
    assert sorted(shown) == sorted(entries) and len(shown) == len(ratios) + 1  # and the dense one
    assert any("ratio 0.35" in text for text in entries.values())


def test_expected_losses_are_not_shown_as_measured(run):
    plans = _plans(run.plan, (0.3, 0.5))
    text = page(replace(run, plans=plans))
    assert "<b>Plans of the search, not measured</b> has no PSNR" in text
    assert "ratio 0.3 (this run)" in text and "Every PSNR was measured" in text
    assert "has no PSNR" not in page(run)


def test_a_lone_point_and_equal_points_can_be_drawn():
    same = [Point(name, "after", 5, 30) for name in "abc"]
    labels = [t for t in parse(drawn(Scatter("t", "x", "y", same))).all("text")]
    places = [
        (t.attributes["text-anchor"], float(t.attributes["y"])) for t in labels if t.text in "abc"
    ]
    assert len(set(places)) == 3  # on another side of the points, or lower


def test_runs_are_compared_with_what_makes_them_unlike(run):
    report = run.report.model_copy(update={"scale": 2, "recovered": False})
    found = compare([run, RunFiles(run.name, report)], ["runs/a", "runs/b"])
    assert [r.name for r in found.runs] == ["runs/a", "runs/b"]  # one folder name, so whole paths
    assert any("different scales: 4; 2" in note for note in found.notes)
    assert len(figures_table(found.runs).rows) == 4
    content = json.loads(found.to_json())
    assert content["runs"][0]["report"]["after"]["params"] == report.after.params
    root = parse(comparison_page(found))
    assert "not recovered" in root.text and "2 runs compared" in root.text
    charts = quality_charts(found.runs)
    assert {p.label for p in charts[0].points} >= {"runs/a", "runs/b"}


def test_reports_are_read_back_whole_and_damage_is_told(run, finished_run, tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="holds no report"):
        read_report(folder)
    for text, why in (
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"schema_version": 1}', "created"),
    ):
        folder.report_path.write_text(text)
        with pytest.raises(RunError, match=why):
            read_report(folder)
    folder.report_path.write_text('{"schema_version": 99}')
    with pytest.raises(RunError, match="update drc"):
        read_report(folder)
    text = (finished_run.run / "report.json").read_text()
    assert run.report.to_json() + "\n" == text


def test_plots_are_pictures_of_the_same_figures(run, tmp_path):
    pytest.importorskip("resvg_py", reason="plots need resvg")
    from PIL import Image

    written = save_plots([run], tmp_path / "plots")
    assert [path.name for path in written] == ["plan.png", "front.png", "training.png"]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width > 500 and len(picture.convert("L").getcolors()) > 10
    assert [p.name for p in save_plots([run, run], tmp_path)] == ["front.png"]


def test_plots_hold_the_drawings_of_the_page(run, tmp_path, monkeypatch):
    """Those of a blind network's kernel loss among them, in the colours of the light theme."""
    resvg = pytest.importorskip("resvg_py", reason="plots need resvg")
    drawn: list[str] = []
    styles: set[str] = set()

    def keep(svg_string: str, style_sheet: str, **_: object) -> bytes:
        drawn.append(svg_string)
        styles.add(style_sheet)
        return b""

    monkeypatch.setattr(resvg, "svg_to_bytes", keep)
    lines = [
        {"step": n, "loss": 3 / n, "primal": 2 / n, "dual": 0.0, "kernel": 1 / n, "lr": 1e-4 * n}
        for n in range(1, 6)
    ]
    blind = replace(run, metrics=lines, plans=_plans(run.plan, (0.3, 0.5)))
    save_plots([blind], tmp_path)
    shown = re.findall(r'<svg[^>]*class="chart".*?</svg>', page(blind), re.DOTALL)
    assert len(shown) == 7  # the plan, plans of the search, quality three times, training twice
    assert all(sum(svg in plot for plot in drawn) == 1 for svg in shown)
    (losses,) = (svg for svg in shown if "losses, recovery" in svg)
    assert re.findall(r'class="name"[^>]*>(\w+)<', losses) == ["loss", "primal", "kernel"]
    (style,) = styles
    assert "var(" not in style and "#cc4e00" in style


def test_plots_without_resvg_name_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"drc-sr\[plots\]"):
        require_resvg()


def test_rows_of_the_page_are_those_of_the_terminal(run):
    text = parse(page(run)).text
    for _, before, _, _, change in summary(run.report).rows:
        assert before in text and change in text
