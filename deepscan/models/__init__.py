"""Forgery detectors as torch modules; torch is imported here and in `export` only."""
