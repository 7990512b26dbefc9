"""Compress a network that drc does not know: any nn.Module from LR images to SR images.

    python examples/compress_your_own_network.py [--steps N]

The network, its training loop and its DataLoader are plain PyTorch. drc only meets them in
`drc.compress`, `result.save` and `drc.apply`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import drc
from drc.data.bundled import bundled_pairs

SCALE, CROP = 2, 48


class MySR(nn.Module):
    """Residual blocks between two convolutions, on top of a bicubic image; values in 0..1.

    A network in another range says so with an attribute: `self.value_range = 255.0`.
    """

    def __init__(self, channels: int = 24, blocks: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, 2 * channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * channels, channels, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.tail = nn.Conv2d(channels, 3 * SCALE**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        for block in self.blocks:
            features = features + block(features)
        detail = F.pixel_shuffle(self.tail(features), SCALE)
        return detail + F.interpolate(x, scale_factor=SCALE, mode="bicubic")


def make_loader() -> DataLoader:
    """Batches `(lr, hr)` in 0..1 from the bundled training photos."""
    crops = []
    for pair in bundled_pairs("train"):
        photo = torch.from_numpy(np.array(Image.open(pair.hr).convert("RGB"))).permute(2, 0, 1)
        tiles = photo.unfold(1, CROP, CROP).unfold(2, CROP, CROP)
        crops.append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, CROP, CROP))
    hr = torch.cat(crops).float() / 255
    lr = F.interpolate(hr, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)
    shuffle = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(lr, hr), batch_size=8, shuffle=True, generator=shuffle)


def train(model: nn.Module, loader: DataLoader, steps: int) -> None:
    """Your own training, which came before; here a short one."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    for _, (lr, hr) in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        F.l1_loss(model(lr), hr).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress a network of one's own.")
    parser.add_argument("--steps", type=int, default=40, help="training and recovery steps")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model, loader = MySR(), make_loader()
    train(model, loader, arguments.steps)

    result = drc.compress(
        model,
        loader,
        ratio=0.3,
        # No dual model is given, so a small one is fitted first.
        search=drc.SearchSettings(patches=16, dual_steps=20),
        recovery=drc.RecoverySettings(steps=arguments.steps),
        test=bundled_pairs("test")[:1],
    )
    before, after = result.report.before, result.report.after
    print(f"parameters: {before.params:,} -> {after.params:,}")
    print(f"PSNR:       {before.psnr:.2f} -> {after.psnr:.2f} dB")
    for name, width in result.plan.groups.items():
        print(f"  {name}: {width.keep} of {width.of} channels")

    # The file says which channels were kept. Your class makes the dense network again, and
    # drc.apply cuts and fills it. drc.load is for networks that drc can build by itself.
    path = Path(tempfile.mkdtemp()) / "my_sr_30.safetensors"
    result.save(path)
    restored = drc.apply(MySR(), path)

    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        same = torch.equal(restored(image), result.model(image))
    print(f"saved to {path}; restored network gives the same image: {same}")


if __name__ == "__main__":
    main()
