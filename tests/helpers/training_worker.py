"""A fine-tuning run in a process of its own, for the tests that kill it or start several.

    python tests/helpers/training_worker.py FOLDER [--resume] [--steps N] [--train-dual] [--blind]
        [--signal N --at STEP]

Writes last.ckpt, metrics.jsonl and, when done, result-<rank>.safetensors to FOLDER.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader
from drc.data.degrade import Degradation
from drc.networks.dual import DualModel
from drc.networks.registry import build
from drc.networks.zoo.dcls import DCLS
from drc.settings import RecoverySettings
from drc.training.loop import TrainingFiles, run_training

STEPS = 30
CHECKPOINT_EVERY = 10
WIDTHS = [8, 8] + [16] * 9 + [20] * 9


def main() -> int:
    # A shell that starts the tests in the background makes their children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--train-dual", action="store_true")
    parser.add_argument("--blind", action="store_true", help="a network that estimates kernels")
    parser.add_argument("--signal", type=int, help="what the process sends itself at a step")
    parser.add_argument("--at", type=int, default=0, help="that step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scale, degradation, patch = 4, None, 8
    networks = build("drn_tiny"), build("drn_tiny", widths=WIDTHS), DualModel(4)
    if args.blind:
        scale, degradation, patch = 2, Degradation("aniso", 2), 16
        size = {"features": 16, "blocks": 1, "groups": 1, "kernel_size": 11, "latent": 24}
        networks = DCLS(scale=2, **size), DCLS(scale=2, **size), DualModel(2)
    settings = RecoverySettings(
        steps=args.steps,
        batch=2,
        patch=patch,
        clip=10.0,
        log_every=1,
        checkpoint_every=CHECKPOINT_EVERY,
        train_dual=args.train_dual,
    )

    def batches(start: int) -> torch.utils.data.DataLoader:
        pairs = bundled_pairs("train")[:1]
        size = {"patch": settings.patch, "batch": settings.batch, "steps": settings.steps}
        return crop_loader(pairs, scale, **size, seed=1, start=start, degradation=degradation)

    def send_itself_a_signal(what: str, done: int, total: int, values: dict[str, float]) -> None:
        if args.signal is not None and done == args.at:
            signal.raise_signal(args.signal)

    teacher, student, dual = networks
    try:
        result = run_training(
            student,
            batches,
            teacher=teacher,
            dual=dual,
            settings=settings,
            device="cpu",
            seed=1,
            files=TrainingFiles(
                args.folder / "last.ckpt", args.folder / "metrics.jsonl", args.resume
            ),
            progress=send_itself_a_signal,
        )
    except KeyboardInterrupt:
        return 130
    state = {**result.state_dict(), **{f"dual.{k}": v for k, v in dual.state_dict().items()}}
    save_file(state, args.folder / f"result-{os.environ.get('RANK', '0')}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
