"""The four steps as separate calls: search, prune, finetune, evaluate.

    python examples/step_by_step.py [--steps N]

Separate calls let you look at the plan, change a setting, or use your own training in between.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import drc
from drc.data.bundled import bundled_pairs
from drc.data.crops import crop_loader


def main() -> None:
    parser = argparse.ArgumentParser(description="Search, prune, finetune and evaluate drn_tiny.")
    parser.add_argument("--steps", type=int, default=20, help="recovery steps")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())

    model, dual = drc.create_model("drn_tiny", scale=4, weights="default", dual=True)
    photos = bundled_pairs("train")
    test = bundled_pairs("test")[:1]

    # 1. Search: how many channels does every group keep? The budget counts multiply-adds here.
    calibration = crop_loader(photos, 4, patch=24, batch=4, steps=4, seed=0)
    search = drc.SearchSettings(budget="macs", patches=16)
    plan = drc.search(model, calibration, 0.4, settings=search, dual=dual)
    plan.save(folder / "plan.yaml")
    budget = plan.budget
    print(f"plan: {budget.before:,} -> {budget.predicted:,} MACs, at most {budget.limit:,}")
    narrowest = min(plan.groups.items(), key=lambda item: item[1].keep / item[1].of)
    print(f"narrowest group: {narrowest[0]}, {narrowest[1].keep} of {narrowest[1].of}")

    # 2. Prune: which channels? Compare criteria by changing `importance`.
    ranking = drc.PruneSettings(importance="dual_taylor")
    pruned = drc.prune(model, plan, calibration, settings=ranking, calibration=search, dual=dual)

    # 3. Finetune: a function from a step to the batches from there on makes resuming exact.
    def batches(start: int):
        return crop_loader(photos, 4, patch=24, batch=4, steps=arguments.steps, seed=0, start=start)

    recovered = drc.finetune(
        pruned,
        batches,
        drc.RecoverySettings(steps=arguments.steps),
        teacher=model,  # the dense network's images are a second target
        dual=dual,
        files=drc.TrainingFiles(folder / "last.ckpt", folder / "metrics.jsonl"),
    )
    drc.save(recovered, folder / "recovered.safetensors", {"made_by": "step_by_step.py"})

    # 4. Evaluate: quality on a photo that no step above has seen, and cost.
    for name, network in (("dense", model), ("pruned", pruned), ("recovered", recovered)):
        quality, cost = drc.evaluate(network, test), drc.complexity(network, lr_size=(96, 96))
        print(f"{name:>9}: {cost.params:>7,} parameters, {cost.macs / 1e9:.2f} GMACs, "
              f"{quality.psnr:.2f} dB, SSIM {quality.ssim:.4f}")  # fmt: skip
    print(f"files: {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}")


if __name__ == "__main__":
    main()
