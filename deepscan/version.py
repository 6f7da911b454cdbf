"""Version of deepscan: here and not in the package's metadata, so that a plain checkout knows it, too."""

__version__ = "0.1.0"
