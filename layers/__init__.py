"""One file per type=; a dot is a folder. Files with a leading underscore are shared kernels."""
