"""Proof that a cut network computes what the masked one does."""
