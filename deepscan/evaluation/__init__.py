"""How far a detector can be trusted: labels, figures with intervals, calibrated scores, fused detectors."""
