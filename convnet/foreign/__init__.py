"""Weights and nets of other programs: what comes in (read, match) and what goes out (onnx, export).

Every format is read by code of our own that runs nothing which stands in a file, and is brought to
one form, `found.Layer`; match.py alone knows how that becomes arrays of ours.
"""
