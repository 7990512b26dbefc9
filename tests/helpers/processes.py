"""Start a program as two processes of one job, with a launcher or by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ROOT = str(Path(__file__).resolve().parents[2])


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def launch(*arguments: str | Path, cwd: Path, timeout: float = 1200) -> subprocess.CompletedProcess:
    """Two processes by torchrun, of one thread each."""
    return subprocess.run(
        [sys.executable, *TORCHRUN, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start_two(*arguments: str | Path, cwd: Path) -> list[subprocess.Popen[str]]:
    """Two processes that nobody watches over; each has its own output."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    fixed = {**os.environ, **job, "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**fixed, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def end_of(
    processes: list[subprocess.Popen[str]], timeout: float = 600
) -> list[subprocess.CompletedProcess[str]]:
    """How they ended; none is left running."""
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    pairs = zip(processes, texts, strict=True)
    return [subprocess.CompletedProcess(p.args, p.returncode, *text) for p, text in pairs]
