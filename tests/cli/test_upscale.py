"""`drc upscale` as users run it: files, folders, bad images, Ctrl-C, videos."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
import torch
from helpers.cli import DRC, assert_one_line, drc, interrupt
from helpers.onnx_files import ConvShuffle, Folded, on_extended, write_onnx
from PIL import Image
from typer.testing import CliRunner

from drc.cli.app import app
from drc.core.errors import DataError, UsageError
from drc.data.bundled import bundled_pairs
from drc.data.folders import load_pair
from drc.data.images import read_image, write_image
from drc.data.photo_files import read_photo
from drc.data.video import read_frames
from drc.evaluation.benchmark import evaluate
from drc.evaluation.image import psnr_y
from drc.exporters.run import export
from drc.networks.weights import create_model
from drc.store.networks import save
from drc.store.run_folder import RunFolder
from drc.upscaling import video
from drc.upscaling.enlarge import Enlarger
from drc.upscaling.outputs import Naming, plan_outputs

DRN = ("--model", "drn_tiny", "--device", "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a.png`, `b.jpg` and `inner/c.png`: parts of a real LR photo."""
    folder = tmp_path_factory.mktemp("upscale") / "photos"
    (folder / "inner").mkdir(parents=True)
    lr = load_pair(bundled_pairs("test")[0], 4)[0]
    write_image(folder / "a.png", lr[:, :24, :32])
    write_image(folder / "b.jpg", lr[:, 30:50, 40:70])
    write_image(folder / "inner" / "c.png", lr[:, 40:64, 20:52])
    return folder


def here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`drc arguments` in this process, which is where most of the time of a new one goes."""
    with chdir(cwd):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): Image.open(path).size for path in files}


def test_an_image_is_what_evaluate_measures(tmp_path):
    pair = bundled_pairs("test")[0]
    lr, hr = load_pair(pair, 4)
    write_image(tmp_path / "lr.png", lr)
    result = drc("upscale", "lr.png", "sr.png", *DRN, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = evaluate(create_model("drn_tiny", weights="default"), [pair], device="cpu")
    assert psnr_y(read_image(tmp_path / "sr.png"), hr, 4) == measured.psnr
    facts = json.loads(result.stdout)
    expected = {"network": "drn_tiny", "scale": 4, "tile": "auto", "total": 1, "written": 1}
    assert expected.items() <= facts.items()
    assert (facts["outputs"], facts["failed"]) == (["sr.png"], [])
    assert facts["megapixels"] == round(300 * 448 / 1e6, 3)
    assert facts["megapixels_per_second"] > 0

    result = here("upscale", "lr.png", "sr.png", *DRN, cwd=tmp_path)
    assert_one_line(result, 2, "sr.png is there already", "--overwrite")


def test_a_folder_and_what_is_done_already(photos, tmp_path):
    result = drc("upscale", photos, "out", *DRN, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "written: 3" in result.stdout and "failed: 0" in result.stdout
    expected = {"a.png": (128, 96), "b.jpg": (120, 80), "inner/c.png": (128, 96)}
    assert sizes(tmp_path / "out") == expected

    result = here("upscale", photos, "out", *DRN, cwd=tmp_path)
    assert_one_line(result, 2, "out is not empty", "--resume", "--overwrite")

    made = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in expected}
    (tmp_path / "out" / "a.png").unlink()
    Image.new("RGB", (64, 48)).save(tmp_path / "out" / "inner" / "c.png")  # of a network of x2
    result = here("upscale", photos, "out", *DRN, "--resume", "--quiet", "--json", cwd=tmp_path)
    assert result.returncode == 1
    facts = json.loads(result.stdout)
    assert (facts["written"], facts["present"]) == (1, 1)
    assert [entry["image"] for entry in facts["failed"]] == [str(photos / "inner" / "c.png")]
    assert "64x48, which is not x4" in facts["failed"][0]["reason"]
    assert (tmp_path / "out" / "b.jpg").stat().st_mtime_ns == made["b.jpg"]

    for name in ("a.png", "b.jpg"):  # which another program has cut
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:-300])
    result = here("upscale", photos, "out", *DRN, "--resume", "--json", cwd=tmp_path)
    reasons = [entry["reason"] for entry in json.loads(result.stdout)["failed"]]
    assert [reason.split(" (")[0] for reason in reasons[:2]] == [
        "out/a.png: unreadable image", "out/b.jpg: unreadable image",
    ]  # fmt: skip

    options = ["--overwrite", "--format", "webp", "--suffix", "_x4", "--self-ensemble"]
    result = here("upscale", photos, "out", *DRN, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sizes(tmp_path / "out")["inner/c_x4.webp"] == (128, 96)


def test_bad_images_are_named_and_the_others_written(photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "in")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "text.jpg").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    result = drc("upscale", "in", "out", *DRN, "--quiet", cwd=tmp_path)
    assert result.returncode == 1
    assert "written: 3" in result.stdout and "failed: 3" in result.stdout
    lines = result.stderr.splitlines()
    for name in ("cut.png", "text.jpg", "float.tif"):
        assert sum(line.startswith(f"skipped in/{name}: ") for line in lines) == 1
    told = "error: 3 of 6 images could not be used, as said above; the others are there"
    assert lines[-1] == told
    assert sorted(sizes(tmp_path / "out")) == ["a.png", "b.jpg", "inner/c.png"]


def test_a_bad_image_alone(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    result = here("upscale", "text.jpg", "out.jpg", *DRN, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "skipped text.jpg: not an image, or its header is damaged",
        "error: 1 of 1 images could not be used, as said above; nothing is written",
    ]


def test_what_is_lost_is_told(photos, tmp_path):
    levels = np.asarray(Image.open(photos / "a.png"))
    deep = levels.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", np.moveaxis(deep, -1, 0), photometric="rgb")
    values = " ".join(str(value) for value in deep.ravel())
    (tmp_path / "plain.ppm").write_text(f"P3 32 24 65535 {values}")
    Image.fromarray(levels).convert("RGBA").save(tmp_path / "clear.png")
    others = [Image.fromarray(levels[::-1]), Image.fromarray(levels[:, ::-1])]
    for name in ("moving.gif", "moving.webp", "pages.tif"):
        Image.fromarray(levels).save(tmp_path / name, save_all=True, append_images=others)
    tifffile.imwrite(tmp_path / "deep_pages.tif", np.stack([deep, deep]), photometric="rgb")
    for name, out, told in (
        ("deep.tif", "deep.png", ""),
        ("plain.ppm", "plain.png", "plain.ppm: read in 8 bits of the 16 that it holds\n"),
        ("deep.tif", "x.jpg", "x.jpg: this format holds no 16 bits, left out\n"),
        ("clear.png", "clear.jpg", "clear.jpg: this format holds no alpha, left out\n"),
        ("moving.gif", "g.png", "moving.gif: the first of 3 frames or pages is taken\n"),
        ("moving.webp", "w.png", "moving.webp: the first of 3 frames or pages is taken\n"),
        ("pages.tif", "p.png", "pages.tif: the first of 3 frames or pages is taken\n"),
        ("deep_pages.tif", "d.png", "deep_pages.tif: the first of 2 frames or pages is taken\n"),
    ):
        result = here("upscale", name, out, *DRN, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, told)
    assert read_photo(tmp_path / "deep.png").white == 65535
    assert read_photo(tmp_path / "plain.png").white == 255
    names = ("deep.png", "plain.png", "p.png", "d.png")
    first, *others = (read_image(tmp_path / name) for name in names)
    assert all(torch.equal(first, other) for other in others)


def test_an_interrupted_folder_goes_on(photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        shutil.copy(photos / "a.png", folder / f"{number:02d}.png")
    out = tmp_path / "out"
    begun = lambda: out.is_dir() and any(p.stem == "01" for p in out.iterdir())  # noqa: E731
    result = interrupt(["upscale", "in", "out", *DRN, "--tile", "64"], tmp_path, begun)
    done = len(sizes(out))
    assert 0 < done < 12
    assert_one_line(
        result, 130, f"{done} of 12 images are done",
        "drc upscale in out --model drn_tiny --device cpu --tile 64 --resume", start="interrupted",
    )  # fmt: skip
    again = result.stderr.rpartition("go on with: drc ")[2].split()
    result = drc(*again, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["present"], facts["written"]) == (done, 12 - done)
    equal = {path.read_bytes() for path in out.iterdir()}
    assert len(list(out.iterdir())) == 12 and len(equal) == 1


def test_networks_of_files_and_runs(photos, tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    network = create_model("drn_tiny", weights="default")
    save(network, tmp_path / "saved.safetensors")
    config = {"model": "drn_tiny"}
    run = RunFolder.create(tmp_path / "runs" / "first", "drn_tiny", 4, config)
    save(network, run.pruned_path)
    run.record("prune", {"finished": True})
    trained = RunFolder.create(tmp_path / "runs" / "then", "drn_tiny", 4, config, "training")
    made = {}
    for name, options in {
        "onnx": ["--weights", "x.onnx"],
        "saved": ["--weights", "saved.safetensors"],
        "run": ["--run", run.path],
    }.items():
        result = here("upscale", photos / "a.png", f"{name}/", *options, "--json", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        made[name] = json.loads(result.stdout)
    assert sizes(tmp_path / "onnx") == {"a.png": (64, 48)}
    assert sizes(tmp_path / "saved") == sizes(tmp_path / "run") == {"a.png": (128, 96)}
    assert made["run"]["network"] == str(run.pruned_path)
    assert (made["onnx"]["network"], made["onnx"]["scale"]) == ("x.onnx", 2)

    result = here("upscale", photos / "a.png", "newest.png", cwd=tmp_path)
    assert_one_line(result, 1, "then holds no network yet (trained.safetensors)")
    save(network, trained.trained_path)
    result = here("upscale", photos / "a.png", "newest.png", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["network"] == "runs/then/trained.safetensors"
    save(network, run.finetuned_path)
    run.record("finetune", {"finished": True})
    result = here("upscale", photos / "a.png", "x.tif", "--run", run.path, "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["network"] == str(run.finetuned_path)


def test_an_exported_network_that_takes_even_sides_alone(tmp_path):
    network = Folded().eval()
    export(network, tmp_path / "folded.onnx", runs=0)
    lr = load_pair(bundled_pairs("test")[0], 4)[0][:, :, :111]  # 75x111
    write_image(tmp_path / "lr.png", lr)
    for out, tile in (("whole.png", "0"), ("tiles.png", "64")):
        options = ["--weights", "folded.onnx", "--tile", tile, "--json"]
        result = drc("upscale", "lr.png", out, *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        made = read_image(tmp_path / out).permute(1, 2, 0).int().numpy()
        assert np.abs(made - on_extended(network, lr, 2)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["none.png", "x.png", *DRN], 1, "none.png: no such file or folder"),
        (["a.png", "x.png"], 1, "no run in runs/"),
        (["a.png", "x.png", *DRN, "--tile", "12"], 2, "a tile of 12 has no room"),
        (["a.png", "x.png", *DRN, "--tile", "many"], 2, "--tile is 'many'"),
        (["a.png", "x.png", *DRN, "--run", "runs/x"], 2, "leave --model and --weights out"),
        (["a.png", "x.png", *DRN, "--scale", "3"], 2, "3"),
        (["a.png", "x.png", "--weights", "x.onnx", "--amp", "bf16"], 2, "stands alone"),
        (["a.png", "x.png", *DRN, "--device", "gpu"], 2, "'gpu' is not a device"),
        (["empty", "out", *DRN], 1, "no images found"),
    ],
)
def test_what_cannot_be_done(photos, tmp_path, arguments, code, part):
    shutil.copy(photos / "a.png", tmp_path)
    (tmp_path / "empty").mkdir()
    result = here("upscale", *arguments, cwd=tmp_path)
    assert_one_line(result, code, part)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "empty"]


def test_names_of_outputs(photos, tmp_path):
    def targets(source: Path, out: str, *naming: str) -> list[str]:
        outputs = plan_outputs(source, out, Naming(*naming), False, False)
        return [str(output.target) for output in outputs]

    assert targets(photos, "new") == ["new/a.png", "new/b.jpg", "new/inner/c.png"]
    assert targets(photos, "new", "jpg", "_2")[0] == "new/a_2.jpg"
    assert targets(photos / "b.jpg", "new/", None, "_2") == ["new/b_2.jpg"]
    assert targets(photos / "b.jpg", str(tmp_path)) == [str(tmp_path / "b.jpg")]
    assert targets(photos / "b.jpg", "c.tif", "tiff") == ["c.tif"]
    gif = tmp_path / "x.gif"
    Image.new("L", (4, 4)).save(gif)
    assert targets(gif, "new/") == ["new/x.png"]
    assert targets(photos, "new.png/")[0] == "new.png/a.png"
    for arguments, part in (
        ((photos, str(photos)), "folder of the inputs"),
        ((photos, str(gif)), "is a file"),
        ((photos / "a.png", str(photos / "a.png")), "its own input"),
        ((photos / "a.png", str(photos) + "/"), "its own input"),
        ((photos, "new.png"), "new.png is the name of a file"),
        ((photos, "new.mp4"), "new.mp4 is the name of a file"),
        ((photos / "a.png", f"{gif}/"), "is a file; name another folder"),
        ((photos / "a.png", "new.mp4"), r"a\.png is no video by its name; videos are \.avi, "),
        ((photos / "a.png", "new/x.y"), "images are written as"),
        ((photos / "a.png", "new/x.png", "jpg"), "not that of new/x.png"),
        ((photos, "new", "bmp"), "no image format is called 'bmp'"),
        ((photos, "new", None, "/x"), "no part of a file name"),
    ):
        with pytest.raises(UsageError, match=part):
            targets(*arguments)
    shutil.copytree(photos, tmp_path / "twice")
    shutil.copy(photos / "a.png", tmp_path / "twice" / "b.png")
    with pytest.raises(UsageError, match=r"b\.jpg and .*b\.png would both become new/b\.webp"):
        targets(tmp_path / "twice", "new", "webp")
    with pytest.raises(UsageError, match="pass one"):
        plan_outputs(photos, "new", Naming(), True, True)
    with pytest.raises(DataError, match="no such file"):
        targets(photos / "none", "new")


def test_outputs_inside_the_folder_of_inputs_are_no_inputs(photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "in")
    shutil.copytree(photos, folder / "x4")
    (folder / ".hidden.png").write_text("left by another program")
    outputs = plan_outputs(folder, str(folder / "x4"), Naming(), True, False)
    assert [str(output.source.relative_to(folder)) for output in outputs] == [
        "a.png",
        "b.jpg",
        "inner/c.png",
    ]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 40x30 that get lighter, with sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=24, options={"crf": "4"})
        picture.width, picture.height, picture.pix_fmt = 40, 30, "yuv420p"
        sound = out.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for number in range(6):
            levels = np.full((30, 40, 3), (200, 40 + 20 * number, 80), np.uint8)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        out.mux(picture.encode())
        wave = np.sin(np.arange(11025) / 16).astype(np.float32)[None]
        tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        tone.sample_rate = 44100
        out.mux(sound.encode(tone))
        out.mux(sound.encode())
    return path


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [frame.time for frame in file.decode(video=0)]


def test_a_video_keeps_its_frames_times_colours_and_sound(film, tmp_path):
    plain = ConvShuffle()  # repeats the pixels, so that the coding of colours blurs nothing
    torch.nn.init.zeros_(plain.conv.weight)
    write_onnx(tmp_path / "x.onnx", plain)
    result = here("upscale", film, "out.mp4", "--weights", "x.onnx", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["written"] == 6
    made = frames(tmp_path / "out.mp4")
    assert len(made) == 6 and made[0].shape == (60, 80, 3)
    for before, after in zip(frames(film), made, strict=True):
        expected = before.repeat(2, 0).repeat(2, 1).astype(int)
        assert np.abs(expected - after).max() < 5
    with av.open(str(film)) as old, av.open(str(tmp_path / "out.mp4")) as new:
        sounds = [[bytes(p) for p in file.demux(audio=0) if p.size] for file in (old, new)]
    assert sounds[0] == sounds[1] and len(sounds[0]) > 5
    times = [
        [f.time for f in av.open(str(p)).decode(video=0)] for p in (film, tmp_path / "out.mp4")
    ]
    assert times[0] == times[1]


def test_a_video_becomes_a_folder_of_frames(film, tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    options = ["--weights", "x.onnx", "--json"]
    assert here("upscale", film, "frames/", *options, cwd=tmp_path).returncode == 0
    assert list(sizes(tmp_path / "frames").values()) == [(80, 60)] * 6
    (tmp_path / "frames" / "frame_000003.png").unlink()
    result = here("upscale", film, "frames", *options, "--resume", cwd=tmp_path)
    assert json.loads(result.stdout)["outputs"] == ["frames/frame_000003.png"]
    result = here("upscale", film, "frames", *options, cwd=tmp_path)
    assert_one_line(result, 2, "frames is not empty")
    result = here("upscale", film, "frames", *options, "--resume", "--overwrite", cwd=tmp_path)
    assert_one_line(result, 2, "--resume leaves existing outputs and --overwrite replaces them")
    (tmp_path / "bad.mp4").write_bytes(film.read_bytes()[:300])
    result = here("upscale", "bad.mp4", "new.mp4", "--weights", "x.onnx", cwd=tmp_path)
    assert_one_line(result, 1, "bad.mp4: unreadable video")
    assert not (tmp_path / "new.mp4").exists()


def test_frames_that_are_there_are_looked_at(film, tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    options = ["--weights", "x.onnx", "--json"]
    assert here("upscale", film, "out/", *options, cwd=tmp_path).returncode == 0
    made = {path: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())}
    names = list(made)
    Image.new("RGB", (160, 120)).save(names[1])  # of a network of x4
    names[2].unlink()
    names[3].write_bytes(made[names[3]][:-20])
    names[4].write_text("no image")
    result = here("upscale", film, "out", *options, "--resume", "--quiet", cwd=tmp_path)
    assert result.returncode == 1
    facts = json.loads(result.stdout)
    assert [facts[name] for name in ("total", "written", "present")] == [6, 1, 2]
    assert facts["outputs"] == ["out/frame_000003.png"]
    assert [entry["image"] for entry in facts["failed"]] == [
        f"out/frame_{number:06d}.png" for number in (2, 4, 5)
    ]
    reasons = [entry["reason"] for entry in facts["failed"]]
    assert reasons[0] == (
        f"out/frame_000002.png is there already, 160x120, which is not x2 of frame 2 of {film}; "
        "remove it, or pass --overwrite in place of --resume"
    )
    assert "out/frame_000004.png: unreadable image" in reasons[1]
    assert "out/frame_000005.png: not an image" in reasons[2]
    lines = result.stderr.splitlines()
    assert lines[:3] == [f"skipped {reason}" for reason in reasons]
    assert lines[3].startswith("error: 3 of 6 frames could not be used")
    assert names[2].read_bytes() == made[names[2]] and names[1].stat().st_size < 2000


def still_film(path: Path, width: int, height: int, sound: str | None = None) -> None:
    """Two grey frames, without loss, and a silent sound."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("ffv1", rate=24)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        streams = [picture]
        if sound is not None:
            streams.append(out.add_stream(sound, rate=48000))
            streams[1].layout, streams[1].format = "mono", "s16"
        for _ in range(2):
            levels = np.full((height, width, 3), 128, np.uint8)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        if sound is not None:
            silence = np.zeros((1, 960), np.int16)
            tone = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            tone.sample_rate = 48000
            out.mux(streams[1].encode(tone))
        for stream in streams:
            out.mux(stream.encode())


def test_what_is_wrong_with_the_output_of_a_video_is_told_of_it(film, tmp_path, monkeypatch):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    (tmp_path / "file").write_text("")
    still_film(tmp_path / "wide.mkv", 8200, 2)

    def refused(source: Path | str, out: str, *parts: str) -> None:
        result = here("upscale", source, out, "--weights", "x.onnx", cwd=tmp_path)
        assert_one_line(result, 1, f"error: cannot write {out}: ", *parts)
        assert not (tmp_path / out).exists()

    def never(*_: object) -> None:
        raise AssertionError("a frame is enlarged")

    with monkeypatch.context() as patch:
        patch.setattr(Enlarger, "__call__", never)
        advice = "name a video of another kind, or a folder for the frames"
        refused("wide.mkv", "out.mp4", "libx264 takes no pictures of 16400x4 (", advice)
        refused("wide.mkv", "file/out.mp4", "choose another place")
        patch.setattr(video, "_USUAL_CODEC", ("no_such_encoder", {}))
        refused(film, "out.mp4", "this FFmpeg does not encode it by no_such_encoder", advice)
        patch.setattr(video, "_CODECS", {".webm": ("libx264", {})})
        refused(film, "out.webm", "this FFmpeg does not encode it by libx264", advice)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["file", "wide.mkv", "x.onnx"]


def test_a_video_whose_frames_change_size_becomes_a_folder_alone(tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    with av.open(str(tmp_path / "in.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for number, (width, height) in enumerate([(48, 32), (64, 48)]):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
            encoder.time_base = Fraction(1, 24)
            levels = np.full((height, width, 3), 128, np.uint8)
            picture = av.VideoFrame.from_ndarray(levels, format="rgb24").reformat(format="yuvj420p")
            picture.pts, picture.time_base = number, encoder.time_base
            for packet in [*encoder.encode(picture), *encoder.encode(None)]:
                packet.stream = stream
                out.mux(packet)
    result = here("upscale", "in.avi", "out.mp4", "--weights", "x.onnx", cwd=tmp_path)
    assert_one_line(result, 1, "in.avi: its frames change from 48x32 to 64x48", "name a folder")
    assert not (tmp_path / "out.mp4").exists()
    result = here("upscale", "in.avi", "out/", "--weights", "x.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(sizes(tmp_path / "out").values()) == [(96, 64), (128, 96)]


def test_two_films_joined_become_a_folder_alone(tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    still_film(tmp_path / "one.mkv", 32, 24)
    (tmp_path / "two.mkv").write_bytes((tmp_path / "one.mkv").read_bytes() * 2)
    result = here("upscale", "two.mkv", "out.mp4", "--weights", "x.onnx", cwd=tmp_path)
    assert_one_line(result, 1, "cannot write out.mp4: ", "their times go back; name a folder")
    result = here("upscale", "two.mkv", "out/", "--weights", "x.onnx", cwd=tmp_path)
    assert result.returncode == 0 and len(sizes(tmp_path / "out")) == 4


def test_a_full_disk_is_told_of_the_output(film, tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    command = shlex.join([*DRC, "upscale", str(film), "out.mkv", "--weights", "x.onnx"])
    result = subprocess.run(  # files of more than 1 KiB are refused, as by a disk that is full
        ["bash", "-c", f"ulimit -f 1; {command}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert_one_line(result, 1, "cannot write out.mkv: file too large; choose another place")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_sound_that_the_new_file_does_not_hold_is_left_out(tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    still_film(tmp_path / "in.mkv", 32, 24, "libopus")
    for out, told in (("out.mkv", ""), ("out.mov", ".mov files hold no opus sound, left out\n")):
        result = here("upscale", "in.mkv", out, "--weights", "x.onnx", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, told)
        assert frames(tmp_path / out)[0].shape == (48, 64, 3)
        with av.open(str(tmp_path / out)) as file:
            assert len(file.streams.audio) == (out == "out.mkv")


def test_a_file_of_sound_alone_is_no_video(film, tmp_path):
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    with av.open(str(film)) as source, av.open(str(tmp_path / "tone.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    result = here("upscale", "tone.mp4", "out.mp4", "--weights", "x.onnx", cwd=tmp_path)
    assert_one_line(result, 1, "tone.mp4: there is no video in this file")


def test_a_turned_video_is_written_upright(film, tmp_path):
    straight = b"".join(n.to_bytes(4, "big") for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    turned = b"".join(
        n.to_bytes(4, "big") for n in (0, 65536, 0, (1 << 32) - 65536, 0, 0, 0, 0, 1 << 30)
    )
    data = film.read_bytes()
    place = data.index(straight, data.index(b"tkhd"))
    (tmp_path / "turned.mp4").write_bytes(data[:place] + turned + data[place + len(straight) :])
    write_onnx(tmp_path / "x.onnx", ConvShuffle())
    result = here("upscale", "turned.mp4", "out.mp4", "--weights", "x.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert frames(tmp_path / "out.mp4")[0].shape == (80, 60, 3)
    assert read_frames(tmp_path / "turned.mp4")[0].shape == (3, 40, 30)  # as adaptation sees it
