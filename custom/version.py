"""The version of the package; here, since the package itself may be reached through the bundle's stand-in."""

__version__ = "0.1.0"
