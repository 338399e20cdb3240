"""The version, read by the build and by `layercache.__version__`."""

__version__ = "0.1.0"
