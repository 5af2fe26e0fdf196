"""Known answers, one file for each type."""
