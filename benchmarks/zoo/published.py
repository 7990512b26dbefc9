"""The 42 architectures that spandrel registers, at default or published settings.

Weights are random: what is measured here is structure. Where an architecture has a published
light version it is the one taken.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Entry:
    """How to build one network, and the inputs it needs if not one RGB image.

    Attributes:
        name: of the network.
        build: makes it, with random weights.
        inputs: makes the arguments of its forward; None leaves them to drc.
        kind: `spandrel`, `drc` or `hand-made`.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any] | None = None
    kind: str = "spandrel"


@dataclass(frozen=True)
class _Published:
    package: str
    cls: str
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Any] | None = None

    def entry(self) -> Entry:
        return Entry(self.package, self._build, self.inputs)

    def _build(self) -> nn.Module:
        import_torchvision_without_its_kernels()
        module = importlib.import_module(f"spandrel.architectures.{self.package}")
        torch.manual_seed(0)
        return getattr(module, self.cls)(**self.settings).eval()


_KEEP: list[Any] = []


def import_torchvision_without_its_kernels() -> None:
    """Declare the two ops torchvision insists on, so that it loads beside a CPU-only torch.

    Of use to benchmarks and tests only; harmless where torchvision is whole.
    """
    if _KEEP:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(f"nms{boxes}")
        library.define(f"qnms{boxes}")
        _KEEP.append(library)


def _image(channels: int, side: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def _image_and_mask() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:32, 16:32] = 1
    return _image(3, 64)(), mask


_SIX = [6] * 6
_PUBLISHED = (
    _Published("ATD", "ATD", {
        "embed_dim": 48, "num_heads": (4,) * 4, "window_size": 16, "category_size": 128,
        "reducted_dim": 8, "convffn_kernel_size": 7, "mlp_ratio": 1.0, "upscale": 4,
        "upsampler": "pixelshuffledirect",
    }),
    _Published("AuraSR", "AuraSR", {
        "dim": 64, "image_size": 256, "input_image_size": 64,
        "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4},
        "skip_connect_scale": 0.4,
    }),
    _Published("CRAFT", "CRAFT"),
    _Published("Compact", "Compact"),
    _Published("DAT", "DAT", {
        "embed_dim": 60, "split_size": [8, 32], "depth": [18], "num_heads": [6],
        "expansion_factor": 2.0, "upscale": 4, "upsampler": "pixelshuffledirect",
    }),
    _Published("DCTLSA", "DCTLSA"),
    _Published("DITN", "DITN"),
    _Published("DRCT", "DRCT", {"upscale": 4, "upsampler": "pixelshuffle"}),
    _Published("DRUNet", "DRUNet", {"in_nc": 4, "out_nc": 3}),
    _Published("DnCNN", "DnCNN", {"in_nc": 3, "out_nc": 3, "nb": 20}),
    _Published("ESRGAN", "ESRGAN"),
    _Published("FBCNN", "FBCNN"),
    _Published("FDAT", "FDAT"),
    _Published("FFTformer", "FFTformer"),
    _Published("GFPGAN", "GFPGAN", {}, _image(3, 512)),
    _Published("GRL", "GRL", {
        "embed_dim": 64, "depths": [4] * 4, "num_heads_window": [2] * 4,
        "num_heads_stripe": [2] * 4, "mlp_ratio": 2.0, "upscale": 4,
        "upsampler": "pixelshuffledirect", "local_connection": True,
        "window_size": 8, "stripe_size": [16, 16], "anchor_window_down_factor": 2,
    }),
    _Published("HAT", "HAT", {
        "embed_dim": 144, "depths": _SIX, "num_heads": _SIX, "window_size": 16,
        "compress_ratio": 24, "squeeze_factor": 24, "mlp_ratio": 2, "upscale": 4,
    }),
    _Published("HVICIDNet", "HVICIDNet"),
    _Published("IPT", "IPT", {"scale": [4]}, _image(3, 48)),
    _Published("KBNet", "KBNet_s"),
    _Published("LaMa", "LaMa", {"in_nc": 4}, _image_and_mask),
    _Published("MMRealSR", "MMRealSR", {"num_in_ch": 3, "num_out_ch": 3}),
    _Published("MixDehazeNet", "MixDehazeNet"),
    _Published("MoESR", "MoESR"),
    _Published("MoSR", "MoSR"),
    _Published("NAFNet", "NAFNet", {
        "width": 32, "middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8],
        "dec_blk_nums": [2, 2, 2, 2],
    }),
    _Published("OmniSR", "OmniSR", {"block_num": 1, "res_num": 5}),
    _Published("PLKSR", "PLKSR"),
    _Published("RCAN", "RCAN"),
    _Published("RGT", "RGT", {
        "depth": [6] * 6, "num_heads": [6] * 6, "mlp_ratio": 2.0, "upscale": 4,
        "split_size": [8, 32],
    }),
    _Published("RealCUGAN", "UpCunet2x"),
    _Published("RestoreFormer", "RestoreFormer", {}, _image(3, 512)),
    _Published("RetinexFormer", "RetinexFormer"),
    _Published("SAFMN", "SAFMN", {"dim": 36}),
    _Published("SAFMNBCIE", "SAFMNBCIE", {"dim": 36}),
    _Published("SCUNet", "SCUNet"),
    _Published("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3}),
    _Published("SeemoRe", "SeemoRe", {"embedding_dim": 36}),
    _Published("SwiftSRGAN", "SwiftSRGAN"),
    _Published("Swin2SR", "Swin2SR", {
        "embed_dim": 60, "depths": [6] * 4, "window_size": 8, "mlp_ratio": 2.0, "upscale": 4,
        "upsampler": "pixelshuffledirect",
    }),
    _Published("SwinIR", "SwinIR", {
        "embed_dim": 60, "depths": [6] * 4, "window_size": 8, "mlp_ratio": 2.0, "upscale": 4,
        "upsampler": "pixelshuffledirect",
    }),
    _Published("Uformer", "Uformer"),
)  # fmt: skip

NETWORKS = {published.package: published.entry() for published in _PUBLISHED}
