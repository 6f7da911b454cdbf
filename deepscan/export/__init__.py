"""From trained weights to artefacts: ONNX graphs that take uint8 RGB and carry the record of what they are."""
