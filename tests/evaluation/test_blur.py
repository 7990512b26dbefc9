"""Estimated blur kernels beside those that the images show, measured and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drc.data.blind_set import build_blind_set
from drc.data.bundled import bundled_pairs
from drc.data.degrade import Degradation
from drc.data.folders import ImagePair, load_pair
from drc.data.images import read_image, to_unit, write_image
from drc.data.matlab import downscale
from drc.evaluation.benchmark import Evaluation, ImageScore, KernelScore, evaluate, score_kernel
from drc.networks.registry import build
from drc.report.collect import Networks, Provenance, collect
from drc.report.pictures import LARGEST_GRID, kernel_grid
from drc.report.text import facts, summary, to_markdown
from drc.store.plan import Budget, Plan, fingerprint
from drc.training.kernel_loss import kernel_target

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 11


class Assumes(nn.Module):
    """Enlarges by repeating pixels, and takes every image to be blurred by the same kernel."""

    scale = 2
    value_range = 1.0
    kernel_size = SIZE

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.kernel = nn.Parameter(kernel)

    def forward(self, lr: Tensor) -> Tensor:
        return self.restore(lr)[0]

    def restore(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        return F.interpolate(lr, scale_factor=2), self.kernel.expand(len(lr), 1, -1, -1)


def single(row: int = SIZE // 2, column: int = SIZE // 2) -> Tensor:
    kernel = torch.zeros(SIZE, SIZE)
    kernel[row, column] = 1
    return kernel


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> list[ImagePair]:
    """Two blurred photos in the layout of DIV2KRK."""
    folder = tmp_path_factory.mktemp("photos")
    for pair in bundled_pairs("test"):
        write_image(folder / f"{pair.name}.png", read_image(pair.hr)[:, 100:200, 100:180])
    return build_blind_set(folder, folder / "blind", Degradation("aniso", 2), seed=3)


def test_the_error_is_the_distance_to_what_the_images_show(blurred: list[ImagePair]) -> None:
    result = evaluate(Assumes(single()), blurred, device="cpu")
    errors = []
    for pair, score in zip(blurred, result.images, strict=True):
        lr, hr = (to_unit(image)[None] for image in load_pair(pair, 2))
        target = kernel_target(downscale(hr, 2, 1.0, rounded=False), lr, SIZE)[0, 0]
        assert score.kernel is not None
        assert torch.equal(score.kernel.target, target)
        assert torch.equal(score.kernel.estimate, single())
        assert score.kernel.error == pytest.approx(float((target - single()).abs().sum()))
        errors.append(score.kernel.error)
    assert result.kernel_error == pytest.approx(sum(errors) / 2)
    plain = evaluate(nn.Upsample(scale_factor=2), blurred, device="cpu")
    assert (plain.psnr, plain.kernel_error) == (result.psnr, None)


def test_the_right_kernel_has_no_error_and_one_beside_it_the_largest() -> None:
    image = read_image(bundled_pairs("test")[0].hr)[:, :64, :80]
    lr = downscale(to_unit(image)[None], 2, 1.0, rounded=False)[0]
    right = score_kernel(single()[None, None], lr, image, 2)
    beside = score_kernel(single(2, 3)[None, None], lr, image, 2)
    assert right is not None and right.error == pytest.approx(0, abs=1e-5)
    assert beside is not None and beside.error == pytest.approx(2, abs=1e-5)
    assert score_kernel(single()[None, None], lr[:, :10], image[:, :20], 2) is None


@pytest.mark.parametrize("options", [{"self_ensemble": True}, {"tile": 32, "overlap": 0}])
def test_views_and_tiles_have_no_kernel_of_the_image(
    blurred: list[ImagePair], options: dict[str, int]
) -> None:
    result = evaluate(Assumes(single()), blurred, device="cpu", **options)
    assert result.kernel_error is None


@pytest.fixture(scope="module")
def networks() -> Networks:
    beside = torch.full((SIZE, SIZE), 1 / SIZE**2)
    return Networks(Assumes(single()), Assumes(single(0, 0)), Assumes(beside))


@pytest.fixture(scope="module")
def plan(networks: Networks) -> Plan:
    budget = Budget(kind="params", ratio=0.3, before=121, limit=121, predicted=121)
    checksum = fingerprint(networks.before)
    given = {"model": "Assumes", "scale": 2, "strategy": "uniform", "groups": {}, "seed": 0}
    return Plan(base_checksum=checksum, budget=budget, **given)


PROVENANCE = Provenance(
    "drc.compress", "as given", "l1", "none", "none", files={"plan": "plan.yaml"}
)


def test_the_report_holds_the_errors_and_the_picture(
    networks: Networks, plan: Plan, blurred: list[ImagePair], tmp_path: Path
) -> None:
    path = tmp_path / "kernels.png"
    options = {"lr_size": (16, 16), "runs": 0, "device": "cpu"}
    report = collect(networks, plan, PROVENANCE, test=blurred, kernels=path, **options)
    errors = report.kernel_error
    assert errors is not None
    named = {"before": networks.before, "pruned": networks.pruned, "after": networks.after}
    for name, network in named.items():
        expected = evaluate(network, blurred, device="cpu").kernel_error
        assert getattr(errors, name) == pytest.approx(expected)
    images = report.data.images
    assert sum(image.kernel_error_after for image in images) / 2 == pytest.approx(errors.after)
    assert report.files == {"plan": "plan.yaml", "blur kernels": str(path)}
    (row,) = [row for row in summary(report).rows if row[0] == "kernel error"]
    assert row[1:3] == (f"{errors.before:.3f}", f"{errors.pruned:.3f}")
    assert "0 to 2" in dict(facts(report))["kernel error"]
    text = to_markdown(report)
    assert "| SSIM after | kernel error before | kernel error after |" in text
    assert f"{images[1].kernel_error_after:.3f} |" in text
    picture = read_image(path)
    assert picture.shape == (3, 2 * 121 + 4, 3 * 121 + 2 * 4)
    # Of the first image the estimate before is white in the middle, that after is white all over.
    assert picture[0, 60, 60] == 255 and picture[0, 0, 0] == 0
    assert picture[0, :121, 125:246].float().mean() == 255


def test_what_was_not_measured_is_left_out(
    networks: Networks, plan: Plan, blurred: list[ImagePair], tmp_path: Path
) -> None:
    path = tmp_path / "kernels.png"
    options = {"lr_size": (16, 16), "runs": 0, "device": "cpu", "kernels": path}
    assert collect(networks, plan, PROVENANCE, test=None, **options).kernel_error is None
    plain = Networks(build("edsr_baseline", 2), build("edsr_baseline", 2))
    report = collect(plain, plan, PROVENANCE, test=blurred[:1], **options)
    assert report.kernel_error is None and "blur kernels" not in report.files
    assert "kernel" not in to_markdown(report)
    assert not path.exists()


def test_small_images_are_left_out_of_the_errors(
    networks: Networks, plan: Plan, tmp_path: Path
) -> None:
    pairs = [(torch.rand(3, side, 20), torch.rand(3, 2 * side, 40)) for side in (9, 16)]
    options = {"lr_size": (16, 16), "runs": 0, "device": "cpu"}
    path = tmp_path / "kernels.png"
    report = collect(networks, plan, PROVENANCE, test=pairs, kernels=path, **options)
    small, large = report.data.images
    assert small.kernel_error_before is None
    assert report.kernel_error is not None
    assert report.kernel_error.before == large.kernel_error_before
    assert read_image(path).shape[1] == 121


def test_a_picture_has_a_limit() -> None:
    kernel = torch.rand(31, 31)
    score = ImageScore("photo", 30.0, 0.9, KernelScore(kernel, kernel))
    many = Evaluation(30.0, 0.9, [score] * (LARGEST_GRID + 5), "photos")
    grid = kernel_grid(many, many)
    assert grid.shape == (3, LARGEST_GRID * 128 - 4, 3 * 128 - 4)
    assert grid.dtype == torch.uint8 and int(grid.max()) == 255
