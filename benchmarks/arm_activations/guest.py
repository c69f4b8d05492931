"""Runs on the emulated core: one inference of a model between two marks, after two that are not counted."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import onnxruntime as ort

MARK = 0x4D41524B


def main() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    dtype = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(float)": np.float32}[given.type]
    feed = {given.name: np.ones(given.shape, dtype)}
    libc = ctypes.CDLL(None)
    for _ in range(2):
        session.run(None, feed)
    libc.getpriority(MARK, 0)
    session.run(None, feed)
    libc.getpriority(MARK, 1)


main()
