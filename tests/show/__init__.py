"""Pictures: what is drawn, told by its numbers; what is written, read by other programs."""
