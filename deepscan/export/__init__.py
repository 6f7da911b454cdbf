"""From trained weights to artifacts: ONNX graphs that take uint8 RGB and carry the record of what they are."""
