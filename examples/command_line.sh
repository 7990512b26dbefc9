#!/usr/bin/env bash
# The four commands, one after the other, in a temporary folder.
#
#     bash examples/command_line.sh [--steps N]
#
# `drc` must be on the PATH: activate the environment that it is installed in.
#
# Every command after `drc search` reads the newest run folder under runs/, or the one of --run.
# `drc compress` does all four in one go.
set -euo pipefail

steps=10
if [ "${1:-}" = "--steps" ]; then
  steps=$2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Settings for a quick look; leave them out for a real run. The command line wins over the file.
cat > quick.yaml <<'YAML'
search: {patches: 16, patch: 24}
recovery: {batch: 4, patch: 24}
report: {lr_size: [48, 48], runs: 1}
YAML

# How many channels does every group keep? Makes runs/drn_tiny_x4_<date>-<time>/ with plan.yaml.
drc search --model drn_tiny --ratio 0.3 --config quick.yaml

# Which ones? Writes pruned.safetensors.
drc prune

# Recover the quality. Writes finetuned.safetensors; Ctrl-C here is safe, see --resume.
drc finetune --steps "$steps"

# Measure before and after on photos that were not used above. Writes report.json and report.md.
drc report

ls runs/*/
