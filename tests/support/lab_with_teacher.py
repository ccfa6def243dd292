"""A lab whose teacher net, of real digits and trained below a rotation head, is in its spool."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.protocol import Heads
from rootstock.common.weights.manifest import Recipe
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.teacher.package import build, write_blob
from rootstock.site_agent.transfer.snapshot import LabSnapshot, stored_teachers
from rootstock.site_agent.wire.client import Published
from tests.support import digit_domains, digits_lab


def lab_in(root: Path) -> LabSnapshot:
    """Return the lab; the plan's blobs and the head are in `root`/plan."""
    net, head = digit_domains.trained()
    config = digits_lab.config(
        root / "state", category="two", data=digits_lab.digits(digit_domains.DIGIT)
    )
    blobs = root / "plan"
    start = digit_domains.start()
    plan = digits_lab.plan(blobs).model_copy(
        update={
            "architecture": digit_domains.SPEC,
            "initial_category_module": write_blob(blobs, start.category_module.state_dict()),
        }
    )
    spool = Spool(root / "state" / "spool", digits_lab.fail, digits_lab.COORDINATOR.public_key)
    with spool.staging() as staging:
        recipe = Recipe(name="compatible", settings={})
        manifest = build(digits_lab.lab(config, plan), net, digit_domains.data(), recipe, staging)
        spool.commit(staging, manifest, "run")
    rotation = write_blob(blobs, head.state_dict())
    heads = Heads(number=1, origin="test", task_modules={}, rotation=rotation)
    (own,) = stored_teachers(root / "state" / "spool")
    return LabSnapshot(
        config=config,
        published=Published(plan, plan.content_digest(), heads),
        device=digits_lab.CPU,
        download=lambda blob, _: blobs / blob.digest,
        warn=digits_lab.fail,
        own=own,
        others=(),
    )
