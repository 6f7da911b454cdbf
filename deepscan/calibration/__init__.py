"""From a float32 graph to one of 8-bit integers: ranges seen on real crops, where to quantize, and where not to."""
