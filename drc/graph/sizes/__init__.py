"""Sizes that the code of a network spells out, rewritten for its cut copies."""
