"""Tests the random patches and the random changes of 3-D cases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from experiments.hardness_sampling import augmentation
from experiments.hardness_sampling.lesions import simulate
from tests.experiments.hardness_sampling.cases import GRID, SHARES, egg


@pytest.fixture(scope="module")
def cases():
    return simulate([egg()], (7, 0), 20, SHARES, GRID)


def compiled(function):
    """The function, compiled anew: the tests change the module's constants, which a compiled function keeps."""
    return jax.jit(lambda *args: function(*args))


def painted(label):
    """An image that shows the label: channel 0 is 1 + label where the label is, so that any misalignment shows."""
    return jnp.stack([1.0 + label] * 2, -1).astype(jnp.float32)


@pytest.fixture(scope="module")
def label(cases):
    return jnp.asarray(cases.labels[0])


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def crops(keys, image, label):
    return augmentation.crop(keys, image, label, 8)


def test_crop_keeps_image_and_label_together_and_often_finds_the_tumour(label):
    keys = jax.random.split(jax.random.key(0), 300)
    images, labels = crops(keys, painted(label), label)
    assert images.shape == (300, 8, 8, 8, 2) and labels.shape == (300, 8, 8, 8)
    np.testing.assert_array_equal(images[..., 0], 1 + labels)
    # A patch that is centred on the tumour holds a part of it. Of the others a share `plain` does by chance.
    room = GRID - 8
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(label) > 0, (8, 8, 8))
    plain = windows.any((3, 4, 5))[: room + 1].mean()
    expected = augmentation.FOREGROUND + (1 - augmentation.FOREGROUND) * plain
    found = (labels > 0).any((1, 2, 3)).mean()
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)


def test_a_centred_crop_shows_each_label_equally_often(label, monkeypatch):
    monkeypatch.setattr(augmentation, "FOREGROUND", 1.0)
    draw = jax.jit(jax.vmap(lambda key: augmentation.crop(key, label[..., None], label, 4)[1]))
    labels = draw(jax.random.split(jax.random.key(1), 600))
    counts = np.bincount(np.asarray(labels[:, 2, 2, 2]), minlength=4)
    assert counts[0] == 0 and (np.abs(counts[1:] - 200) < 4 * np.sqrt(600 * 2 / 9)).all()


def test_crop_of_a_case_without_tumour_is_anywhere():
    image = jnp.arange(10.0 * 11 * 12).reshape(10, 11, 12, 1)
    images, _ = crops(jax.random.split(jax.random.key(0), 400), image, jnp.zeros((10, 11, 12), jnp.int8))
    starts = np.unique(np.asarray(images[:, 0, 0, 0, 0]))
    every = np.asarray(image[:3, :4, :5, 0]).ravel()
    assert np.isin(starts, every).all() and len(starts) > 0.98 * len(every)


def test_crop_may_be_the_whole_case(label):
    image, same = jax.jit(augmentation.crop, static_argnums=3)(jax.random.key(0), painted(label), label, GRID)
    np.testing.assert_array_equal(image, painted(label))
    np.testing.assert_array_equal(same, label)


@pytest.mark.parametrize("patch", [0, 9])
def test_patch_must_fit(patch):
    with pytest.raises(ValueError, match=f"patch must be from 1 to the case's shortest side 8, got {patch}"):
        augmentation.crop(jax.random.key(0), jnp.zeros((8, 9, 9, 1)), jnp.zeros((8, 9, 9)), patch)


def test_mirror_flips_every_axis_half_the_time_and_both_alike():
    label = jnp.arange(8).reshape(2, 2, 2)
    mirror = jax.jit(jax.vmap(augmentation.mirror, (0, None, None)))
    images, labels = mirror(jax.random.split(jax.random.key(0), 400), painted(label), label)
    np.testing.assert_array_equal(images[..., 0], 1 + labels)
    _, counts = np.unique(np.asarray(labels).reshape(400, -1), axis=0, return_counts=True)
    assert len(counts) == 8 and (np.abs(counts - 50) < 4 * np.sqrt(400 * 7 / 64)).all()


def test_turn_moves_image_and_label_together(label, monkeypatch):
    monkeypatch.setattr(augmentation, "ROTATION", (1.0, 30.0))
    monkeypatch.setattr(augmentation, "ZOOM", (1.0, 0.7, 1.4))
    whole = jnp.asarray(label) > 0
    turn = compiled(augmentation.turn)
    for seed in range(5):
        image, turned = turn(jax.random.key(seed), whole[..., None].astype(jnp.float32), whole)
        assert turned.dtype == whole.dtype and (turned != whole).any()
        overlap = 2 * ((image[..., 0] > 0.5) & turned).sum() / ((image[..., 0] > 0.5).sum() + turned.sum())
        assert overlap > 0.9  # linear against nearest: they differ on the border only


def test_turn_is_a_rotation_about_the_middle_or_a_zoom(monkeypatch):
    grid = 33
    places = np.indices((grid,) * 3) - grid // 2
    ball = jnp.asarray((places**2).sum(0) < 8**2)
    monkeypatch.setattr(augmentation, "ROTATION", (1.0, 30.0))
    monkeypatch.setattr(augmentation, "ZOOM", (0.0, 0.7, 1.4))
    _, turned = compiled(augmentation.turn)(jax.random.key(0), ball[..., None].astype(jnp.float32), ball)
    assert (turned ^ ball).sum() < 0.1 * ball.sum()
    monkeypatch.setattr(augmentation, "ROTATION", (0.0, 30.0))
    monkeypatch.setattr(augmentation, "ZOOM", (1.0, 1.25, 1.25))
    _, zoomed = compiled(augmentation.turn)(jax.random.key(0), ball[..., None].astype(jnp.float32), ball)
    assert float(zoomed.sum() / ball.sum()) == pytest.approx(1.25**3, rel=0.1)


@pytest.mark.parametrize("setting", ["BLUR", "LOW_RESOLUTION"])
def test_blur_and_low_resolution_smooth_and_keep_constants(cases, setting, monkeypatch):
    for other in ("BLUR", "LOW_RESOLUTION"):
        monkeypatch.setattr(augmentation, other, (float(other == setting), *getattr(augmentation, other)[1:]))
    monkeypatch.setattr(augmentation, "PER_CHANNEL", 1.0)
    noise = jax.random.normal(jax.random.key(1), (24, 24, 24, 2))
    smooth = compiled(augmentation._degrade)(jax.random.key(0), noise)
    assert float(smooth.std()) < 0.8
    np.testing.assert_allclose(
        compiled(augmentation._degrade)(jax.random.key(0), jnp.full((24, 24, 24, 2), 3.0)), 3, atol=1e-4
    )


def test_blur_is_the_gaussian_of_scipy(monkeypatch):
    monkeypatch.setattr(augmentation, "BLUR", (1.0, 0.8, 0.8))
    monkeypatch.setattr(augmentation, "LOW_RESOLUTION", (0.0, 0.5, 1.0))
    monkeypatch.setattr(augmentation, "PER_CHANNEL", 1.0)
    noise = np.random.default_rng(0).standard_normal((20, 20, 20, 1)).astype(np.float32)
    expected = ndimage.gaussian_filter(noise[..., 0], 0.8, truncate=6)
    inside = (slice(5, -5),) * 3
    np.testing.assert_allclose(
        compiled(augmentation._degrade)(jax.random.key(0), noise)[..., 0][inside], expected[inside], atol=1e-4
    )


def test_gamma_keeps_order_mean_and_deviation(cases):
    image = jnp.asarray(cases.images[0][..., :1])
    changed = compiled(augmentation._gamma)(jax.random.key(0), image, 1.0, 1.4, 1.4)
    assert float(jnp.abs(changed - image).max()) > 0.1
    np.testing.assert_allclose(changed.mean(), image.mean(), atol=1e-4)
    np.testing.assert_allclose(changed.std(), image.std(), rtol=1e-3)
    order = jnp.argsort(image.ravel())
    assert (jnp.diff(changed.ravel()[order]) >= -1e-5).all()


@pytest.fixture(scope="module")
def patches(cases):
    """Two of the cases, cut to 20 voxels around the tumour."""
    chosen = np.flatnonzero(cases.centres == 0)[:2]
    keys = jax.random.split(jax.random.key(3), 2)
    cut = jax.vmap(lambda key, image, label: augmentation.crop(key, image, label, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentation, "FOREGROUND", 1.0)
        return jax.jit(cut)(keys, jnp.asarray(cases.images[chosen]), jnp.asarray(cases.labels[chosen]))


@pytest.fixture(scope="module")
def augmented(patches):
    """Sixteen augmentations of each patch, all with their own keys: [16, 2, ...]."""
    keys = jax.random.split(jax.random.key(5), (16, 2))
    return keys, jax.jit(jax.vmap(jax.vmap(augmentation.augment), (0, None, None)))(keys, *patches)


def test_augment_under_vmap_is_augment(patches, augmented):
    keys, (images, labels) = augmented
    alone = jax.jit(augmentation.augment)
    for draw, one in ((0, 0), (0, 1), (5, 1), (9, 0)):
        image, label = alone(keys[draw, one], patches[0][one], patches[1][one])
        np.testing.assert_allclose(image, images[draw, one], atol=2e-4)
        np.testing.assert_array_equal(label, labels[draw, one])


def test_augment_keeps_shapes_types_and_the_background(patches, augmented):
    _, (images, labels) = augmented
    assert images.shape == (16, *patches[0].shape) and labels.shape == (16, *patches[1].shape)
    assert images.dtype == jnp.float32 and labels.dtype == jnp.int8 and jnp.isfinite(images).all()
    nothing = (images == 0).all(-1)
    assert nothing.mean() > 0.1 and (labels[nothing] == 0).mean() > 0.999


def test_every_key_gives_another_example(augmented):
    _, (images, _) = augmented
    flat = np.asarray(images[:, 0]).reshape(16, -1)
    assert np.abs(flat[:, None] - flat).max(-1)[~np.eye(16, dtype=bool)].min() > 0.1


def test_augment_keeps_tumour_and_image_aligned(augmented):
    """The enhancing region stays the bright one in t1ce, whatever is drawn: image and label move together."""
    _, pairs = augmented
    images, labels = (np.asarray(part).reshape(32, *part.shape[2:]) for part in pairs)
    seen = 0
    for image, label in zip(images, labels, strict=True):
        if (label == 3).sum() >= 10 and (label == 1).sum() >= 10:
            seen += 1
            assert image[label == 3, 1].mean() > image[label == 1, 1].mean() + 0.3
    assert seen > 16
