"""The one exception tree.

::

    RootstockError
    ├── ConfigurationError (ValueError)    exit 2   a setting is wrong
    ├── MissingExtraError (ImportError)    exit 3   an optional part is not installed
    ├── DataError (ValueError)             exit 4   a lab's images cannot be used
    ├── StorageError (OSError)             exit 5   a disk is full, read-only or broken
    ├── AddressInUseError (OSError)        exit 6   another process has the port
    ├── UnreachableError (ConnectionError) exit 7   a peer does not answer, or not now
    │   └── BusyError                               it has no room, and says when it may have
    ├── RefusedError (ValueError)          exit 8   a peer's input broke a rule
    │   ├── IntegrityError                          digest, checksum or signature does not match
    │   ├── LimitError                              a peer's number is above its cap
    │   └── SchemaError                             a manifest or a tensor is not what it says
    ├── IdentityError (PermissionError)    exit 9   who is calling is not who it says
    ├── ProtocolVersionError (RuntimeError) exit 10 the two sides speak no common version
    ├── NotFoundError (LookupError)        exit 11  nothing has that name or digest
    ├── ConflictError (RuntimeError)       exit 12  a name is taken, a race is lost
    └── TransplantError (ArithmeticError)  exit 13  no adapter can be computed for this net

Every message names the value, the rule and the remedy. Exit 0 is success, 1 a fault of ours,
130 an interruption. The status codes of the wire come from one map: ``common.transport.status``.
"""

from __future__ import annotations


class RootstockError(Exception):
    """Anything that Rootstock itself raises on purpose."""

    exit_code: int = 1


class ConfigurationError(RootstockError, ValueError):
    """A setting, a flag or a configuration file is wrong."""

    exit_code = 2


class MissingExtraError(RootstockError, ImportError):
    """A command needs an optional part that is not installed."""

    exit_code = 3


class DataError(RootstockError, ValueError):
    """A lab's images cannot be read, or are too few to learn from."""

    exit_code = 4


class StorageError(RootstockError, OSError):
    """A disk is full, read-only, or does not give back what was written."""

    exit_code = 5


class AddressInUseError(RootstockError, OSError):
    """Another process listens where a server was to start."""

    exit_code = 6


class UnreachableError(RootstockError, ConnectionError):
    """A peer does not answer, stopped making progress, or has no room now; later it may."""

    exit_code = 7


class BusyError(UnreachableError):
    """A peer has no room for a call now, and says when it may have.

    Attributes
    ----------
    retry_seconds
        How long to wait before the next try, at least.
    """

    def __init__(self, message: str, retry_seconds: float = 10.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class RefusedError(RootstockError, ValueError):
    """What a peer sent broke a rule; the message names the check, the value and the rule."""

    exit_code = 8


class IntegrityError(RefusedError):
    """A digest, a checksum or a signature does not match its bytes."""


class LimitError(RefusedError):
    """A number that a peer supplied is above its cap."""


class SchemaError(RefusedError):
    """A manifest, a header or a tensor is not what it claims to be."""


class IdentityError(RootstockError, PermissionError):
    """The caller is unknown, or is not who it says."""

    exit_code = 9


class ProtocolVersionError(RootstockError, RuntimeError):
    """Agent and coordinator have no protocol version in common."""

    exit_code = 10


class NotFoundError(RootstockError, LookupError):
    """Nothing has that name, number or digest."""

    exit_code = 11


class ConflictError(RootstockError, RuntimeError):
    """The present state does not allow it: a name is taken, a transition is illegal."""

    exit_code = 12


class TransplantError(RootstockError, ArithmeticError):
    """No adapter can be computed: shapes that do not fit, a singular system, divergence."""

    exit_code = 13
