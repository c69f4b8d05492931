"""The bare runtime: Python, numpy, ONNX Runtime and one model, with the options that the agent gives it.

    python -m benchmarks.agent.bare_runtime model.onnx

Prints the time of its first inference (seconds since 1970) and waits to be ended. It imports nothing of
Edgewright.
"""

import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Load, run once, wait."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    session.run(None, {given.name: np.zeros(given.shape, np.uint8)})
    print(time.time(), flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    main()
