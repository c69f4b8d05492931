"""Which activations ONNX Runtime takes fewer instructions for on Arm, counted on emulated cores."""
