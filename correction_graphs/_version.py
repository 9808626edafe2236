"""The version, in one place: read by the build and by `correction_graphs.__version__`."""

__version__ = "0.1.0"
