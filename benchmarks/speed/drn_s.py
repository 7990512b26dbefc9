"""Speed of DRN-S at the parameter counts of S30, S50 and S70: our widths beside the published ones.

    python -m benchmarks.speed.drn_s
    python -m benchmarks.speed.drn_s --modes eager,compiled --runs 7

Ours keep no more parameters than the published network and are multiples of what the device likes
(`--round-to`). Weights are initial, which take as long as others, so widths come from the shape of
the network alone (`uniform_inner`) and nothing is said of quality. All networks take turns.
"""

from __future__ import annotations

import drc
from benchmarks.common import cost, parser, write_result
from drc.evaluation.speed import bench

PERCENTS = (30, 50, 70)


def main() -> None:
    given = parser(__doc__, modes=["eager", "channels_last"], round_to=[8, 16], runs=7)
    options = given.parse_args()
    dense = drc.create_model("drn_s")
    networks = {"drn_s": dense}
    for percent in PERCENTS:
        published = drc.create_model(f"drn_s{percent}")
        networks[f"published {percent}"] = published
        for round_to in options.round_to:
            networks[f"ours {percent}, multiples of {round_to}"] = _ours(
                dense, _params(published), round_to
            )
    found = bench(networks, ((96, 96),), options.modes, runs=options.runs)
    timings = [timing for group in found for timing in group]
    rows = [
        {
            "network": name,
            "params": _params(network),
            "mac_ratio": round(cost(dense)["macs"] / cost(network)["macs"], 3),
            **{t.mode: t.speedup and round(t.speedup, 3) for t in timings if t.network == name},
        }
        for name, network in networks.items()
    ]
    for row in rows:
        print(row)
    write_result("drn_s_speed", {"runs": options.runs, "rows": rows})


def _params(network) -> int:
    return sum(p.numel() for p in network.parameters())


def _ours(dense, params: int, round_to: int):
    plan = drc.search(
        dense, [], 1 - params / _params(dense),
        settings=drc.SearchSettings(
            strategy="uniform_inner", round_to=round_to, min_width=16, dual_weight=0
        ),
    )  # fmt: skip
    return drc.prune(dense, plan, settings=drc.PruneSettings(importance="l1"))


if __name__ == "__main__":
    main()
