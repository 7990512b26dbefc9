"""What each op does to channel ids. Importing this package registers every rule."""

from drc.graph.rules import contract, move, pointwise, reductions, spatial

__all__ = ["contract", "move", "pointwise", "reductions", "spatial"]
