from __future__ import annotations

import pytest

from rootstock.common.config import check
from rootstock.common.distillation.settings import MethodName
from rootstock.common.errors import ConfigurationError
from rootstock.coordinator.config import (
    CoordinatorConfig,
    DistillationConfig,
    HistoryConfig,
    ServerConfig,
)

BASE: dict[str, object] = {
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


def server(uri: str) -> HistoryConfig:
    values = {**BASE, "history": {"mlflow_uri": uri}}
    return check(values, CoordinatorConfig, source="coordinator.toml").history


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("", "such as http://127.0.0.1:5000"),
        ("127.0.0.1:5000", "such as http://127.0.0.1:5000"),
        ("localhost:5000", "such as http://127.0.0.1:5000"),
        ("databricks", "such as http://127.0.0.1:5000"),
        ("mlruns", "such as http://127.0.0.1:5000"),
        ("/srv/mlruns", "such as http://127.0.0.1:5000"),
        ("file:/srv/mlruns", "mlflow server --backend-store-uri"),
        ("sqlite:///mlflow.db", "mlflow server --backend-store-uri"),
        ("postgresql://user:s3cret@db/mlflow", "mlflow server --backend-store-uri"),
        ("http://", "names no host"),
        ("http://:5000", "names no host"),
        ("http://user:s3cret@", "names no host"),
        ("http://127.0.0.1:abc", "its port is a number from 1 to 65535"),
        ("http://user:s3cret@127.0.0.1:abc", "its port is a number from 1 to 65535"),
        ("http://user:s3cret@@127.0.0.1:0", "its port is a number from 1 to 65535"),
        ("http://user:s3/cret@127.0.0.1:5000", "its port is a number from 1 to 65535"),
        ("http://127.0.0.1:65536", "its port is a number from 1 to 65535"),
        ("http://[::1", "such as http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000/#/experiments/1", "it names a page"),
        ("http://127.0.0.1:5000/?x=1", "it names a page"),
        ("http://127.0.0.1:5000\n", "such as http://127.0.0.1:5000"),
        ("http://user:s3 cret@127.0.0.1:5000", "such as http://127.0.0.1:5000"),
    ],
)
def test_an_address_that_is_no_mlflow_server_s_is_refused(uri: str, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=r"key 'history\.mlflow_uri'") as raised:
        server(uri)
    assert rule in str(raised.value)
    for part in ("s3", "cret"):
        assert part not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("https://mlflow.example.org/path", "https://mlflow.example.org/path"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("http://user:s3cret@host:5000", "http://user:***@host:5000"),
        ("http://user:s3@cr:et@host/path", "http://user:***@host/path"),
        ("http://:s3cret@host", "http://:***@host"),
    ],
)
def test_a_server_s_address_is_shown_without_its_password(uri: str, address: str) -> None:
    assert server(uri).address == address


def test_a_password_under_a_wrong_key_is_not_shown() -> None:
    values: dict[str, object] = {**BASE, "history": {"mlflow_url": "http://user:s3cret@host"}}
    with pytest.raises(ConfigurationError, match="did you mean 'mlflow_uri'") as raised:
        check(values, CoordinatorConfig, source="coordinator.toml")
    assert "s3cret" not in str(raised.value)
    values = {**BASE, "database": 7, "history": "http://user:s3cret@host"}
    with pytest.raises(ConfigurationError) as raised:
        check(values, CoordinatorConfig, source="coordinator.toml")
    assert "s3cret" not in str(raised.value)
