"""Enlarge images and videos with a network."""
