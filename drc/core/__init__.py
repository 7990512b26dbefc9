"""What every room stands on: errors, files, randomness, processes."""
