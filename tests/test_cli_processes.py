"""`drc finetune` in several processes; every other command says that it takes one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

from helpers.cli import assert_one_line, drc

import drc as package


def _free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def test_two_processes_recover_together_and_one_reports(finished_run, tmp_path):
    run = shutil.copytree(finished_run.run, tmp_path / "run")
    for name in ("finetuned.safetensors", "last.ckpt", "metrics.jsonl"):
        (run / name).unlink()
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--main_process_port", _free_port(), "-m", "drc"]
    result = subprocess.run(
        [sys.executable, *launch, "finetune", "--run", str(run), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == "finetune"
    assert result.stderr.count("finetune took") == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    package.load(run / "finetuned.safetensors")


def test_other_commands_take_one_process(finished_run, tmp_path):
    result = drc("prune", "--run", finished_run.run, cwd=tmp_path, WORLD_SIZE="2", RANK="0")
    assert_one_line(result, 2, "drc prune runs in one process")
