"""`drc adapt` on LR images that a network trained on bicubic ones has never seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import assert_one_line, drc
from torch.nn import functional as F

import drc as package
from drc.core.errors import DataError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.images import read_image, write_image
from drc.networks.dual import DualModel
from drc.settings import AdaptSettings
from drc.training.losses import chain_loss
from drc.training.objective import TERMS, Objective

SIZE = 256


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hr`, sharp images; `new`, other images subsampled without blur; `test`, more of them."""
    root = tmp_path_factory.mktemp("adapt")
    for name, pairs in (("hr", bundled_pairs()[:3]), ("more", bundled_pairs()[3:])):
        for pair in pairs:
            image = read_image(pair.hr)[:, -SIZE:, -SIZE:]
            (root / name).mkdir(exist_ok=True)
            write_image(root / name / f"{pair.name}.png", image)
    for pair in bundled_pairs("test"):
        (root / "photos").mkdir(exist_ok=True)
        write_image(root / "photos" / f"{pair.name}.png", read_image(pair.hr)[:, :SIZE, :SIZE])
    for source, name in (("more", "new"), ("photos", "test")):
        made = drc("degrade", source, name, "--kernel", "nearest", "--quiet", cwd=root)
        assert made.returncode == 0, made.stderr
    return root


OPTIONS = ["--model", "drn_tiny", "--unpaired", "new/lr_x4", "--data", "hr", "--test-data", "test"]
SHORT = ["--steps", "40", "--batch", "4", "--unpaired-batch", "4", "--patch", "16"]


def test_an_adapted_network_is_better_on_the_new_images(folders: Path) -> None:
    done = drc("adapt", *OPTIONS, *SHORT, "--json", "--output", "run", cwd=folders, timeout=1200)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["after"]["psnr"] > facts["before"]["psnr"] + 0.5
    assert facts["after"]["dual_loss"] < facts["before"]["dual_loss"]
    assert "look" in done.stderr and facts["degradation"]
    network = package.load(folders / "run" / "trained.safetensors")
    again = package.evaluate(network, folders / "test").psnr
    assert again == pytest.approx(facts["after"]["psnr"], abs=1e-3)
    record = json.loads((folders / "run" / "steps.json").read_text())
    assert record["kind"] == "adaptation" and record["steps"]["adapt"]["after"] == facts["after"]


def test_a_resume_ends_as_an_uninterrupted_run(folders: Path, tmp_path: Path) -> None:
    work = shutil.copytree(folders, tmp_path / "work")
    options = [*OPTIONS, "--batch", "2", "--unpaired-batch", "2", "--patch", "16"]
    options += ["--checkpoint-every", "2", "--degradation", "bicubic"]
    (work / "c.yaml").write_text(yaml.safe_dump({"train": {"log_every": 1}}))
    options += ["--config", "c.yaml", "--steps", "5"]
    for name in ("whole", "broken"):
        done = drc("adapt", *options, "--output", name, cwd=work, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    # What a kill after the checkpoint of step 4 leaves.
    shutil.copytree(work / "broken", work / "cut")
    for name in ("trained.safetensors", "dual.safetensors", "last.ckpt"):
        (work / "cut" / name).unlink()
    done = drc("adapt", "--resume", "--run", "cut", cwd=work, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for name in ("trained.safetensors", "dual.safetensors"):
        assert (work / "cut" / name).read_bytes() == (work / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("--model", "drn_tiny"), 2, ("which images? pass --unpaired",)),
        (("--model", "drn_tiny", "--unpaired", "nowhere"), 1, ("nowhere", "no such folder")),
        (("--unpaired", "new/lr_x4"), 2, ("which network?",)),
        (
            ("--model", "drn_tiny", "--unpaired", "new/lr_x4", "--dual-weight", "0"),
            2,
            ("--dual-weight is 0",),
        ),
        (
            ("--model", "drn_tiny", "--unpaired", "new/lr_x4", "--data", "hr", "--patch", "100"),
            1,
            ("100",),
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], code: int, parts: tuple[str, ...], folders: Path
) -> None:
    assert_one_line(drc("adapt", *arguments, cwd=folders), code, *parts)


def test_unpaired_images_count_in_the_dual_loss_alone() -> None:
    """Against the formula, written out; the dual loss weighs all images alike."""
    network = package.create_model("drn_tiny", scale=4).train()
    dual = DualModel(4)
    settings = AdaptSettings(dual_weight=0.5)
    lr, hr, new = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32), torch.rand(3, 3, 8, 8)
    found = dict(
        zip(TERMS, Objective(settings, 255.0, None, dual)(network, lr, hr, new), strict=True)
    )
    images = network(torch.cat((lr, new)))
    back = dual(images[-1])[0]
    expected = F.l1_loss(back, torch.cat((lr, new)))
    torch.testing.assert_close(found["dual"], expected)
    torch.testing.assert_close(found["loss"], found["primal"] + 0.5 * expected)
    alone = Objective(settings, 255.0, None, None)(network, lr, hr)
    torch.testing.assert_close(found["primal"], alone[1])
    torch.testing.assert_close(chain_loss(dual, images, torch.cat((lr, new))), expected)


def test_batches_without_lr_images_are_refused() -> None:
    network = package.create_model("drn_tiny", scale=4)
    pairs = [(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32))]
    with pytest.raises(DataError, match="a batch of unpaired images is not usable"):
        package.adapt(network, pairs, [(torch.rand(1, 3, 8, 8),)], AdaptSettings(steps=1))
    with pytest.raises(UsageError, match="an adaptation has no teacher"):
        package.adapt(network, pairs, [], settings=AdaptSettings(distill=1.0))
