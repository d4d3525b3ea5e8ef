"""Run as a script, in a process of its own: the logits of an ONNX file, with limited memory.

Arguments: the file, and the limit in bytes. Standard input: images; standard output: logits; both in numpy's format.
"""

import io
import resource
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

_MOST_LOGITS = 2**24


def main() -> None:
    """Write the logits, or on failure one line on standard error."""
    path, most = Path(sys.argv[1]), int(sys.argv[2])
    onnxruntime = import_module("onnxruntime")  # of the extra `onnx`
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    images = np.load(io.BytesIO(sys.stdin.buffer.read()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # each thread's stack counts as memory
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": images})
    except Exception as error:  # the runtime has an exception class of its own for each failure
        sys.exit(" ".join((str(error) or type(error).__name__).split()))
    if logits.size > _MOST_LOGITS:
        sys.exit(f"its logits have shape {logits.shape}")
    np.save(sys.stdout.buffer, logits)


if __name__ == "__main__":
    main()
