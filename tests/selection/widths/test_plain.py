"""Uniform widths: what comes out is a plain, smaller architecture to programs built on spandrel."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from helpers.cli import TINY, drc
from helpers.spandrel import saved_weights, spandrel, with_spandrel

import drc as package
from drc.core.errors import BudgetError, ModelError
from drc.opening import open_network

__all__ = ["spandrel", "with_spandrel"]  # fixtures

pytestmark = pytest.mark.usefixtures("spandrel")


def _plan(model: torch.nn.Module, scale: int, ratio: float) -> dict[str, tuple[int, int]]:
    torch.manual_seed(0)
    pairs = [(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16 * scale, 16 * scale))]
    plan = package.search(
        model, pairs, ratio,
        settings=package.SearchSettings(strategy="plain", patches=2, dual_weight=0),
    )  # fmt: skip
    return {name: (width.keep, width.of) for name, width in plan.groups.items()}


def test_a_compressed_file_is_a_plain_network_to_spandrel(
    tmp_path: Path, spandrel: ModuleType, with_spandrel: dict[str, str]
) -> None:
    settings = {key: value for key, value in TINY.items() if key not in ("model", "weights")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    weights = saved_weights("Compact", tmp_path)
    given = ["--weights", weights, "--config", "tiny.yaml", "--output", "run", "--ratio", "0.3"]
    done = drc("compress", "--uniform", *given, cwd=tmp_path, **with_spandrel)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "run" / "finetuned.safetensors"
    found = spandrel.ModelLoader(device="cpu").load_from_file(path)
    assert found.architecture.id == "Compact" and "8nf" in found.tags
    image = torch.rand(1, 3, 20, 12)
    with torch.no_grad():
        torch.testing.assert_close(found(image), package.load(path)(image).clamp(0, 1))


def test_settings_of_their_own_are_chosen_apart(tmp_path: Path) -> None:
    """RCAN has one number for all features, and its attention follows; the image has none."""
    model = open_network(None, str(saved_weights("RCAN", tmp_path)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    widths = _plan(model, 2, 0.3)
    assert {pair for pair in widths.values() if pair[1] == 16} == {(8, 16)}
    assert {pair for pair in widths.values() if pair[1] == 4} == {(2, 4)}
    assert {pair for pair in widths.values() if pair[1] == 3} == {(3, 3)}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_heads_keep_their_width_as_attention_is_scaled_by_it(tmp_path: Path) -> None:
    model = open_network(None, str(saved_weights("SwinIR", tmp_path)))
    narrower = {name for name, (keep, of) in _plan(model, 2, 0.1).items() if keep < of}
    assert narrower and all(".mlp." in name for name in narrower)
    with pytest.raises(BudgetError, match="uniform widths remove at most"):
        _plan(model, 2, 0.6)


def test_networks_that_spandrel_does_not_know_are_told() -> None:
    with pytest.raises(ModelError, match="leave --uniform out"):
        _plan(open_network("drn_tiny", "none"), 4, 0.3)


def test_two_strategies_are_refused(tmp_path: Path) -> None:
    done = drc("search", "--model", "drn_tiny", "--uniform", "--strategy", "uniform", cwd=tmp_path)
    assert done.returncode == 2
    assert "--uniform is short for --strategy plain, not uniform" in done.stderr
