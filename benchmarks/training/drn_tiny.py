"""Train the `drn_tiny` weights that ship in the package.

    python -m benchmarks.training.drn_tiny DATA_FOLDER --output drc/networks/pretrained

DATA_FOLDER holds HR images (BSDS400). The last 20 in name order are held out and only validate.
Dual regression loss on the whole pyramid, Adam, cosine, EMA, channels_last; the first 80 % of
the steps run in bfloat16 autocast, which halves their time on a CPU, the rest in float32. The
EMA weights are stored in half precision.
"""

from __future__ import annotations

import json
import math
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.common import HELD_OUT, SCALE, parser
from drc.data.matlab import downscale
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.training.losses import dual_loss, level_loss

PATCH = 32


def read_pyramids(folder: Path) -> list[list[torch.Tensor]]:
    """Every image as uint8 [LR, 2x, HR], each `(3, h, w)`."""
    pyramids = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".png"}):
        image = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())
        height, width = (s // SCALE * SCALE for s in image.shape[:2])
        hr = image[:height, :width].permute(2, 0, 1)[None].float()
        levels = [downscale(hr, SCALE), downscale(hr, 2), hr]
        pyramids.append([level[0].to(torch.uint8) for level in levels])
    return pyramids


def sample(pyramids: list[list[torch.Tensor]], batch: int, rng: np.random.Generator):
    """A batch of aligned, randomly flipped crops, coarse to fine."""
    crops: list[list[torch.Tensor]] = [[], [], []]
    for index in rng.integers(len(pyramids), size=batch):
        levels = pyramids[index]
        top = int(rng.integers(levels[0].shape[1] - PATCH + 1))
        left = int(rng.integers(levels[0].shape[2] - PATCH + 1))
        flips = [dim for dim in (1, 2) if rng.random() < 0.5]
        turn = rng.random() < 0.5
        for level, (crop, factor) in enumerate(zip(levels, (1, 2, 4), strict=True)):
            y, x, size = top * factor, left * factor, PATCH * factor
            crop = crop[:, y : y + size, x : x + size].flip(flips)
            crops[level].append(crop.transpose(1, 2) if turn else crop)
    return [
        torch.stack(level).float().contiguous(memory_format=torch.channels_last) for level in crops
    ]


@torch.no_grad()
def validate(model: torch.nn.Module, pyramids: list[list[torch.Tensor]]) -> float:
    """Mean RGB PSNR over whole held-out images, in dB; for following the training only."""
    values = []
    for lr, _, hr in pyramids:
        sr = model(lr[None].float())[-1].round().clamp(0, 255)[0]
        mse = (sr - hr)[:, 4:-4, 4:-4].square().mean().item()
        values.append(10 * math.log10(255**2 / mse))
    return float(np.mean(values))


def main() -> None:
    given = parser(__doc__, steps=10000, batch=8, lr=1e-3, threads=1, seed=0)
    given.add_argument("data", type=Path)
    given.add_argument("--output", type=Path, required=True)
    args = given.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    pyramids = read_pyramids(args.data)
    training, held_out = pyramids[:-HELD_OUT], pyramids[-HELD_OUT:]

    model = build("drn_tiny", SCALE).train().to(memory_format=torch.channels_last)
    dual = DualModel(SCALE)
    ema = deepcopy(model).eval()
    parameters = [p for p in (*model.parameters(), *dual.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=args.lr)
    warm = min(200, args.steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * s / args.steps)) + 1e-3),
    )
    started = time.time()
    for step in range(1, args.steps + 1):
        lr, _, _ = targets = sample(training, args.batch, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=step < 0.8 * args.steps):
            outputs = [x.float() for x in model(lr)]
            loss = level_loss(outputs, targets)
            loss = loss + 0.1 * dual_loss(dual, outputs, lr, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 50.0)
        optimizer.step()
        schedule.step()
        decay = min(0.999, step / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        if step % 500 == 0 or step == args.steps:
            psnr = validate(ema, held_out)
            rate = step / (time.time() - started)
            print(
                f"step {step} loss {loss.item():.3f} held-out {psnr:.3f} dB {rate:.2f}/s",
                flush=True,
            )
            args.output.mkdir(parents=True, exist_ok=True)
            record = {
                "data": "BSDS400 less its last 20 images",
                "steps": str(step),
                "batch": str(args.batch),
                "lr": str(args.lr),
                "seed": str(args.seed),
                "held_out_psnr_rgb": f"{psnr:.3f}",
            }
            for stem, module in (("drn_tiny_x4", ema), ("drn_tiny_x4_dual", dual)):
                state = {  # the fixed mean shifts stay exact
                    k: (v if "mean" in k else v.half()).contiguous()
                    for k, v in module.state_dict().items()
                }
                save_file(
                    state, args.output / f"{stem}.safetensors", {"training": json.dumps(record)}
                )


if __name__ == "__main__":
    main()
