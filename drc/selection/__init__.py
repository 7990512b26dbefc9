"""Which channels stay: how many of every group (widths), and which ones (criteria, refit)."""
