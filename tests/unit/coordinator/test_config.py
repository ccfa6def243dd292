from __future__ import annotations

import pytest

from rootstock.common.config import check
from rootstock.common.distillation.settings import MethodName
from rootstock.common.errors import ConfigurationError
from rootstock.coordinator.config import CoordinatorConfig, DistillationConfig, ServerConfig

BASE = {
    "net": "animals",
    "state": "state",
    "plan": {"architecture": {"name": "small-vgg", "split": "pool1"}},
}


def configured(**distillation: object) -> DistillationConfig:
    values = {**BASE, "distillation": distillation}
    return check(values, CoordinatorConfig, source="coordinator.toml").distillation


@pytest.mark.parametrize(("join_listen", "good"), [("127.0.0.1:2", True), ("127.0.0.1:1", False)])
def test_listeners_have_a_port_each(join_listen: str, good: bool) -> None:
    values = {"listen": "127.0.0.1:1", "join_listen": join_listen}
    if good:
        assert ServerConfig.model_validate(values).join_listen == join_listen
        return
    with pytest.raises(ValueError, match="a port of its own"):
        ServerConfig.model_validate(values)


def test_every_method_can_be_chosen() -> None:
    for name in MethodName:
        assert configured(few_sample_method=name).few_sample_method == name
    assert configured(zero_sample_method="dream").zero_sample_method == "dream"
    assert configured() == DistillationConfig()
    assert (configured().zero_sample_method, configured().few_sample_method) == (
        "auto",
        "auto",
    )


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [
        ("few_sample_method", "magic", "direct-learn"),
        ("zero_sample_method", "magic", "dream"),
        # It learns from samples, and there are none.
        ("zero_sample_method", "direct-learn", "is none of identity, closed-form, back-distill"),
    ],
)
def test_an_unknown_method_is_named_with_the_known_ones(key: str, value: str, known: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'distillation\.{key}' = '{value}'.*{known}"):
        configured(**{key: value})


def test_settings_reach_the_methods() -> None:
    settings = configured(
        steps=7, weight_decay=0.5, ridge=0.25, seed=3, dream={"images": 12}
    ).method_settings()
    assert (settings.learning.steps, settings.learning.weight_decay) == (7, 0.5)
    assert (settings.ridge, settings.learning.seed, settings.dream.images) == (0.25, 3, 12)
    assert settings.start == "closed-form"
    with pytest.raises(ConfigurationError, match=r"distillation\.dream\.images"):
        configured(dream={"images": 1})


def test_a_plan_has_the_extractor_of_its_own_architecture() -> None:
    small = {"name": "small-vgg", "split": "pool1"}
    check({**BASE, "plan": {"architecture": small}}, CoordinatorConfig, source="coordinator.toml")
    values = {**BASE, "plan": {"architecture": {**small, "extractor": small}}}
    with pytest.raises(
        ConfigurationError,
        match=r"plan\.architecture.*a lab chooses another with training\.extractor in site\.toml",
    ):
        check(values, CoordinatorConfig, source="coordinator.toml")


@pytest.mark.parametrize("key", ["artifacts", "database", "state", "samples.folder"])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("~/net", "/home/op/net"),
        ("$ROOT/net", "/srv/net"),
        ("$NO_SUCH/net", r"there is no \$NO_SUCH"),
    ],
)
def test_paths_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, key: str, path: str, says: str
) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    monkeypatch.setenv("ROOT", "/srv")
    text = f"sqlite:///{path}" if key == "database" else path
    values = {**BASE, "samples": {"folder": text}} if "." in key else {**BASE, key: text}
    if "NO_SUCH" in path:
        with pytest.raises(ConfigurationError, match=says):
            check(values, CoordinatorConfig, source="coordinator.toml")
        return
    config = check(values, CoordinatorConfig, source="coordinator.toml")
    shown = config.samples.folder if "." in key else getattr(config, key)
    assert str(shown).removeprefix("sqlite:///") == says


@pytest.mark.parametrize(
    "url", ["s3://bucket/~x", "postgresql+psycopg://op:$ecret@host/net", "sqlite://"]
)
def test_addresses_stay_as_they_are(url: str) -> None:
    key = "artifacts" if url.startswith("s3") else "database"
    config = check({**BASE, key: url}, CoordinatorConfig, source="coordinator.toml")
    assert getattr(config, key) == url


def test_a_rule_for_a_task_that_the_plan_has_not_is_refused() -> None:
    values = {**BASE, "acceptance": {"tasks": {"segmentaton": {}}}}
    with pytest.raises(
        ConfigurationError, match=r"rule for 'segmentaton'.*tasks are classification"
    ):
        check(values, CoordinatorConfig, source="coordinator.toml")
