"""Trees of a net whose blobs are named by a letter."""

from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry

SPEC = ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": 4})


def digest(letter: str) -> str:
    return letter * 64


def ref(letter: str) -> ModuleRef:
    blob = BlobEntry(digest=digest(letter), size=8, tensors={})
    return ModuleRef(blob=blob, architecture=SPEC, submission=digest("0"))


def adapter(letter: str) -> AdapterEntry:
    blob = BlobEntry(digest=digest(letter), size=8, tensors={})
    return AdapterEntry(spec=AdapterSpec(in_channels=4, out_channels=4), blob=blob)


def founded() -> NetTree:
    return (
        NetTree(architecture=SPEC, tasks=(TaskSpec(name="classification"),))
        .with_category("dog", ref("a"))
        .with_task("classification", ref("b"))
        .with_edge(Edge(category="dog", task="classification", error=1.5))
    )


def grown() -> NetTree:
    edge = Edge(category="cat", task="classification", adapter=adapter("d"), error=2.0)
    return founded().with_category("cat", ref("c")).with_edge(edge)
