"""RCAN (Zhang et al., ECCV 2018): groups of residual blocks with channel attention."""

from __future__ import annotations

from drc.core.errors import UsageError
from drc.networks.registry import Preset, register
from drc.networks.zoo.layers import HeadBodyTail, Residual, attention_block, conv3x3


class RCAN(HeadBodyTail):
    """Residual groups of residual channel-attention blocks; names as in the official RCAN.

    Input and output as `HeadBodyTail`.

    Args:
        n_resgroups: residual groups.
        n_resblocks: blocks in each group.
        n_feats: channels, inside the blocks and between them.
        reduction: the attention squeezes `n_feats` to `n_feats // reduction` channels.
        scale: a power of two, or 3.
        value_range: the largest pixel value.

    Raises:
        UsageError: another scale, or attention with no channel left.
    """

    def __init__(
        self,
        n_resgroups: int,
        n_resblocks: int,
        n_feats: int,
        reduction: int = 16,
        scale: int = 4,
        value_range: float = 255.0,
    ) -> None:
        if not 1 <= reduction <= n_feats:
            raise UsageError(f"reduction is {reduction}; for {n_feats} channels use 1 to {n_feats}")
        groups = [
            Residual(
                *(
                    attention_block(n_feats, n_feats, n_feats // reduction)
                    for _ in range(n_resblocks)
                ),
                conv3x3(n_feats, n_feats),
            )
            for _ in range(n_resgroups)
        ]
        super().__init__(groups, n_feats, scale, value_range)


register(
    Preset(
        name="rcan",
        build=RCAN,
        arguments={
            scale: {"n_resgroups": 10, "n_resblocks": 20, "n_feats": 64} for scale in (2, 3, 4, 8)
        },
        value_range=255.0,
    )
)
