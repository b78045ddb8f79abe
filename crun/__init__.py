"""CRUN's composition: settings, entry points, processes and the command line."""

__version__ = "0.1.0"
