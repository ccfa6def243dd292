from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from rootstock.common.errors import SchemaError
from rootstock.common.images import central_part, normalise, pixels
from rootstock.common.nets.architectures import build_category_module, image_form, input_shape
from rootstock.common.nets.spec import ArchitectureSpec, ImageForm, Preprocessing
from rootstock.common.weights import safetensors_io

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SETTINGS = {"input_size": 32, "width": 4}


def spec(preprocessing: Preprocessing) -> ArchitectureSpec:
    return ArchitectureSpec(
        name="small-vgg", split="pool1", settings=SETTINGS, preprocessing=preprocessing
    )


def f_of(preprocessing: Preprocessing) -> torch.nn.Sequential:
    return build_category_module(spec(preprocessing)).eval()


def test_a_net_gets_what_it_was_trained_on() -> None:
    images_NCHW = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    plain, own = f_of(Preprocessing()), f_of(IMAGENET)
    own.load_state_dict(plain.state_dict())
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    wanted = plain((images_NCHW / 255 - mean) / std)
    torch.testing.assert_close(own(normalise(images_NCHW)), wanted, atol=1e-5, rtol=1e-5)


def test_channels_come_in_the_net_s_order() -> None:
    images_NCHW = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    means = (0.1, 0.2, 0.3)  # of blue, green, red
    plain = f_of(Preprocessing())
    own = f_of(Preprocessing(colours="bgr", mean=means, std=(0.5,)))
    own.load_state_dict(plain.state_dict())
    wanted = plain((images_NCHW.flip(1) / 255 - torch.tensor(means).reshape(3, 1, 1)) / 0.5)
    torch.testing.assert_close(own(normalise(images_NCHW)), wanted, atol=1e-5, rtol=1e-5)


def test_units_have_no_tensors_in_a_file(tmp_path: Path) -> None:
    own = f_of(IMAGENET)
    entry = safetensors_io.write(tmp_path / "f", own.state_dict())
    assert entry.tensors.keys() == f_of(Preprocessing()).state_dict().keys()
    safetensors_io.load_module(f_of(IMAGENET), tmp_path / "f", entry)


def test_the_standard_units_add_no_layer_and_no_word() -> None:
    cropped = Preprocessing(crop=0.875, interpolation="bicubic")
    assert "units" not in dict(f_of(cropped).named_children())
    assert next(iter(dict(f_of(IMAGENET).named_children()))) == "units"
    assert b"preprocessing" not in spec(Preprocessing()).canonical()
    assert ArchitectureSpec.model_validate_json(spec(IMAGENET).canonical()) == spec(IMAGENET)


def test_images_are_cut_and_resized_as_the_plan_says() -> None:
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    picture.paste((0, 0, 0), (8, 8, 56, 56))
    half = pixels(picture, ImageForm((3, 32, 32), Preprocessing(crop=0.75)))
    assert half.max() == 0
    assert pixels(picture, ImageForm((3, 32, 32))).max() == 255
    assert central_part(picture, 0.75).size == (48, 48)
    steps = Image.linear_gradient("L").convert("RGB")
    bicubic = ImageForm((3, 32, 32), Preprocessing(interpolation="bicubic"))
    assert not torch.equal(pixels(steps, bicubic), pixels(steps, ImageForm((3, 32, 32))))
    assert image_form(spec(IMAGENET)) == ImageForm((3, 32, 32), IMAGENET)


@pytest.mark.parametrize(
    ("preprocessing", "channels", "said"),
    [
        (Preprocessing(mean=(0.1, 0.2)), 3, r"mean has 2 numbers and the net takes 3 channels"),
        (IMAGENET, 1, r"mean has 3 numbers and the net takes 1 channels; give one number, or 1"),
        (Preprocessing(colours="bgr"), 1, r'colours = "bgr" and the net takes 1 channels'),
    ],
)
def test_units_that_do_not_fit_are_refused(
    preprocessing: Preprocessing, channels: int, said: str
) -> None:
    grey = spec(preprocessing).model_copy(
        update={"settings": {**SETTINGS, "in_channels": channels}}
    )
    with pytest.raises(SchemaError, match=said):
        input_shape(grey)


def test_an_extractor_reads_images_as_the_plan_says() -> None:
    below = ArchitectureSpec(
        name="mobilenetv2", split="block4", settings={"input_size": 32, "output_stride": 8}
    )
    above = ArchitectureSpec(
        name="small-vgg", split="pool1", settings=SETTINGS, preprocessing=IMAGENET
    )
    below = below.model_copy(update={"settings": {**below.settings, "width": 0.25}})
    joined = above.model_copy(update={"extractor": below})
    names = [name for name, _ in build_category_module(joined).named_children()]
    assert names[0] == "units"
    assert names.count("units") == 1
    twice = above.model_copy(
        update={"extractor": below.model_copy(update={"preprocessing": IMAGENET})}
    )
    with pytest.raises(SchemaError, match="has preprocessing of its own; leave it out"):
        build_category_module(twice)
