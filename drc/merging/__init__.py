"""Convolutions that compute one, folded into one."""
