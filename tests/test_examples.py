"""Every script in examples/ runs as a reader would run it, with few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(p for p in (ROOT / "examples").iterdir() if p.suffix in (".py", ".sh"))
CLUSTER = ROOT / "examples" / "slurm.sh"  # needs a scheduler

# What a script prints when it has done what it is for; every script has an entry.
PRINTS = {
    "blind_test_set.py": (
        "8 images, blurred",
        "(31, 31), sum 1.000",
        "blurred LR, drn_tiny",
        "after 2 steps",
    ),
    "command_line.sh": ("plan.yaml", "params after", "after recovery", "report.json"),
    "compress_from_python.py": ("parameters: 384,361 -> ", "loaded network gives", "image: True"),
    "compress_your_own_network.py": ("blocks.0.0: ", "restored network gives", "image: True"),
    "read_a_report.py": ("drn_tiny x4", "latency_ms", "recovered: True", "finetune: "),
    "step_by_step.py": ("recovered: ", "plan.yaml, recovered.safetensors"),
}


@pytest.mark.parametrize("script", [p for p in SCRIPTS if p != CLUSTER], ids=lambda p: p.name)
def test_example(script, tmp_path):
    interpreter = "bash" if script.suffix == ".sh" else sys.executable
    # The command belongs to this Python, whatever else is installed; nothing is to be downloaded.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    nowhere = "http://127.0.0.1:9"
    environment = {"PATH": path, "TMPDIR": str(tmp_path), "TORCH_HOME": str(tmp_path / "hub")}
    result = subprocess.run(
        [interpreter, str(script), "--steps", "2"],
        cwd=tmp_path,
        env={**os.environ, **environment, "http_proxy": nowhere, "https_proxy": nowhere},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr
    for text in PRINTS[script.name]:
        assert text in result.stdout


def test_the_cluster_script_is_the_one_on_its_page_and_bash_can_read_it():
    subprocess.run(["bash", "-n", CLUSTER], check=True)
    assert CLUSTER.read_text() in (ROOT / "docs" / "many_processes.md").read_text("utf-8")


def test_every_example_is_listed_in_the_documentation():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    for script in SCRIPTS:
        assert f"../examples/{script.name}" in index
