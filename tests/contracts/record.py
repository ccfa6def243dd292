"""Records what the present code lets others rely on: ``python -m tests.contracts.record``.

Run it when a contract test says that something was added. Promises stay as they are; one that is
broken on purpose is taken out of its file in `recorded/` by hand first. The command line alone is
recorded as it is, help texts included.
"""

from __future__ import annotations

import json

from tests.contracts.promises import record, recorded
from tests.contracts.surface import command_line, documents, errors, wire


def main() -> None:
    """Write every file of `recorded/`."""
    record(command_line.NAME, command_line.present())
    for name, present in (
        (errors.NAME, errors.present()),
        (wire.NAME, wire.present()),
        (documents.NAME, documents.present()),
    ):
        record(name, {*recorded(name), *present})
    text = json.dumps(wire.samples(wire.recorded_samples()), indent=1, ensure_ascii=False)
    wire.SAMPLES.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
