"""Compress a registered network in one call, save it, and load it again.

    python examples/compress_from_python.py [--steps N] [--output FILE]

It uses the small network and the photos that are installed with drc: nothing is downloaded.
Twenty recovery steps show how it works; take a few hundred or more for a result.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import drc
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress drn_tiny by 30 % of its parameters.")
    parser.add_argument("--steps", type=int, default=20, help="recovery steps")
    parser.add_argument("--output", type=Path, help="where to save [default: a temporary file]")
    arguments = parser.parse_args()

    # The network on its trained weights.
    model = drc.create_model("drn_tiny", scale=4, weights="default")

    # Any loader of (lr, hr) batches will do; this one cuts random crops out of photos.
    loader = crop_loader(bundled_pairs("train"), scale=4, patch=24, batch=4, steps=16, seed=0)

    result = drc.compress(
        model,
        loader,
        ratio=0.3,  # remove 30 % of the parameters
        search=drc.SearchSettings(patches=16),  # calibration crops; the default is 64
        recovery=drc.RecoverySettings(steps=arguments.steps),
        test=bundled_pairs("test")[:1],  # measure on one photo; "bundled" takes all of them
    )

    before, after = result.report.before, result.report.after
    print(f"parameters: {before.params:,} -> {after.params:,}")
    print(f"MACs:       {before.macs:,} -> {after.macs:,} at LR {result.report.lr_size}")
    print(f"PSNR:       {before.psnr:.2f} -> {after.psnr:.2f} dB")

    # A safetensors file: tensors and a JSON header, no pickle.
    path = arguments.output or Path(tempfile.mkdtemp()) / "drn_tiny_30.safetensors"
    result.save(path)
    loaded = drc.load(path)

    # drc's networks have a declared range: 0..255 for DRN. The last image of the pyramid is SR.
    image = torch.rand(1, 3, 32, 32) * 255
    with torch.no_grad():
        same = torch.equal(loaded(image)[-1], result.model(image)[-1])
    print(f"saved to {path}; loaded network gives the same image: {same}")


if __name__ == "__main__":
    main()
