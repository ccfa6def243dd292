"""Evaluation and refinement with two real teachers of digits."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading

import pytest
import torch
from torch import nn

from rootstock.common.distillation.calibration import calibrate_by_labels
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.site_agent import scoring
from rootstock.site_agent.config import RefinementConfig
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.evaluation import measure as evaluation
from rootstock.site_agent.evaluation.measure import Joins
from rootstock.site_agent.evaluation.refine import Refined, Refinement
from rootstock.site_agent.spool.documents import CandidateError
from rootstock.site_agent.state import Stopped
from tests.support import digits_lab
from tests.support.layers import weight

SPEC = AdapterSpec(in_channels=8, out_channels=8, kernel=3)
CONFIG = RefinementConfig(steps=120, views=1)


@pytest.fixture(scope="module")
def joins(tmp_path_factory: pytest.TempPathFactory) -> Joins:
    """Return f of the lab of 1 and g_S of the lab of 0, with a Dirac and a random candidate."""
    folder = tmp_path_factory.mktemp("teachers")
    own = digits_lab.teacher(1, folder / "1")
    other = digits_lab.teacher(0, folder / "0")
    random = Adapter(SPEC).random_start(torch.Generator().manual_seed(0))
    adapters: dict[str, Adapter | None] = {
        "no_adapter": None,
        "dirac": Adapter(SPEC).identity_start().eval().requires_grad_(False),
        "random": random.eval().requires_grad_(False),
    }
    return Joins(own.category_module, other.task_modules["classification"], adapters)


def refine(joins: Joins, config: RefinementConfig = CONFIG) -> Refined:
    return refinement(joins, config).run(SPEC, lambda *_: None)


def refinement(
    joins: Joins, config: RefinementConfig = CONFIG, stop: threading.Event | None = None
) -> Refinement:
    return Refinement(joins, digits_lab.data(1), config, AugmentConfig(), stop)


def test_every_candidate_is_measured_on_validation_images(joins: Joins) -> None:
    results = measure(joins, digits_lab.data(1), calibrates=False)
    errors = {result.name: result.error for result in results}
    assert errors["no_adapter"] == errors["dirac"]  # features are not negative
    assert all(result.samples == len(digits_lab.data(1).validation) for result in results)
    assert all(result.calibration is None for result in results)


def measure(joins: Joins, data: LabData, *, calibrates: bool = True) -> tuple[CandidateError, ...]:
    return evaluation.measure(joins, data, calibrates=calibrates)


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Joins:
    """Return a lab's own f and g with an adapter between them that moves the threshold."""
    own = digits_lab.teacher(1, tmp_path_factory.mktemp("teacher"))
    adapter = Adapter(SPEC).identity_start().eval().requires_grad_(False)
    nn.init.constant_(adapter.convolutions()[0].get_parameter("bias"), 2.0)
    return Joins(own.category_module, own.task_modules["classification"], {"off": adapter})


def test_a_calibration_is_fitted_on_the_holdout_alone(off: Joins) -> None:
    data = digits_lab.data(1)
    plain, found = measure(off, data, calibrates=False), measure(off, data)
    assert [result.error for result in found] == [result.error for result in plain]
    direct = found[0].calibration
    assert direct is not None
    assert direct.error < found[0].error - 30
    # Other validation images: other errors, the same calibration.
    half = data.validation.subset(list(range(0, len(data.validation), 2)))
    other = measure(off, dataclasses.replace(data, validation=half))[0].calibration
    assert other is not None
    assert (other.scale, other.bias) == (direct.scale, direct.bias)
    # Other holdout images: another calibration.
    moved = measure(off, dataclasses.replace(data, holdout=half))[0].calibration
    assert moved is not None
    assert moved.bias != direct.bias


def test_outputs_that_no_calibration_serves_stay_as_they_are() -> None:
    labels_N = torch.cat([torch.zeros(12), torch.ones(12)])
    # Told apart without error; cross-entropy would move the threshold to the middle of the two.
    apart_N = torch.cat([torch.linspace(-1, -0.05, 12), torch.linspace(0.05, 6, 12)])
    fitted = calibrate_by_labels(apart_N, labels_N)
    assert scoring.error_percent(fitted.apply(apart_N), labels_N) > 0
    assert evaluation.calibration(apart_N, labels_N) is None
    assert evaluation.calibration(torch.full((24,), math.nan), labels_N) is None
    # The same with its threshold off is served.
    served = evaluation.calibration(apart_N + 3, labels_N)
    assert served is not None
    fitted = calibrate_by_labels(apart_N + 3, labels_N)
    assert (served.scale, served.bias) == (rounded(fitted.scale), rounded(fitted.bias))


def test_refinement_learns_the_adapter_and_nothing_else(joins: Joins) -> None:
    before = copy.deepcopy((joins.category_module, joins.task_module, joins.adapters["dirac"]))
    refined = refine(joins)
    assert refined.end < refined.start
    validation = digits_lab.data(1).validation
    heads = joins.heads() | {"refined": evaluation.head(refined.adapter, joins.task_module)}
    logits = scoring.logits(joins.category_module, heads, validation)
    errors = {n: scoring.error_percent(v, validation.labels_N) for n, v in logits.items()}
    assert errors["refined"] < errors["no_adapter"] - 10
    after = (joins.category_module, joins.task_module, joins.adapters["dirac"])
    for one, two in zip(before, after, strict=True):
        assert one is not None
        assert two is not None
        for key, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[key])


def test_the_same_twice(joins: Joins) -> None:
    config = CONFIG.model_copy(update={"steps": 25})
    one, two = (refine(joins, config).adapter.state_dict() for _ in range(2))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_it_never_ends_worse_than_it_started(joins: Joins) -> None:
    wild = CONFIG.model_copy(update={"steps": 40, "learning_rate": 5.0, "check_steps": 5})
    refined = refine(joins, wild)
    assert refined.end <= refined.start


def test_it_starts_from_the_best_candidate_of_the_asked_structure(joins: Joins) -> None:
    good = refine(joins).adapter
    better = Joins(joins.category_module, joins.task_module, joins.adapters | {"good": good})
    start = refinement(better).choose_start(SPEC)
    assert torch.equal(start.state_dict()["convs.conv1.weight"], weight(good.convs, "conv1"))
    other = SPEC.model_copy(update={"kernel": 1})
    start = refinement(better).choose_start(other)
    dirac = Adapter(other).identity_start()
    assert torch.equal(start.state_dict()["convs.conv1.weight"], weight(dirac.convs, "conv1"))


def test_features_stay_below_their_cap(joins: Joins) -> None:
    config = CONFIG.model_copy(update={"max_feature_bytes": 1 << 20, "views": 3})
    generator = torch.Generator().manual_seed(0)
    x_NCHW, y_N = refinement(joins, config).training_features(generator)
    assert x_NCHW.numel() * 4 <= 1 << 20
    assert len(x_NCHW) == len(y_N) == (1 << 20) // ((8 * 16 * 16 + 1) * 4)


def test_a_stop_ends_it(joins: Joins) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        refinement(joins, stop=stop).run(SPEC, lambda *_: None)
