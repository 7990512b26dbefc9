"""Proof that a cut network computes what the masked one does."""

from drc.graph.verify.prove import CutError, check, compare, verify

__all__ = ["CutError", "check", "compare", "verify"]
