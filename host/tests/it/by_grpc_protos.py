"""The code that protoc generates from .proto files."""

import os
import subprocess
import sys
import tempfile


def generate(protos):
    """Has every file of the folder `protos` importable by its path."""
    files = [
        os.path.relpath(os.path.join(folder, name), protos)
        for folder, _, names in os.walk(protos)
        for name in names
    ]
    out = tempfile.mkdtemp()
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", protos, f"--python_out={out}", f"--grpc_python_out={out}", *files],
        check=True,
    )
    sys.path.insert(0, out)
