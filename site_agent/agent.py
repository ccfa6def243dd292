"""The daemon at a lab: trains the teacher net, ships it, evaluates and refines on request.

Everything that it has done is on the disk before it is acted on, so it may be stopped, or killed,
anywhere, and resumes from there::

    <state>/
      identity/     site.key, tls.pem, coordinator.pub: see rootstock.site_agent.identity
      plan/         the plan's initial weights
      training/     one folder a run: checkpoint.safetensors
      data/         which images each teacher net was made with
      spool/        what is trained and measured, see rootstock.site_agent.spool.spool
      downloads/    the task module and adapters of the question that was answered last
      consent/      see rootstock.site_agent.consent.consent
      ledger/       what left, a file a month
      cursors/      FP.json: the last event that was dealt with, of the coordinator whose key has
                    the fingerprint FP
      log-heads/    FP.json: the last head of that coordinator's log, and each time that it did not
                    continue the one before: see rootstock.site_agent.coordinator_log
      agent.log     JSON lines
      status.json   what it is doing, for people and progress bars
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from structlog.typing import EventDict

from rootstock.common.errors import (
    IdentityError,
    RefusedError,
    RootstockError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.failpoints import failpoint
from rootstock.common.files import only_one, storage_errors
from rootstock.common.identity.keys import fingerprint, load
from rootstock.common.logs import Log, open_log
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.consent import Consent
from rootstock.site_agent.coordinator_log import CoordinatorLog
from rootstock.site_agent.evaluation.answer import DOWNLOADS, answer, answer_waiting
from rootstock.site_agent.identity import IdentityFiles, coordinator_key
from rootstock.site_agent.lab import AgentLab, set_up_torch
from rootstock.site_agent.shipping import Shipping
from rootstock.site_agent.spool import older_layout
from rootstock.site_agent.spool.documents import SignedReceipt
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.state import (
    Status,
    StatusFile,
    Stopped,
    cursor_file,
    read_cursor,
    write_cursor,
)
from rootstock.site_agent.teacher.data_report import save_plan
from rootstock.site_agent.teacher.train import (
    heads_under,
    teach,
    teacher_error,
    waits_for_heads,
    withdraw_others,
)
from rootstock.site_agent.wire import messages
from rootstock.site_agent.wire.client import DAMAGED_TRIES, CoordinatorClient, Published
from rootstock.site_agent.wire.renewal import Renewal
from rootstock.site_agent.wire.upload import what_was_sent
from rootstock.site_agent.wire.watch import Watcher


def run(
    config: SiteConfig,
    stop: threading.Event,
    on_status: Callable[[Status], None] = lambda _: None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the lab's agent until `stop` is set.

    It fetches the plan, trains the teacher net (or resumes it, or finds it trained), ships
    what the spool holds, then watches for the coordinator's events. `on_status` is called with all
    that status.json says, `on_warning` with the warnings and errors of agent.log.

    After `stop` is set, by a signal handler say, it ends within a second or so; everything is
    resumable. A RootstockError that ends it makes going on pointless, and names the remedy; a
    coordinator that has answered once is waited for instead.
    """

    def tell(_: object, level: str, event: EventDict) -> EventDict:
        if level in ("warning", "error"):
            on_warning(str(event.get("reason") or event.get("error") or event["event"]))
        return event

    with (
        only_one(config.state, "agent"),
        open_log(config.state / "agent.log", tell, site=config.site) as log,
    ):
        path = config.state / "status.json"
        status = StatusFile(path, config.site, config.category, on_status)
        try:
            with storage_errors(config.state):
                _Agent(config, stop, log, status).run()
        except Stopped:
            pass
        except RootstockError as error:
            _farewell(status, log, "failed", f"{type(error).__name__}: {error}")
            raise
        except BaseException as error:
            _farewell(status, log, "failed", f"a fault of ours: {error!r}")
            raise
        _farewell(status, log, "stopped", "stopped; starts where it was")


class _Agent:
    def __init__(
        self, config: SiteConfig, stop: threading.Event, log: Log, status: StatusFile
    ) -> None:
        self._config = config
        self._stop = stop
        self._log = log
        self._status = status
        self._client = CoordinatorClient(config, stop, self._on_retry)
        self._key = load(IdentityFiles(config.state).signing_key)
        self._coordinator_key = coordinator_key(config)
        self._coordinator_log = CoordinatorLog(config.state, self._coordinator_key)
        self._watcher: Watcher | None = None
        self._watching = status.outcome or "waits for the coordinator"

    def run(self) -> None:
        config, log = self._config, self._log
        device = set_up_torch(config)
        log.info(
            "agent.started", coordinator=config.coordinator, key=fingerprint(self._key.public_key)
        )
        older_layout.adopt(config.state, self._coordinator_key)
        spool = Spool(
            config.state / "spool",
            lambda text: log.warning("spool.quarantined", reason=text),
            self._coordinator_key,
        )
        try:
            self._status.progress("joining", message=f"calls {config.coordinator}")
            self._reach()
            self._follow_log()
            with Renewal(self._client, self._on_renewed, self._on_renewal_failed):
                consent = Consent(config.state, config.consent, self._coordinator_key)
                shipping = Shipping(
                    self._client,
                    self._key,
                    self._coordinator_key,
                    spool,
                    consent.ledger,
                    self._status,
                    log,
                    config.state,
                    self._follow_log,
                )
                lab = self._teach_and_ship(spool, device, consent, shipping)
                lab.look_at_data()
                self._watch(lab, shipping)
        finally:
            self._client.close()

    def _reach(self) -> None:
        """Call once; a coordinator that starts at the same time is waited for, not for ever."""
        patience = self._config.network.patience_seconds
        try:
            self._client.patient(self._client.plan, patience_seconds=patience)
        except UnreachableError as error:
            raise UnreachableError(
                f"{self._config.coordinator} has not answered for {patience:g} s: {error}; check "
                "the address, and that the coordinator runs there"
            ) from error

    def _follow_log(self, receipt: SignedReceipt | None = None) -> None:
        """Check that the coordinator's log continues what is known of it, and has a receipt in it.

        IdentityError if not: nothing more is shipped until the lab's operator says so.
        """
        head = ""
        try:
            if receipt is not None:
                receipt.verify_logged(self._coordinator_key)
                head = receipt.head
            self._coordinator_log.follow(self._client.log_head, head)
        except (RefusedError, IdentityError) as error:
            known = self._coordinator_log.known()
            rewritten = known is not None and known.rewrite is not None
            event = "log.rewritten" if rewritten else "log.not_followed"
            self._log.error(event, reason=str(error))
            # No refusal, which would concern one shipment.
            raise IdentityError(str(error)) from error

    def _teach_and_ship(
        self, spool: Spool, device: torch.device, consent: Consent, shipping: Shipping
    ) -> AgentLab:
        """Train and ship under the plan as it is; again if its heads are replaced meanwhile."""
        client = self._client
        while True:
            lab = self._lab(spool, device, consent)
            entry = self._queued(shipping, teach(lab))
            if entry is None:  # its bytes were damaged since a coordinator got it
                continue
            self._status.error_percent = teacher_error(entry)
            if entry.acknowledged:
                self._status.shipped = what_was_sent(entry.sent, entry.size)
            withdraw_others(lab, entry)
            try:
                self._ship(shipping)
            except SchemaError as error:
                if heads_under(entry) is None or client.patient(client.plan).heads == lab.heads:
                    raise
                self._log.warning("training.heads_replaced", reason=str(error))
            else:
                return lab

    def _queued(self, shipping: Shipping, entry: SpoolEntry) -> SpoolEntry | None:
        """Let the teacher wait to be shipped, unless the coordinator has it; None: it is damaged.

        A receipt proves that the coordinator had it. Where its database was put back from an older
        backup since, it has it no longer.
        """
        try:
            if not entry.acknowledged or shipping.is_received(entry):
                return shipping.spool.queue(entry)
        except RefusedError as error:  # it may only be shipped again under other heads
            self._log.warning("upload.refused", manifest=entry.digest, reason=str(error))
        self._log.warning(
            "upload.lost",
            manifest=entry.digest,
            reason="the coordinator gave a receipt and does not know it any more; ships it again",
        )
        return shipping.spool.queue_again(entry)

    def _lab(self, spool: Spool, device: torch.device, consent: Consent) -> AgentLab:
        """Fetch the plan; for recipe `compatible`, wait until it has auxiliary heads."""
        config, log, client = self._config, self._log, self._client
        self._status.progress("planning", message="fetches the plan")
        published = self._published(spool)
        while waits_for_heads(config, published, spool):
            self._status.progress("planning", message="waits for the plan's auxiliary heads")
            if self._stop.wait(config.training.compatible.wait_seconds):
                raise Stopped
            published = self._published(spool)
        lab = AgentLab(
            config=config,
            published=published,
            device=device,
            download=lambda blob, folder: client.download(
                blob,
                config.state / folder,
                lambda done, total: self._status.progress(
                    "downloading", done, total, "fetches weights"
                ),
                # The day's budget has one transfer of what a question names.
                damaged_tries=1 if folder == DOWNLOADS else DAMAGED_TRIES,
            ),
            warn=lambda text: log.warning("lab.warning", reason=text),
            spool=spool,
            consent=consent,
            status=self._status,
            log=log,
            stop=self._stop,
        )
        log.info("plan.fetched", net=lab.plan.net, digest=published.digest)
        self._say_if_trained_anew(lab)
        save_plan(config.state, lab.plan)
        if lab.heads is not None:
            log.info("heads.fetched", number=lab.heads.number, origin=lab.heads.origin)
        return lab

    def _published(self, spool: Spool) -> Published:
        """Fetch the plan; RefusedError if nothing is trained yet, and would be for nothing."""
        published = self._client.patient(self._client.plan)
        trained = spool.made_by(self._config.run_digest(published.digest))
        if published.refusal and not trained:
            raise RefusedError(f"nothing was trained: {published.refusal}")
        return published

    def _say_if_trained_anew(self, lab: AgentLab) -> None:
        """Say so if the teacher nets that are there were trained under another plan."""
        plans = {
            entry.manifest.plan
            for entry in lab.spool.all()
            if isinstance(entry.manifest, TeacherManifest)
        }
        if not plans or lab.published.digest in plans:
            return
        message = (
            f"coordinator {fingerprint(self._coordinator_key)} has another plan "
            f"({lab.published.digest[:12]}) than the teacher net here was trained under "
            f"({', '.join(sorted(plan[:12] for plan in plans))}); a new one is trained"
        )
        self._status.progress("planning", message=message)
        self._log.warning("plan.differs", reason=message)

    def _ship(self, shipping: Shipping) -> None:
        if shipping.teacher_waits():
            self._hear("")  # that was an earlier teacher's
            shipping.send()
            self._watching = "waits for the coordinator"
        else:
            shipping.send()

    def _watch(self, lab: AgentLab, shipping: Shipping) -> None:
        path = cursor_file(self._config.state, self._coordinator_key)
        with Watcher(self._client, read_cursor(path), self._on_retry) as watcher:
            self._watcher = watcher
            self._status.progress("watching", message=lab.remark(self._watching))
            for received in watcher.events(self._stop):
                if received is not None:
                    self._handle(received.event, lab, shipping)
                    failpoint("event.handled")
                    # Only now: an event that a crash cut short is seen again.
                    if received.cursor:
                        write_cursor(path, received.cursor)
                elif answer_waiting(lab, shipping.refuse):
                    self._ship(shipping)
                elif lab.consent.remark() == self._status.waiting:
                    continue
                self._status.waiting = lab.consent.remark()
                self._status.progress("watching", message=lab.remark(self._watching))

    def _handle(self, event: messages.Event, lab: AgentLab, shipping: Shipping) -> None:
        log = self._log
        match event:
            case messages.Superseded(instance):
                raise IdentityError(
                    f"another agent watches as site '{self._config.site}' with this site's key "
                    f"(instance {instance[:64]}), and the newer one stays; stop it if this one is "
                    "to run, and give each lab a name and a key of its own"
                )
            case messages.Reopened():
                self._follow_log()
                log.info("watch.reopened")
            case messages.EvaluationAsked():
                answer(lab, event, shipping.refuse)
                self._ship(shipping)
            case messages.SubmissionChanged(_, state, reason):
                log.info("submission.changed", **vars(event))
                self._hear(_sentence("teacher net", state, reason))
            case messages.MergeChanged(_, state, reason):
                log.info("merge.changed", **vars(event))
                self._hear(_sentence("merge", state, reason))
            case messages.SamplesForgotten():
                log.info("samples.forgotten", **vars(event))
            case messages.HeadsChanged():
                log.info("heads.changed", **vars(event))
            case messages.VersionCommitted(number=number, category=category):
                log.info("version.committed", **vars(event))
                if category == self._config.category:
                    self._hear(f"merged into net version {number}")

    def _hear(self, outcome: str) -> None:
        """Keep what the coordinator says of the teacher net."""
        self._watching = self._status.outcome = outcome

    def _on_renewed(self) -> None:
        self._log.info("certificate.renewed")
        if self._watcher is not None:
            self._watcher.reopen()

    def _on_renewal_failed(self, error: RootstockError) -> None:
        self._log.error("certificate.renewal_failed", reason=str(error))

    def _on_retry(self, error: BaseException, seconds: float) -> None:
        self._log.warning(
            "coordinator.retry_scheduled", seconds=round(seconds, 2), error=str(error)
        )


def _sentence(what: str, state: str, reason: str) -> str:
    return f"{what} {state}: {reason}"[:500] if reason else f"{what} {state}"


def _farewell(status: StatusFile, log: Log, phase: str, message: str) -> None:
    """Say how it ended; a disk that is full may leave that unsaid, the error itself is raised."""
    try:
        status.progress(phase, message=message)
        log.info("agent.ended", phase=phase, message=message)
    except OSError:
        return
