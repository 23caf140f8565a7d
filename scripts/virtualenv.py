"""Make the virtual environment that the Makefile uses, also where Debian left `ensurepip` out.

    python3 scripts/virtualenv.py .venv

Without ensurepip, pip itself is fetched as a wheel from PyPI, by its SHA-256, and installs itself.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")


def fetch_pip(folder: Path) -> Path:
    request = urllib.request.Request(
        f"{INDEX}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    url = next(file["url"] for file in files if file["filename"] == PIP_WHEEL)
    with urllib.request.urlopen(url, timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        sys.exit(f"error: {PIP_WHEEL} is not the file we pinned\n\nhint: check the package index")
    path = folder / PIP_WHEEL
    path.write_bytes(wheel)
    return path


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit("error: Python 3.11 or newer is needed\n\nhint: make PYTHON=/path/to/python3.11")
    target = Path(sys.argv[1])
    with_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(target, with_pip=with_pip, clear=True, symlinks=True)
    if with_pip:
        return
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_pip(Path(folder))
        subprocess.run(
            [target / "bin" / "python", wheel / "pip", "install", "--quiet", "--no-index", wheel],
            check=True,
        )


if __name__ == "__main__":
    main()
