"""The papers' networks beside what was published of them, and the list of networks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from helpers.cli import assert_one_line, drc, tiny_photos

import drc as package
from drc.core.errors import DataError, UsageError
from drc.networks.registry import build, costs, get_preset, list_models, schema
from drc.report.paper import measure, print_paper, published, to_json

LIGHT = ("swinir_light", "swinir_light_drc")


def test_every_published_network_is_registered_with_its_parameters() -> None:
    for entry in published():
        cost = costs(entry.model, entry.scale)
        assert cost is not None and cost["params"] == entry.params
        assert abs(cost["macs"] / 1e9 / entry.macs_g - 1) < 0.002


def test_recorded_costs_are_those_of_the_networks() -> None:
    """Parameters of all; MACs of those that are quick to count."""
    for name in list_models():
        for scale in get_preset(name).arguments:
            cost = costs(name, scale)
            with torch.device("meta"):
                params = sum(p.numel() for p in build(name, scale).parameters())
            assert cost is not None and cost["params"] == params, f"{name} x{scale}"
            assert cost["tensors"] == len(schema(name, scale))
            if cost["macs"] < 2e9:
                assert package.complexity(build(name, scale)).macs == cost["macs"]


def test_the_table_of_one_family(tmp_path: Path) -> None:
    photos = tiny_photos(tmp_path / "photos")
    model = package.create_model("swinir_light")
    torch.save({"params": model.state_dict()}, tmp_path / "light.pth")
    files = {"swinir_light": str(tmp_path / "light.pth")}
    rows = list(measure(photos, files, only=LIGHT, device="cpu"))
    dense, compressed = (found for _, found in rows)
    assert (dense.params, compressed.params) == (929_628, 631_632)
    expected = package.evaluate(model, photos, device="cpu")
    assert dense.quality == {"photos": (expected.psnr, expected.ssim)}
    assert not compressed.quality and "no weights are published" in compressed.problem
    assert [row["params_difference"] for row in to_json(rows)] == [0, 0]
    text = io.StringIO()
    print_paper(rows, text)
    for words in ("631,632", "6.84", "32.1%", "Set5 32.44 / 0.897", "photos", "not measured, swin"):
        assert words in text.getvalue()


def test_blind_networks_are_measured_on_blind_sets_alone(tmp_path: Path) -> None:
    photos = tiny_photos(tmp_path / "photos")
    ((_, found),) = measure(photos, only=["dcls_drc"], device="cpu")
    assert found.problem == f"{photos} holds no DIV2KRK for x4"


def test_unusable_arguments_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the table has no edsr; it has dcls, "):
        next(measure(weights={"edsr": "x.pth"}))
    with pytest.raises(DataError, match="no such folder"):
        next(measure(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--paper", "--weights", "file.pt"), "--weights file.pt is not NAME=FILE"),
        (("--paper", "--run", "runs/x"), "--run is for the report of a run"),
        (("--weights", "drn_s=file.pt"), "--weights is for --paper"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert_one_line(drc("report", *arguments, cwd=tmp_path), 2, words)


def test_the_list_of_networks(tmp_path: Path) -> None:
    lines = json.loads(drc("models", "--json", cwd=tmp_path).stdout)
    assert {line["model"] for line in lines} == set(list_models())
    by_name = {(line["model"], line["scale"]): line for line in lines}
    assert by_name["drn_tiny", 4]["weights"] == "shipped"
    assert by_name["drn_s", 4]["params"] == 4_804_065
    text = drc("models", cwd=tmp_path).stdout
    assert "4,804,065" in text and "109.81" in text and "DRNS_4x_Prune_30.pt" in text
