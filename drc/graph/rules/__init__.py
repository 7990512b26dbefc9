"""What each op does to channel ids. Importing this package registers every rule."""

from drc.graph.rules import contract, mix, move, pointwise, reparametrise, spatial

__all__ = ["contract", "mix", "move", "pointwise", "reparametrise", "spatial"]
