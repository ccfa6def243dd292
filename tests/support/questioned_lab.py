"""A lab whose teacher net the coordinator has received, and questions about it."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any, cast

import structlog

from rootstock.common.identity.keys import SigningKey
from rootstock.common.protocol import evaluation_id, receipt_bytes, witness_id
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.service.messages import sign_question
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.config import ConsentConfig, EvaluationConfig
from rootstock.site_agent.consent.consent import Consent
from rootstock.site_agent.evaluation.answer import answer, answer_waiting
from rootstock.site_agent.lab import AgentLab
from rootstock.site_agent.spool.documents import EvaluationReport, SignedReceipt
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.state import StatusFile
from rootstock.site_agent.wire.client import Published
from rootstock.site_agent.wire.messages import EvaluationAsked
from tests.support import digits_lab
from tests.support.digits_lab import COORDINATOR, CPU, SPEC, TASK


def spool_with_teacher(folder: Path, warn: Any = digits_lab.fail) -> Spool:
    """Return a spool with a teacher that the coordinator has received."""
    spool = Spool(folder / "spool", warn, COORDINATOR.public_key)
    if spool.acknowledged():
        return spool
    with spool.staging() as staging:
        manifest = digits_lab.untrained(staging)
        entry = spool.commit(staging, manifest, "run")
    signed = receipt_bytes(entry.digest, "sub-0001", "now")
    spool.acknowledge(
        entry,
        SignedReceipt(
            manifest_digest=entry.digest,
            submission_id="sub-0001",
            received_at="now",
            signature=COORDINATOR.sign(signed).hex(),
        ),
    )
    return spool


class QuestionedLab:
    """The agent's side of questions, without a coordinator."""

    def __init__(self, folder: Path, **consent: int) -> None:
        self.warnings: list[str] = []
        self.refused: list[EvaluationReport] = []
        self.downloads = 0
        self.spool = spool_with_teacher(folder, self.warnings.append)
        config = digits_lab.config(
            folder,
            evaluation=EvaluationConfig(calibration=False),
            consent=ConsentConfig.model_validate(consent),
        )
        plan = digits_lab.plan(folder / "plan")
        self.lab = AgentLab(
            config=config,
            published=Published(plan, plan.content_digest(), None),
            device=CPU,
            download=self._download,
            warn=digits_lab.fail,
            spool=self.spool,
            consent=Consent(folder, config.consent, COORDINATOR.public_key),
            status=StatusFile(folder / "status.json", config.site, config.category),
            log=cast(Any, structlog.testing.CapturingLogger()),
            stop=threading.Event(),
        )

    def message(
        self, turn: int = 1, key: SigningKey | None = COORDINATOR, *, merge: int = 1
    ) -> pb.EvaluationRequest:
        """Return the question to join the lab's own f and g; `key` None: it is not signed."""
        (teacher,) = self.spool.acknowledged()
        message = pb.EvaluationRequest(
            evaluation_id=evaluation_id(f"mrg-{merge:04d}", turn),
            merge_id=f"mrg-{merge:04d}",
            manifest_digest=teacher.digest,
            task=TASK.name,
            architecture=SPEC.canonical(),
            task_module=teacher.manifest.blobs()[1].canonical(),
            candidates=[pb.Candidate(name="no_adapter")],
        )
        if key is not None:
            sign_question(message, self.lab.config.site, int(time.time()) + 3600, key)
        return message

    def witness_message(
        self, number: int = 1, turn: int = 1, *, merge: int = 1
    ) -> pb.EvaluationRequest:
        """Return a question to the lab as a witness; the other lab's f is its own, for brevity."""
        (teacher,) = self.spool.acknowledged() or self.spool.all()
        message = pb.EvaluationRequest(
            evaluation_id=witness_id(f"mrg-{merge:04d}", number, turn),
            merge_id=f"mrg-{merge:04d}",
            manifest_digest="ab" * 32,
            task=TASK.name,
            architecture=SPEC.canonical(),
            task_module=teacher.manifest.blobs()[1].canonical(),
            candidates=[pb.Candidate(name="no_adapter")],
            rest=pb.RestQuestion(
                category="other",
                category_module=teacher.manifest.blobs()[0].canonical(),
                architecture=SPEC.canonical(),
                scale=1.0,
            ),
        )
        sign_question(message, self.lab.config.site, int(time.time()) + 3600, COORDINATOR)
        return message

    def answer(self, message: pb.EvaluationRequest) -> None:
        """Have the lab answer a question; what it sends at once is in `refused`."""
        asked = EvaluationAsked(message.evaluation_id, message)
        answer(self.lab, asked, self.refused.append)

    def answer_waiting(self) -> bool:
        """Have the lab answer the questions that wait."""
        return answer_waiting(self.lab, self.refused.append)

    def events(self) -> list[str]:
        """Return the names of the events that were logged."""
        return [call.args[0] for call in cast(Any, self.lab.log).calls]

    def _download(self, blob: BlobEntry, folder: str) -> Path:
        (teacher,) = self.spool.acknowledged()
        target = self.lab.config.state / folder / blob.digest
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(teacher.blob(blob.digest), target)
        self.downloads += 1
        return target
