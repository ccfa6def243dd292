import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rootstock.common.errors import IntegrityError, NotFoundError, SchemaError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.composed import ComposedNet, load_composed
from rootstock.common.nets.graph import Edge, ModuleRef
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tree_documents import tree_digest
from rootstock.common.weights.card import card_path
from rootstock.coordinator.export.card_text import text_path
from rootstock.coordinator.export.exporting import export_composed
from rootstock.site_agent.recipes.sources import from_file
from tests.support.exported_net import SPEC, TASK, Grown, put


@pytest.fixture
def grown(tmp_path: Path) -> Grown:
    return Grown(tmp_path)


@pytest.mark.parametrize("category", ["cat", "cow", "sow"])
def test_an_exported_net_answers_bit_for_bit_as_the_composed_one(
    grown: Grown, tmp_path: Path, category: str
) -> None:
    grown.export(category, tmp_path / "out" / "net.safetensors")
    loaded = load_composed(tmp_path / "out" / "net.safetensors")
    images_NCHW = torch.rand(5, 3, 32, 32)
    composed = {"cat": grown.direct, "cow": grown.adapted, "sow": grown.calibrated}[category]
    assert torch.equal(composed(images_NCHW), loaded(images_NCHW))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_any_safetensors_reader_can_read_it(grown: Grown, tmp_path: Path) -> None:
    grown.export("cow", tmp_path / "net.safetensors")
    tensors = load_file(tmp_path / "net.safetensors")
    assert set(tensors) == set(grown.adapted.state_dict())
    assert {name.split(".")[0] for name in tensors} == {"category_module", "adapter", "task_module"}


def test_the_file_and_the_card_carry_the_calibration(grown: Grown, tmp_path: Path) -> None:
    card = grown.export("sow", tmp_path / "net.safetensors")
    assert card["calibration"] == {"scale": 0.1, "bias": -1.25}
    tensors = load_file(tmp_path / "net.safetensors")
    assert tensors["calibration.scale"] == torch.tensor(0.1)
    assert tensors["calibration.bias"] == torch.tensor(-1.25)


def test_the_card_says_what_went_in_and_how_to_load_it(grown: Grown, tmp_path: Path) -> None:
    card = grown.export("cow", tmp_path / "net.safetensors")
    assert json.loads((tmp_path / "net.safetensors.card.json").read_text()) == json.loads(
        json.dumps(card)
    )
    edge = grown.tree.edge("cow", TASK.name)
    assert edge.adapter is not None
    assert card["error"] == 4.0
    assert card["digests"] == {
        "net": tree_digest(grown.tree),
        "category_module": grown.tree.category_modules["cow"].blob.digest,
        "category_submission": "0" * 64,
        "task_module": grown.tree.task_modules[TASK.name].blob.digest,
        "task_submission": "0" * 64,
        "adapter": edge.adapter.blob.digest,
    }
    assert "load_composed('net.safetensors')" in str(card["how_to_load"])


def test_what_is_not_joined_cannot_be_exported(grown: Grown, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cat → classification"):
        export_composed(grown.tree, grown.store, "cow", "viewpoint", tmp_path / "net.safetensors")
    assert not (tmp_path / "net.safetensors").exists()


def test_a_changed_byte_is_found(grown: Grown, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    grown.export("cat", out)
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    with pytest.raises(IntegrityError):
        load_composed(out)


def test_a_missing_card_is_named(grown: Grown, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    grown.export("cat", out)
    card_path(out).unlink()
    with pytest.raises(NotFoundError, match=r"net\.safetensors\.card\.json.*copy both"):
        load_composed(out)


def test_a_card_of_another_net_is_refused(grown: Grown, tmp_path: Path) -> None:
    grown.export("cat", tmp_path / "cat.safetensors")
    grown.export("cow", tmp_path / "cow.safetensors")
    card_path(tmp_path / "cow.safetensors").replace(card_path(tmp_path / "cat.safetensors"))
    with pytest.raises(SchemaError):
        load_composed(tmp_path / "cat.safetensors")


def test_a_net_with_another_extractor_is_exported_and_its_card_names_both(
    grown: Grown, tmp_path: Path
) -> None:
    extractor = ArchitectureSpec(
        name="mobilenetv2", split="block4", settings={"input_size": 32, "output_stride": 8}
    )
    spec = SPEC.model_copy(update={"extractor": extractor})
    f, _ = initial_modules(spec, [TASK], seed=5)
    blob = put(grown.store, tmp_path, f)
    ref = ModuleRef(blob=blob, architecture=spec, submission="0" * 64)
    grown.tree = grown.tree.with_category("emu", ref).with_edge(
        Edge(category="emu", task=TASK.name, error=3.0)
    )
    out = tmp_path / "out" / "emu.safetensors"
    card = grown.export("emu", out)
    assert card["category_architecture"] == spec.model_dump(mode="json")
    assert card["task_architecture"] == SPEC.model_dump(mode="json")
    assert card["input_shape"] == [3, 32, 32]
    told = text_path(out).read_text()
    assert (
        "mobilenetv2, up to layer `block4`; its features have the shape of those of small-vgg, "
        "at layer `pool1`"
    ) in told
    assert "small-vgg, above layer `pool1`" in told
    images_NCHW = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        expected = ComposedNet(f, None, grown.direct.task_module).eval()(images_NCHW)
        assert torch.equal(load_composed(out)(images_NCHW), expected)
    # A lab may transfer from it: `rootstock site sources --from`.
    source = from_file(out, torch.device("cpu"))
    assert source.architecture == spec
    with torch.inference_mode():
        assert torch.equal(source.category_module(images_NCHW), f.eval()(images_NCHW))
