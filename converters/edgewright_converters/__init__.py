"""From a PyTorch or ONNX model and calibration data to INT8 artifacts that were executed and compared.

The pipeline is `export → optimise → calibrate → quantise → verify → package`; `pipeline.convert` is its door.
"""
