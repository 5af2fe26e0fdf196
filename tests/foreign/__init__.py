"""Weights of other programs: files written here, byte by byte, and what becomes of them."""
