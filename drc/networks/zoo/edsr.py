"""EDSR (Lim et al., CVPR workshops 2017), the plain residual network, and its small baseline."""

from __future__ import annotations

from torch import nn

from drc.networks.registry import Preset, WeightsFile, register
from drc.networks.zoo.layers import HeadBodyTail, Residual, conv3x3

_RELEASE = "https://cv.snu.ac.kr/research/EDSR/models/"
_FILES = {
    "edsr_baseline": {2: "1bc95232", 3: "abf2a44e", 4: "6b446fab"},
    "edsr": {2: "0edfb8a3", 3: "ea3ef2c6", 4: "4f62e9ef"},
}


class EDSR(HeadBodyTail):
    """Residual blocks of two convolutions without normalisation; names as in EDSR-PyTorch.

    Input and output as `HeadBodyTail`.

    Args:
        n_resblocks: residual blocks.
        n_feats: channels, inside the blocks and between them.
        scale: a power of two, or 3.
        res_scale: what each block's branch is multiplied by; 0.1 keeps the wide network stable.
        value_range: the largest pixel value.

    Raises:
        UsageError: another scale.
    """

    def __init__(
        self,
        n_resblocks: int,
        n_feats: int,
        scale: int = 4,
        res_scale: float = 1.0,
        value_range: float = 255.0,
    ) -> None:
        blocks = [
            Residual(
                conv3x3(n_feats, n_feats),
                nn.ReLU(inplace=True),
                conv3x3(n_feats, n_feats),
                factor=res_scale,
            )
            for _ in range(n_resblocks)
        ]
        super().__init__(blocks, n_feats, scale, value_range)


def _register_presets() -> None:
    sizes = {
        "edsr_baseline": {"n_resblocks": 16, "n_feats": 64, "res_scale": 1.0},
        "edsr": {"n_resblocks": 32, "n_feats": 256, "res_scale": 0.1},
    }
    for name, arguments in sizes.items():
        register(
            Preset(
                name=name,
                build=EDSR,
                arguments={scale: dict(arguments) for scale in (2, 3, 4)},
                value_range=255.0,
                weights={
                    scale: WeightsFile(url=f"{_RELEASE}{name}_x{scale}-{digest}.pt")
                    for scale, digest in _FILES[name].items()
                },
            )
        )


_register_presets()
