"""``rootstock bench``: measurements anyone can rerun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.common.errors import ConfigurationError, SchemaError
from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.output import PEOPLE, RESULT, listed, print_json
from tests.benchmarks.harness.request import Folders, requested

if TYPE_CHECKING:
    from tests.benchmarks.harness.experiment import Experiment, Outcome
    from tests.benchmarks.harness.rows import RowT

app = typer.Typer(help="Measure.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Results = Annotated[Path | None, typer.Option(help="Folder of RESULTS.md to write to.")]
Root = Annotated[Path, typer.Option(help="Folder of the data sets.")]
Cache = Annotated[Path, typer.Option(help="Trained nets.")]
Seeds = Annotated[int, typer.Option(min=1, max=100, help="Runs 0 to N − 1.")]
SeedsOfSize = Annotated[int | None, typer.Option(min=1, max=100, help="Runs 0 to N − 1.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
WorkersOfCores = Annotated[int | None, typer.Option(min=1, help="Processes; one a core.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
ROOT, CACHE = Path("../shared/data"), Path(".rootstock/bench")


@app.callback()
def _group() -> None:
    """Measure."""


@app.command()
def transport(
    mebibytes: Annotated[int, typer.Option(min=1, max=16384, help="Size of the module.")] = 1024,
    as_json: AsJson = False,
) -> None:
    """Ship one module to a coordinator's server, and the same bytes over a bare gRPC stream."""
    with needs_coordinator("bench transport"):
        from tests.benchmarks.system.transport import measure

    row = measure(mebibytes << 20, PEOPLE)
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        RESULT.print(f"{key:<28} {value}")


@app.command()
def growth(
    categories: Annotated[str, typer.Option(help="Numbers of categories, with commas.")] = "",
    as_json: AsJson = False,
) -> None:
    """Measure what the N-th merge costs: seconds, bytes written, database queries."""
    with needs_coordinator("bench growth"):
        from tests.benchmarks.system.growth import FLAT, SIZES, measure

    sizes = tuple(sorted({int(n) for n in listed(categories) if n.isdigit()})) or SIZES
    if sizes[0] < 2:
        raise SchemaError(f"--categories {categories!r}: give whole numbers from 2 on, as 5,50,500")
    result = measure(sizes, PEOPLE)
    if as_json:
        print_json(result)
        return
    _print_rows(result["rows"])
    ratios = ", ".join(f"{key} {value}x" for key, value in result["ratios"].items())
    RESULT.print(f"last to first (at most {FLAT} is flat): {ratios}")


@app.command()
def faults(
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Runs.")] = 100,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first run.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Kill, cut, fill and turn back what a small federation rests on, and see what it kept."""
    with needs_coordinator("bench faults"):
        from tests.benchmarks.system.faults import measure

    result = measure(first, seeds, PEOPLE)
    if as_json:
        print_json(result)
        return
    _print_rows(result["faults"])
    RESULT.print(
        f"{result['runs']} runs, {result['acknowledged']} submissions acknowledged, "
        f"{result['lost']} lost, {len(result['broken'])} runs broke a promise"
    )


@app.command()
def load(
    labs: Annotated[str, typer.Option(help="Numbers of labs, with commas.")] = "1,10,100,1000",
    uploads: Annotated[str, typer.Option(help="Uploads at once, with commas.")] = "6,20",
    mebibytes: Annotated[int, typer.Option(min=1, max=16384, help="Size of each upload.")] = 256,
    slow: Annotated[int, typer.Option(min=0, max=64, help="Labs that hold slow streams.")] = 0,
    hold: Annotated[int, typer.Option(min=0, help="Seconds to watch the memory for.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure small calls, events and memory under many labs and large uploads."""
    with needs_coordinator("bench load"):
        from tests.benchmarks.system.load import measure

    sizes, streams = ([int(n) for n in listed(text) if n.isdigit()] for text in (labs, uploads))
    if not sizes or min(sizes) < 1:
        raise SchemaError(f"--labs {labs!r}: give whole numbers from 1 on, as 1,10,100")
    result = measure(tuple(sorted(sizes)), tuple(streams), mebibytes << 20, PEOPLE, slow, hold)
    if as_json:
        print_json(result)
        return
    _print_rows(result["rows"])
    if slow:
        _print_rows(result["slow"])
    if hold:
        _print_rows([result["held"]])


@app.command()
def poison(
    data: Annotated[
        str, typer.Option(help="An example federation: digits, voc-animals or voc-animals-small.")
    ] = "digits",
    as_json: AsJson = False,
) -> None:
    """Let a dishonest lab ship poisoned nets and lies, and say which check stops each."""
    with needs_coordinator("bench poison"):
        from tests.benchmarks.system.poison import EXAMPLES, measure_poisons, shown

    if not (EXAMPLES / f"{data}.toml").is_file():
        raise SchemaError(
            f"--data {data!r}: there is no such example; give digits, voc-animals or "
            "voc-animals-small"
        )
    result = measure_poisons(data, PEOPLE)
    if as_json:
        print_json(result)
        return
    RESULT.print(shown(result), soft_wrap=True)


@app.command()
def solver(
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute; no VGG-16.")] = False,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Adjoints against a double backward pass, closed form against optimisation, Ray actors."""
    with needs_coordinator("bench solver"):
        from tests.benchmarks.harness.results import write
        from tests.benchmarks.system.solver import measure, section, table

    result = measure(PEOPLE, quick=quick)
    if results is not None:
        PEOPLE.print(f"written: {write(results, section(result))}")
    if as_json:
        print_json(result)
        return
    table(result["rows"], RESULT.print)


@app.command()
def transplant(
    experiment: Annotated[int, typer.Option(min=1, max=4, help="Of the paper.")] = 2,
    data: Annotated[
        str, typer.Option(help="cifar10, voc-animals, voc-pretrained or digits.")
    ] = "cifar10",
    samples: Annotated[str, typer.Option(help="Numbers of samples, with commas.")] = "",
    methods: Annotated[str, typer.Option(help="Names, with commas.")] = "",
    categories: Annotated[str, typer.Option(help="Names, with commas.")] = "",
    seeds: Seeds = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute: 2 categories, 1 seed.")
    ] = False,
    split: Annotated[
        str, typer.Option(help="f ends with this layer; default: the data set's own.")
    ] = "",
    images: Annotated[
        int,
        typer.Option(min=0, max=1000, help="Of each side, that joining labs train on; 0: all."),
    ] = 0,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: WorkersOfCores = None,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Repeat an experiment of Network Transplanting with every method, on real images."""
    with needs_coordinator("bench transplant"):
        from tests.benchmarks.papers.transplant import experiment as transplants

    size, runs = ("quick", None) if quick else ("default", seeds)
    request = requested(
        transplants.BUDGETS, Folders(root, cache), size=size, seeds=runs, workers=workers
    )
    asked = transplants.requested(
        request,
        experiment,
        data,
        samples=_counts(samples, "--samples", "0,10,100"),
        methods=listed(methods),
        categories=listed(categories),
        split=split,
        images=images,
    )
    _tell(asked, results, as_json=as_json)


@app.command()
def which(
    data: Annotated[
        str, typer.Option(help="voc-pretrained, voc-animals, cifar10 or digits.")
    ] = "voc-pretrained",
    samples: Annotated[str, typer.Option(help="Numbers of samples, with commas.")] = "",
    methods: Annotated[str, typer.Option(help="Names, with commas.")] = "",
    seeds: Seeds = 3,
    quick: Annotated[bool, typer.Option("--quick", help="1 seed, few steps.")] = False,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: WorkersOfCores = None,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Ask a grown net which of all its categories a picture shows, beside one central net."""
    with needs_coordinator("bench which"):
        from tests.benchmarks.papers.transplant import which as whole

    size, runs = ("quick", None) if quick else ("default", seeds)
    request = requested(whole.BUDGETS, Folders(root, cache), size=size, seeds=runs, workers=workers)
    asked = whole.requested(
        request,
        data,
        samples=_counts(samples, "--samples", "0,10"),
        methods=listed(methods),
    )
    _tell(asked, results, as_json=as_json)


@app.command()
def recombine(
    setting: Annotated[
        str,
        typer.Option(
            help="analysis, incremental, bound, split, classes, uda, architectures or transfer."
        ),
    ] = "analysis",
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute: 1 seed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The paper's budget, for a GPU.")] = False,
    seeds: SeedsOfSize = None,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: WorkersOfCores = None,
    device: Device = "cpu",
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Repeat Compatible Representations: the extractor of one net below the head of another."""
    with needs_coordinator("bench recombine"):
        from tests.benchmarks.papers.recombine import experiment
        from tests.benchmarks.papers.recombine.budget import BUDGETS

    size = _size(quick=quick, full=full)
    request = requested(
        BUDGETS, Folders(root, cache), size=size, seeds=seeds, workers=workers, device=device
    )
    _tell(experiment.requested(request, setting), results, as_json=as_json)


@app.command()
def nettailor(
    task: Annotated[
        str, typer.Option(help="digits, mnist, fashion-mnist, cifar10; with commas.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute: digits, 1 seed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="A wider net, trained for long.")] = False,
    seeds: SeedsOfSize = None,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: WorkersOfCores = None,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Repeat NetTailor: one backbone, its blocks kept or replaced to suit each task."""
    with needs_coordinator("bench nettailor"):
        from tests.benchmarks.papers.nettailor import experiment
        from tests.benchmarks.papers.nettailor.budget import BUDGETS

    size, folders = _size(quick=quick, full=full), Folders(root, cache)
    request = requested(BUDGETS, folders, size=size, seeds=seeds, workers=workers)
    _tell(experiment.requested(request, listed(task)), results, as_json=as_json)


@app.command()
def l2t(
    sources: Annotated[
        str, typer.Option(help="TASK or TASK:ARCHITECTURE, with commas; first: for all methods.")
    ] = "",
    target: Annotated[str, typer.Option(help="TASK; default: cifar10-odd.")] = "",
    samples_per_class: Annotated[str, typer.Option(help="Numbers, with commas.")] = "",
    methods: Annotated[str, typer.Option(help="Names, with commas.")] = "",
    seeds: SeedsOfSize = None,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute: 1 seed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The paper's sizes, for a GPU.")] = False,
    speed: Annotated[
        bool, typer.Option("--speed", help="Only time and memory of the meta-networks' gradient.")
    ] = False,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: WorkersOfCores = None,
    device: Device = "cpu",
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Repeat Learning What and Where to Transfer: L2T-ww beside its baselines, with few images."""
    with needs_coordinator("bench l2t"):
        from tests.benchmarks.papers.l2t import experiment
        from tests.benchmarks.papers.l2t.budget import BUDGETS
        from tests.benchmarks.papers.l2t.speed import measure

    if speed:
        rows = measure()
        if as_json:
            print_json({"rows": rows})
            return
        _print_rows(rows)
        return
    size = _size(quick=quick, full=full)
    request = requested(
        BUDGETS, Folders(root, cache), size=size, seeds=seeds, workers=workers, device=device
    )
    asked = experiment.requested(
        request,
        sources=listed(sources),
        target=target,
        methods=listed(methods),
        samples=_counts(samples_per_class, "--samples-per-class", "50,100"),
    )
    _tell(asked, results, as_json=as_json)


@app.command()
def teachers(
    data: Annotated[str, typer.Option(help="cifar10, voc-animals or digits.")] = "cifar10",
    categories: Annotated[str, typer.Option(help="Names, with commas; default: all.")] = "",
    seeds: Seeds = 3,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: Workers = 2,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Hold the experiments' teachers against the same nets trained three times as long."""
    with needs_coordinator("bench teachers"):
        from tests.benchmarks.papers.transplant import reference
        from tests.benchmarks.papers.transplant.experiment import BUDGETS

    request = requested(BUDGETS, Folders(root, cache), seeds=seeds, workers=workers)
    outcome = _made(reference.requested(request, data, listed(categories)), results)
    if as_json:
        print_json(outcome.as_json())
    else:
        _print_rows(asdict(row) for row in outcome.rows)


@app.command()
def recipes(
    data: Annotated[str, typer.Option(help="cifar10, voc-animals or digits.")] = "cifar10",
    categories: Annotated[
        str, typer.Option(help="Names, with commas; default: all but the founder.")
    ] = "",
    seeds: Seeds = 3,
    root: Root = ROOT,
    cache: Cache = CACHE,
    workers: Workers = 2,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Hold labs that train below the net's task module against labs that do not."""
    with needs_coordinator("bench recipes"):
        from tests.benchmarks.papers.transplant import recipes as compared
        from tests.benchmarks.papers.transplant.experiment import BUDGETS

    request = requested(BUDGETS, Folders(root, cache), seeds=seeds, workers=workers)
    outcome = _made(compared.requested(request, data, listed(categories)), results)
    if as_json:
        print_json({"text": outcome.text(), **outcome.as_json()})
    else:
        RESULT.print(outcome.text(), soft_wrap=True)


def _made(experiment: Experiment[Any, RowT], results: Path | None) -> Outcome[RowT]:
    from tests.benchmarks.harness.experiment import made

    return made(experiment, results, PEOPLE)


def _tell(experiment: Experiment[Any, Any], results: Path | None, *, as_json: bool) -> None:
    outcome = _made(experiment, results)
    if as_json:
        print_json(outcome.as_json())
    else:
        outcome.show(RESULT)


def _print_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        RESULT.print("  ".join(f"{key} {value}" for key, value in row.items()), soft_wrap=True)


def _counts(text: str, option: str, example: str) -> tuple[int, ...]:
    """Read whole numbers with commas."""
    if any(not count.isdigit() for count in listed(text)):
        raise SchemaError(f"{option} {text!r}: give whole numbers with commas, as {example}")
    return tuple(int(count) for count in listed(text))


def _size(*, quick: bool, full: bool) -> str:
    if quick and full:
        raise ConfigurationError("--quick and --full are two sizes; give one of them")
    return "quick" if quick else "full" if full else "default"
