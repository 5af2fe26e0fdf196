"""Tests; run with warnings as errors."""
