"""A process whose driver is the double: runs a request of the operator for GPUs and prints how far it is from FP64.

The real ONNX Runtime calls the operator's own code for GPUs; only its provider is the CPU's, which has no stream.
Arguments: the double, the library, and the request as JSON.
"""

import ctypes
import json
import sys
import threading

import numpy as np
from unit.kernels import operator_graph


def run(library, heads, sizes, packed, masked, *, elsewhere=False):
    """``elsewhere``: whether another thread ends the session."""
    values = operator_graph.feed(np.random.default_rng(3), "float16", tuple(sizes), masked=masked)
    graph = operator_graph.model("float16", heads, packed=packed, masked=masked, name="Launched")
    sessions = [operator_graph.session(graph, library)]
    found = sessions[0].run(None, operator_graph.packed(values) if packed else values)[0]
    if elsewhere:
        ending = threading.Thread(target=sessions.clear)
        ending.start()
        ending.join()
    return float(np.abs(found - operator_graph.exact(values, heads)).max())


if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])  # whoever opens libcuda.so.1 after this gets it: it has that name inside
    try:
        print(json.dumps([run(sys.argv[2], **one) for one in json.loads(sys.argv[3])]))
    except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
        print(json.dumps(str(error)))
