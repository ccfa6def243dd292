"""Regenerate the stubs beside the .proto files: ``python -m protos.generate [--check]``."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("rootstock/protos")


def generate(out: Path) -> list[Path]:
    """Write the stubs of every .proto under `out`, laid out as in the checkout."""
    from grpc_tools import protoc

    sources = ROOT / "protos"
    # Under the path by which they are imported, so that stubs import each other by it.
    protos = [PACKAGE / path.relative_to(sources) for path in sorted(sources.rglob("*.proto"))]
    status = protoc.main(
        [
            "protoc",
            f"-I{PACKAGE}={sources}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out={out}",
            *map(str, protos),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")
    return sorted(out.rglob("*_pb2*.py*"))


def main() -> int:
    """Write the stubs, or with --check say which of the checked-in ones are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail on a difference")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        stale = [
            path.relative_to(folder)
            for path in fresh
            if not (ROOT / path.relative_to(folder)).exists()
            or not filecmp.cmp(path, ROOT / path.relative_to(folder), shallow=False)
        ]
    for path in stale:
        sys.stderr.write(f"{path}: stale; run `python -m rootstock.protos.generate`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
