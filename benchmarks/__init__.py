"""The scripts behind every figure of the documentation; run from the root of the repository.

    python -m benchmarks.rivals --help

- `rivals`: every method on equal terms, one network at a time;
- `coverage`: which networks can be pruned at all, and what torch-pruning does with them;
- `speed`: of pruned networks in every runtime, of the tool itself, of its loader;
- `papers`: parity with the official networks, our own weights, adaptation without HR images;
- `ablations`: what each part of the refit, of recovery and of rounding is worth;
- `training`: how the weights that ship in the package were made;
- `results`: what was measured, with command, versions and machine; `weights`: trained here;
- `zoo`: the networks of `coverage`; `common`: what the scripts share.
"""
