"""Learning a tailored net, pruning it, and what is exported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rootstock.common.nets.tailored.paths import Path
from rootstock.common.nettailor.augmented import Activations, AugmentedNet, activations
from rootstock.common.nettailor.learning import (
    Settings,
    expected_complexity,
    flops,
    loss,
    mimicry,
    parameters,
    path_costs,
)
from rootstock.common.nettailor.pruning import ROUNDS, Try, leaner, search, thinned
from rootstock.common.nettailor.tailored import TailoredNet, card
from tests.benchmarks.papers.nettailor.cells import latency_ratio
from tests.benchmarks.papers.nettailor.learning import learn
from tests.support.nettailor_nets import CLASSES, SHAPE, augmented, backbone, images, stir


def batches(count: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise with one bright row of four: which says the class."""
    generator = torch.Generator().manual_seed(0)
    while True:
        classes_N = torch.randint(CLASSES, (count,), generator=generator)
        x_NCHW = 0.3 * torch.randn(count, *SHAPE, generator=generator)
        for image, kind in zip(x_NCHW, classes_N.tolist(), strict=True):
            image[kind % 3, :, 8 * kind : 8 * kind + 8] += 2
        yield x_NCHW, classes_N


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_mimicry_is_the_mean_over_nodes_and_logits() -> None:
    ours = Activations(
        {1: torch.zeros(2, 1, 1, 1), 3: torch.ones(2, 3, 1, 1)}, (torch.zeros(2, 2),)
    )
    theirs = Activations(
        {1: torch.full((2, 1, 1, 1), 2.0), 2: torch.ones(5), 3: torch.zeros(2, 3, 1, 1)},
        (torch.full((2, 2), 3.0),),
    )
    assert float(mimicry(ours, theirs)) == pytest.approx((4 + 1 + 9) / 3)
    # Of several tasks each has a part, however many numbers it answers.
    two = [one._replace(logits=(*one.logits, torch.full((2, 5, 5), v)))
           for one, v in ((ours, 1.0), (theirs, 3.0))]  # fmt: skip
    assert float(mimicry(*two)) == pytest.approx((4 + 1 + 9 + 4) / 4)


def test_the_loss_is_the_papers_sum() -> None:
    net, (f, g) = augmented(), backbone()
    costs = path_costs(net, SHAPE)
    x, classes = next(batches())
    shown, theirs = net.eval().activations(x), activations(f, g, x)
    told = F.cross_entropy(shown.logits[0], classes)
    found = loss(net, shown, theirs, told, costs, Settings(steps=1, complexity=0.7, mimicry=3))
    expected = told + 0.7 * expected_complexity(net.alphas(), costs, 3) + 3 * mimicry(shown, theirs)
    torch.testing.assert_close(found, expected)


def test_learning_changes_what_is_the_tasks_own_and_nothing_else() -> None:
    (f, g), net = backbone(), augmented()
    before, teacher = state(net), state(f)
    costs = path_costs(net, SHAPE)
    learn(net, (f, g), batches(), costs, Settings(steps=3, learning_rate=0.01))
    after = state(net)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    shared = {name for name in before if name.startswith(("stem", "paths.block"))}
    assert shared
    assert not changed & shared  # running statistics included
    own = set(before) - shared
    assert changed == own
    assert all(torch.equal(value, teacher[name]) for name, value in f.state_dict().items())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    again = augmented()
    learn(again, (f, g), batches(), costs, Settings(steps=3, learning_rate=0.01))
    assert all(torch.equal(value, after[name]) for name, value in again.state_dict().items())


def test_complexity_moves_attention_to_proxies_and_its_absence_does_not() -> None:
    (f, g), shares = backbone(), []
    for complexity in (0.0, 3.0):
        net = augmented()
        settings = Settings(
            steps=10, learning_rate=0.01, attention_rate=100, complexity=complexity, mimicry=0
        )
        learn(net, (f, g), batches(), path_costs(net, SHAPE), settings)
        shares.append([float(a) for path, a in net.alphas().items() if path.universal])
    assert all(cheap < free - 0.05 for free, cheap in zip(*shares, strict=True))


def test_what_is_left_out_are_the_faintest_blocks_and_faint_proxies() -> None:
    alphas = {
        Path(1, 0): 0.9, Path(1, 1): 0.1,
        Path(2, 0): 0.3, Path(2, 1): 0.66, Path(2, 2): 0.04,
        Path(3, 0): 0.6, Path(3, 1): 0.2, Path(3, 2): 0.2, Path(3, 3): 0.0,
    }  # fmt: skip
    tensors = {path: torch.tensor(alpha) for path, alpha in alphas.items()}
    bright = set(alphas) - {Path(3, 3), Path(2, 2)}
    assert thinned(tensors, 3) == bright
    assert list(leaner(tensors, 3)) == [bright - {Path(node, 0)} for node in (2, 3, 1)]
    without = {path: tensors[path] for path in next(leaner(tensors, 3))}
    assert next(leaner(without, 3)) == set(without) - {Path(3, 0)}
    # Without block 1, the faintest now, nothing would lead from the stem to any node.
    dim = without | {Path(1, 0): torch.tensor(0.1)}
    assert list(leaner(dim, 3, threshold=0.15)) == [set(without) - {Path(1, 1), Path(3, 0)}]
    alone = {Path(1, 0): torch.tensor(1.0), Path(2, 1): torch.tensor(1.0)}
    assert not list(leaner(alone, 2))
    # One of these blocks strands the others: whichever goes, the same path is left.
    chain = dict.fromkeys((Path(1, 0), Path(2, 0), Path(3, 0), Path(3, 3)), torch.tensor(0.5))
    assert list(leaner(chain, 3)) == [{Path(3, 3)}]


def student(blocks: int = 2) -> AugmentedNet:
    """Attention divides itself between block and proxy 1; the lowest block's is the faintest."""
    net = augmented(blocks)
    with torch.no_grad():
        for place, logits_P in enumerate(net.attention):
            logits_P.fill_(-9)
            logits_P[:2] = torch.tensor([0.1 * place, 0.05])
    return net


def lacking(net: AugmentedNet) -> int:
    return len(net.names) - sum(path.universal for path in net.kept)


@pytest.mark.parametrize(
    ("errors", "removed", "tried"),
    [
        ([1, 1, 1, 1, 1, 1, 1], 6, [0, 1, 2, 3, 4, 5, 6]),
        ([1, 1, 1, 1, 2, 1, 1], 3, [0, 1, 2, 3, 4, 4, 4]),  # any of three blocks is too much
        ([1, 1, 1, 1, 1, 2, 1], 4, [0, 1, 2, 3, 4, 5, 5]),  # there are no three
        ([9, 8, 7, 6, 1, 2, 2], 4, [0, 1, 2, 3, 4, 5, 5]),  # goes on until one is good enough
        ([9, 8, 7, 6, 5, 4, 1], 6, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_search_finds_the_leanest_net_within_the_bar(
    errors: list[float], removed: int, tried: list[int]
) -> None:
    whole, tuned = student(), []
    before = state(whole)

    def tune(net: AugmentedNet, _: int, number: int) -> None:
        tuned.append((lacking(net), number))

    found = search(whole, 1.5, tune, lambda net: errors[lacking(net)])
    assert found.met
    assert found.error <= 1.5
    assert lacking(found.net) == removed
    # The faintest go first, and of the proxies only those above the threshold stay.
    assert {path for path in found.net.kept if path.universal} == {
        Path(node, 0) for node in range(removed + 1, 7)
    }
    assert {path.skip for path in found.net.kept} <= {0, 1}
    assert [(one.blocks, one.error) for one in found.tries] == [(k, errors[k]) for k in tried]
    # One above the bar is tuned once if none was below it yet, unless it is the first.
    first = next(place for place, k in enumerate(tried) if errors[k] <= 1.5)
    rounds = [
        1 if errors[k] <= 1.5 or 0 < place < first else ROUNDS for place, k in enumerate(tried)
    ]
    assert tuned == [(k, r) for k, n in zip(tried, rounds, strict=True) for r in range(n)]
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert len(whole.kept) == len(augmented(2).kept)


def test_each_leaner_net_begins_where_the_one_before_was_tuned_to() -> None:
    whole = student()
    starts: list[float] = []

    @torch.no_grad()
    def tune(net: AugmentedNet, _: int, __: int) -> None:
        bias = list(net.head.parameters())[-1]
        starts.append(float(bias[0]))
        bias.add_(1)
        for logits_P in net.attention[4:]:
            logits_P[0] = -1  # now the fifth node's block matters least, above the threshold

    found = search(whole, 1.5, tune, lambda net: 1.0)
    assert [round(start - starts[0], 4) for start in starts] == list(range(7))
    assert len(found.tries) == 7
    second = search(whole, 1.5, tune, lambda net: 9.0 * (lacking(net) > 1))
    assert {path.target for path in second.net.kept if path.universal} == {1, 2, 3, 4, 6}


def test_a_block_that_cannot_be_spared_stays_and_the_next_faintest_goes() -> None:
    found = search(
        student(), 1.5, lambda *_: None, lambda net: 1.0 if Path(1, 0) in net.kept else 2.0
    )
    assert {path for path in found.net.kept if path.universal} == {Path(1, 0)}
    assert found.error == 1.0
    # Each time block 1 is the faintest: leaving it out is tried and does not do.
    assert [one.blocks for one in found.tries] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


def test_a_net_above_the_bar_is_tuned_again_before_it_is_given_up() -> None:
    whole, rounds = student(), []

    @torch.no_grad()
    def tune(net: AugmentedNet, _: int, number: int) -> None:
        rounds.append((lacking(net), number))

    def error(net: AugmentedNet) -> float:
        blocks, number = rounds[-1]
        return 1.0 if number >= blocks else 2.0

    found = search(whole, 1.5, tune, error)
    assert lacking(found.net) == ROUNDS - 1
    assert rounds[:6] == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert found.tries[:4] == tuple(Try(blocks, 6, 1.0) for blocks in range(4))


@pytest.mark.parametrize(("worst", "proxies"), [(1.0, 6), (2.0, 10)])
def test_fainter_proxies_of_the_leanest_net_go_as_long_as_it_is_good_enough(
    worst: float, proxies: int
) -> None:
    whole = student()
    with torch.no_grad():
        for logits_P in whole.attention[2:]:
            logits_P[2] = logits_P[1] - 1.5  # α of proxy 2 is 0.18 once the block has gone

    def error(net: AugmentedNet) -> float:
        return worst if len(net.kept) == 6 else 1.0

    found = search(whole, 1.5, lambda *_: None, error)
    assert found.met
    assert lacking(found.net) == 6
    assert len(found.net.kept) == proxies
    assert found.tries[-1] == Try(6, 6, worst)
    assert found.tries[-2] == Try(6, 10, 1.0)


def test_a_tolerance_that_no_net_meets_leaves_the_full_one() -> None:
    whole = student()
    found = search(whole, 0.5, lambda *_: None, lambda net: 7.0 + lacking(net))
    assert not found.met
    assert found.net is whole
    assert found.error == 7.0
    assert found.tries == tuple(Try(blocks, 6, 7.0 + blocks) for blocks in range(7))
    # The full net may be good enough where every pruned one is not.
    full = search(whole, 0.5, lambda *_: None, lambda net: 7.0 * (net is not whole))
    assert (full.net, full.met, full.error) == (whole, True, 0.0)


def test_the_same_paths_may_come_up_again_with_other_weights() -> None:
    """Without block 2 nothing reads block 1; or block 1 goes first, and block 2 after it."""
    whole = augmented(blocks=1)
    with torch.no_grad():
        for logits_P in whole.attention:
            logits_P.fill_(-9)
        whole.attention[0][0] = 9
        whole.attention[0][1] = 9
        whole.attention[1][0], whole.attention[1][2] = -0.1, 0
        whole.attention[2][0] = 9
    told: list[tuple[int, int, frozenset[Path]]] = []

    def tune(net: AugmentedNet, before: int, number: int) -> None:
        told.append((before, number, net.kept))

    search(whole, 1.5, tune, lambda net: 1.0 if len(net.kept) > 2 or len(told) > 8 else 2.0)
    assert len({(before, number) for before, number, _ in told}) == len(told)
    assert len({kept for *_, kept in told}) < len({before for before, *_ in told})


def test_nets_that_are_cut_apart_are_no_candidates() -> None:
    whole = augmented(blocks=1)  # its proxies are faint: without a block nothing leads past it
    found = search(whole, 100, lambda *_: None, lambda net: 1.0)
    assert found.met
    assert lacking(found.net) == 0
    assert found.tries == (Try(0, 0, 1.0),)
    assert {path.skip for path in found.net.kept} == {0}


def pruned() -> AugmentedNet:
    """A net of two blocks and several proxies, some of which pool, with learned statistics."""
    net = augmented(blocks=2)
    stir(net, seed=4)
    with torch.no_grad():
        for place, logits_P in enumerate(net.attention):
            logits_P.copy_(torch.linspace(-0.5, 0.5, len(logits_P)).roll(place))
    kept = {path for path in net.kept if not path.universal or path.target in (2, 5)}
    return net.restricted(kept - {Path(4, 1), Path(6, 1), Path(6, 2)}).eval()


@torch.no_grad()
def test_an_export_does_as_the_pruned_net_does_with_nothing_in_it_that_was_left_out() -> None:
    net = pruned()
    tailored = TailoredNet(net)
    x = images(4)
    expected = net(x)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(tailored(x), expected, atol=1e-5, rtol=1e-5)
    assert set(tailored.blocks) == {"block1_2"}  # block 5's output is not read: node 6 reads node 3
    assert set(tailored.names) == net.kept
    f, g = backbone(2)
    # FLOPs are those of what is there: stem, kept paths, head.
    costs = path_costs(augmented(2), SHAPE)
    universal = flops(f, x) - flops(net.stem, x)
    kept = sum(costs[path] for path in net.kept) * universal
    assert flops(tailored, x) == pytest.approx(
        flops(net.stem, x) + kept + flops(g, net_top(net, x))
    )


def net_top(net: AugmentedNet, x_NCHW: Tensor) -> Tensor:
    return net.activations(x_NCHW).nodes[len(net.names)]


def test_an_export_shares_the_backbones_values_to_the_last_bit() -> None:
    f, _ = backbone(2)
    net = augmented(blocks=2)
    learn(net, backbone(2), batches(), path_costs(net, SHAPE), Settings(2, learning_rate=0.01))
    tailored = TailoredNet(net)
    theirs = f.state_dict()
    ours = {
        **tailored.extractor[:3].state_dict(),  # the stem
        **{f"{n}.{k}": v for n, b in tailored.blocks.items() for k, v in b.state_dict().items()},
    }
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@torch.no_grad()
def test_the_card_counts_what_is_there() -> None:
    net = pruned()
    tailored, (f, g) = TailoredNet(net), backbone(2)
    original = nn.Sequential(f, g)
    found = card(tailored, original, images(1))
    counted = [path for path in net.kept if not path.universal]
    channels = [4] * 3 + [8] * 2 + [16] * 2  # of nodes 0 to 6
    proxies = sum((channels[p.source] + 1) * channels[p.target] for p in counted)
    assert found.own_parameters == proxies + parameters(g) + 1  # block 2's α
    assert found.parameters == found.own_parameters + parameters(f[:3]) + parameters(
        f.get_submodule("block1_2")
    )
    assert found.params_removed == pytest.approx(
        100 * (1 - found.parameters / parameters(original))
    )
    assert found.new_params_share == pytest.approx(
        100 * found.own_parameters / parameters(original)
    )
    assert (found.blocks, found.blocks_removed) == (6, 5)
    assert 0 < found.flops_removed < 100
    assert found.alphas.keys() == {net.name(path) for path in net.kept}
    assert found.alphas["block1_2"] == pytest.approx(float(net.alphas()[Path(2, 0)]))
    assert "frozen" in found.shared_statistics
    assert "this task" in found.own_statistics
    whole = card(TailoredNet(augmented(2)), original, images(1))
    assert whole.params_removed < 0  # proxies were added and nothing was left out


def test_a_deep_net_takes_longer_than_its_stem() -> None:
    f, g = backbone(2)
    assert latency_ratio(f[:3], nn.Sequential(f, g), images(8), repeats=3) < 0.7
