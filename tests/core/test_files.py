"""Writes that meet a full disk, a read-only place or Ctrl-C keep the old file."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drc.core.errors import RunError
from drc.core.files import (
    atomic_write,
    write_bytes,
    write_errors,
    write_json,
    write_text,
    write_yaml,
)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small file system with")
    if done.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "image.png"
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"first")
        assert temporary.parent == target.parent and temporary.suffix == ".png"
        assert not target.exists()
    assert target.read_bytes() == b"first"
    write_bytes(target, b"second")
    assert target.read_bytes() == b"second"
    assert _only(target.parent) == ["image.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_keeps_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(error), atomic_write(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert _only(tmp_path) == ["a.txt"]


def test_what_the_block_raises_is_not_told_of_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError, match="other"), atomic_write(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_bytes()
    with pytest.raises(ConnectionResetError), atomic_write(tmp_path / "a.txt"):
        raise ConnectionResetError
    assert (tmp_path / "a.txt").read_text() == "old" and _only(tmp_path) == ["a.txt"]
    gone = pytest.raises(RunError, match=r"cannot write .*a\.txt: no such file or directory")
    with gone, atomic_write(tmp_path / "a.txt") as temporary:
        temporary.unlink()
    broken = pytest.raises(RunError, match=r"cannot write a\.txt: no space left on device; free")
    with broken, write_errors("a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_killed_process_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    program = (
        "import sys, time; from drc.core.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t:\n"
        "    t.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert target.read_text() == "old"


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_write(target) as one, atomic_write(target) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() in ("one", "other")
    assert _only(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    write_text(tmp_path / "link.txt", "x")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "x"


def test_a_long_name_fits(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250 + ".txt"), "x")
    with pytest.raises(RunError, match="file name too long; choose another place"):
        write_text(tmp_path / ("n" * 300), "x")


def test_a_full_disk_keeps_the_old_file(tmpfs: Path) -> None:
    target = tmpfs / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(RunError) as error:
        write_bytes(target, bytes(200_000))
    assert str(error.value) == (
        f"cannot write {target}: no space left on device; free some space or choose another place"
    )
    assert target.read_bytes() == b"old"
    assert _only(tmpfs) == ["a.bin"]


def test_a_read_only_file_system_keeps_the_old_file(tmpfs: Path) -> None:
    target = tmpfs / "a.bin"
    write_bytes(target, b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    for path in (target, tmpfs / "new" / "b.bin"):
        with pytest.raises(RunError, match="read-only file system; choose a place that can be"):
            write_bytes(path, b"new")
    assert target.read_bytes() == b"old"
    assert _only(tmpfs) == ["a.bin"]


def test_a_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    program = (
        "import resource, signal, sys; from drc.core.files import write_bytes\n"
        "from drc.core.errors import RunError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: write_bytes(sys.argv[1], bytes(20_000))\n"
        "except RunError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {target}: file too large; choose another place\n"
    assert target.read_bytes() == b"old"
    assert _only(tmp_path) == ["a.bin"]


def test_a_parent_that_is_a_file_and_a_target_that_is_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file/a.txt: (not a directory|file exists)"):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="is a directory; that path is a folder"):
        write_text(tmp_path / "folder", "x")
    assert _only(tmp_path) == ["file", "folder"]


def test_a_folder_without_write_permission_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path may lie in a folder closed to others
        _refuse_to_write_in(Path(name))


def _refuse_to_write_in(folder: Path) -> None:
    target = folder / "a.txt"
    write_text(target, "old")
    folder.chmod(0o555)
    program = (
        "import os, sys; from drc.core.files import write_text\n"
        "from drc.core.errors import RunError\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setuid(65534)  # root may write everywhere\n"
        "try: write_text('a.txt', 'new')\n"
        "except RunError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folder.chmod(0o755)
    said = "cannot write a.txt: permission denied; choose a place that can be written\n"
    assert done.stdout == said
    assert target.read_text() == "old"
    assert _only(folder) == ["a.txt"]


def test_a_device_that_is_full_is_no_place_to_write() -> None:
    before = Path("/dev/full").stat()
    with pytest.raises(RunError, match=r"cannot write /dev/full/a\.txt"):
        write_text("/dev/full/a.txt", "x")
    assert Path("/dev/full").stat().st_rdev == before.st_rdev


@pytest.mark.parametrize(
    "content", [{}, {"a": [1, 2.5, None, True, "x"], "b": {"é": 1e-05}}, {"z": 1, "a": 2}]
)
def test_json_and_yaml_round_trip_in_order(tmp_path: Path, content: dict[str, Any]) -> None:
    write_json(tmp_path / "a.json", content)
    write_yaml(tmp_path / "a.yaml", content)
    for found in (
        json.loads((tmp_path / "a.json").read_text("utf-8")),
        yaml.safe_load((tmp_path / "a.yaml").read_text("utf-8")),
    ):
        assert found == content and list(found) == list(content)


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"psnr": 30.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"psnr": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"psnr": 30.0}
