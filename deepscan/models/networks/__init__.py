"""The detectors' networks as torch modules, and the building blocks that they share."""
