"""Executing artifacts: one `Model` over ONNX Runtime and LiteRT, with quantised input and output hidden."""
