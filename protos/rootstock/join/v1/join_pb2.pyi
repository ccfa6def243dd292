from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token", "certificate_request", "signing_key", "proof", "agent_version")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    token: str
    certificate_request: bytes
    signing_key: bytes
    proof: bytes
    agent_version: str
    def __init__(self, token: _Optional[str] = ..., certificate_request: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., agent_version: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("certificate", "name", "access", "coordinator_public_key", "port")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    name: str
    access: str
    coordinator_public_key: bytes
    port: int
    def __init__(self, certificate: _Optional[bytes] = ..., name: _Optional[str] = ..., access: _Optional[str] = ..., coordinator_public_key: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...
