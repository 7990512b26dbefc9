"""Sizes that the code of a network spells out, rewritten for its cut copies.

Importing this package registers every kind of call.
"""

from drc.graph.sizes import layers, parts, shapes

__all__ = ["layers", "parts", "shapes"]
