"""Closed-form repair of a cut network, before any training."""
