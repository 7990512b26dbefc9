"""`drc demo`: the main job on the network and the photos that come with the package."""

from __future__ import annotations

import json

import pytest
from helpers.cli import drc

from drc.data.bundled import bundled_pairs


@pytest.mark.slow  # CI runs the demo itself, as the README does
def test_the_demo_needs_nothing_but_the_package(tmp_path):
    nowhere = "http://127.0.0.1:9"  # a download would fail
    result = drc(
        *["demo", "--json", "--steps", "5"],
        cwd=tmp_path,
        timeout=1800,
        http_proxy=nowhere,
        https_proxy=nowhere,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["model"], report["scale"]) == ("drn_tiny", 4)
    assert "shipped with drc" in report["weights"]
    before, after = report["before"], report["after"]
    assert 0.70 * before["params"] >= after["params"] >= 0.69 * before["params"]
    assert after["macs"] < before["macs"]
    for side in (before, after):
        assert side["psnr"] > 25
        assert 0.7 < side["ssim"] < 1
        assert side["latency_ms"] > 0
    tested = {image["name"] for image in report["data"]["images"]}
    assert tested == {pair.name for pair in bundled_pairs("test")}
    assert not tested & {pair.name for pair in bundled_pairs("train")}
    assert (tmp_path / report["files"]["recovered network"]).is_file()
