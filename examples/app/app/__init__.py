"""A small FastAPI application that runs well in production."""

__version__ = "1.0.0"
