"""Quantization of float32 graphs to 8-bit integers: ranges on real crops, placement and sensitivity."""
