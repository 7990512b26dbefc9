"""The settings of every step, and how they are read."""
