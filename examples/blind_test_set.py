"""Make a test set for blind super-resolution, and see what unknown blur costs a network.

    python examples/blind_test_set.py [--steps N] [--output FOLDER]

The set has the layout of DIV2KRK: HR images, LR images that are each blurred by a kernel of their
own, and the kernels. `drc degrade` makes the same from a folder. The network is the small one that
is installed with drc; it was trained on bicubic LR images, and some steps on blurred crops begin to
change that. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drc
from drc.data.blind_set import build_blind_set
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.data.images import read_image, write_image

SCALE = 4


class Bicubic(nn.Module):
    """No network at all: what every SR network has to beat."""

    def forward(self, lr: Tensor) -> Tensor:
        return F.interpolate(lr, scale_factor=float(SCALE), mode="bicubic").clamp(0, 1)


def quarters(image: Tensor) -> list[Tensor]:
    return [part for half in image.chunk(2, dim=1) for part in half.chunk(2, dim=2)]


def show(name: str, model: nn.Module, data: Path) -> None:
    result = drc.evaluate(model, data, device="cpu")
    print(f"{name:<24} PSNR {result.psnr:.2f} dB  SSIM {result.ssim:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a blind test set and measure on it.")
    parser.add_argument("--steps", type=int, default=100, help="steps on blurred crops")
    parser.add_argument("--output", type=Path, help="the new folder [default: a temporary one]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        # Any folder of HR images will do; quarters of two photos give eight kernels.
        photos = Path(work) / "photos"
        for pair in bundled_pairs("test"):
            for number, quarter in enumerate(quarters(read_image(pair.hr))):
                write_image(photos / f"{pair.name}_{number}.png", quarter)

        # Setting 2 of the blind SR papers: elongated, uneven kernels of 31x31 pixels.
        blur = Degradation("aniso", SCALE)
        folder = arguments.output or Path(work) / "blind"
        pairs = build_blind_set(photos, folder, blur, seed=0)
        print(f"{len(pairs)} images, {blur.in_words()}")
        with np.load(folder / f"gt_k_x{SCALE}" / "kernel_1.npz") as stored:
            kernel = torch.from_numpy(stored["kernel"])
            print(f"kernel of {stored['source']}: {tuple(kernel.shape)}, sum {kernel.sum():.3f}")

        network = drc.create_model("drn_tiny", scale=SCALE, weights="default")
        show("bicubic LR, drn_tiny:", network, photos)
        show("blurred LR, bicubic:", Bicubic(), folder)
        show("blurred LR, drn_tiny:", network, folder)

        # The same kind of blur on crops of other photos, a kernel of its own for every crop.
        steps = arguments.steps
        loader = crop_loader(
            bundled_pairs("train"), SCALE, patch=24, batch=4, steps=steps, seed=0, degradation=blur
        )
        adapted = drc.finetune(network, loader, drc.RecoverySettings(steps=steps), device="cpu")
        show(f"after {steps} steps:", adapted, folder)


if __name__ == "__main__":
    main()
