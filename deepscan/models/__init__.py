"""Forgery detectors: one module for each, with its spec and its publication; the networks need torch, these do not."""
