import pytest
import torch

from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec


def features(channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, channels, 5, 4, generator=generator)


@pytest.mark.parametrize("convs", [1, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_identity_start_passes_on_what_is_not_negative(convs: int, kernel: int) -> None:
    spec = AdapterSpec(in_channels=3, out_channels=3, convs=convs, kernel=kernel)
    adapter = Adapter(spec).identity_start()
    assert torch.equal(features(), adapter(features()))


def test_reorder_comes_before_rescale_and_convolutions() -> None:
    adapter = Adapter(AdapterSpec(in_channels=3, out_channels=3)).identity_start()
    adapter.set_permutation(torch.tensor([2, 0, 1]))
    adapter.beta.fill_(0.5)
    assert torch.equal(0.5 * features()[:, [2, 0, 1]], adapter(features()))


def test_identity_start_cuts_or_fills_channels() -> None:
    wider = Adapter(AdapterSpec(in_channels=3, out_channels=4)).identity_start()(features())
    assert torch.equal(features(), wider[:, :3])
    assert torch.equal(torch.zeros(2, 5, 4), wider[:, 3])
    narrower = Adapter(AdapterSpec(in_channels=3, out_channels=2)).identity_start()(features())
    assert torch.equal(features()[:, :2], narrower)


def test_state_holds_reorder_and_rescale_with_the_weights() -> None:
    adapter = Adapter(AdapterSpec(in_channels=3, out_channels=2, convs=2, kernel=3))
    assert {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()} == {
        "permutation": (3,),
        "beta": (),
        "convs.conv1.weight": (2, 3, 3, 3),
        "convs.conv1.bias": (2,),
        "convs.conv2.weight": (2, 2, 3, 3),
        "convs.conv2.bias": (2,),
    }
    assert adapter.permutation.dtype == torch.int64
    assert adapter.beta.dtype == torch.float32


def test_random_start_follows_from_its_generator_alone() -> None:
    spec = AdapterSpec(in_channels=3, out_channels=2, kernel=3)
    before = torch.get_rng_state()
    one = Adapter(spec).random_start(torch.Generator().manual_seed(1))
    other = Adapter(spec).random_start(torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.convolutions()[0].weight, other.convolutions()[0].weight)
    assert one.convolutions()[0].weight.detach().abs().max() > 0


@pytest.mark.parametrize("wrong", [[0, 1], [0, 0, 1], [1, 2, 3]])
def test_what_is_no_permutation_is_refused(wrong: list[int]) -> None:
    adapter = Adapter(AdapterSpec(in_channels=3, out_channels=3))
    with pytest.raises(TransplantError, match="each of the 3 channels exactly once"):
        adapter.set_permutation(torch.tensor(wrong))
    assert adapter.permutation.tolist() == [0, 1, 2]


def test_a_signed_adapter_passes_on_what_is_negative() -> None:
    """Features after a linear bottleneck are; a ReLU would cut half of them away."""
    below_zero = features() - 0.5
    signed = Adapter(AdapterSpec(in_channels=3, out_channels=3, signed=True)).identity_start()
    assert torch.equal(signed(below_zero), below_zero)
    assert signed(below_zero).min() < 0
    plain = Adapter(AdapterSpec(in_channels=3, out_channels=3)).identity_start()
    assert torch.equal(plain(below_zero), below_zero.clamp_min(0))
    deep = Adapter(AdapterSpec(in_channels=3, out_channels=3, convs=2, signed=True))
    assert [name for name, _ in deep.convs.named_children()] == ["conv1", "relu1", "conv2"]


def test_adapters_of_before_keep_their_digests() -> None:
    assert "signed" not in AdapterSpec(in_channels=3, out_channels=3).model_dump(mode="json")
    assert AdapterSpec.model_validate({"in_channels": 3, "out_channels": 3}).signed is False
