"""Makes small cases for the tests: images of ten patterns with a problem on them, an anatomy, and tables."""

import jax
import jax.numpy as jnp
import numpy as np

import mixjax.data
from experiments.hardness_sampling import mnist, schemes
from experiments.hardness_sampling.tabular import Rows
from mixjax.data.anatomies import Anatomy

PROBLEM = mnist.Mnist(keep=0.1, batch_size=8, probe_size=106, test_size=120, num_steps=16, record_every=4)

# A grid for cases with tumours, and the centres' shares.
GRID = 32
SHARES = (0.4, 0.3, 0.2, 0.1)

# The number of groups of each table.
GROUPS = {"adult": 10, "compas": 6, "heart": 4, "opinions": 8}


def fake_images(name="mnist"):
    """Draws 600 training and 200 test images of ten noisy patterns."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784))
    labels = [np.arange(size, dtype=np.int32) % 10 for size in (600, 200)]
    images = [(patterns[y] + 0.4 * rng.standard_normal((len(y), 784))).clip(0, 1).astype(np.float32) for y in labels]
    return mixjax.data.Images(images[0], labels[0], images[1], labels[1], (28, 28), 10, "a test")


def compiled(scheme):
    """Returns the same scheme with each function compiled."""
    return schemes.Scheme(*map(jax.jit, scheme))


def egg(grid=GRID):
    """Makes an anatomy: white matter inside grey matter inside fluid, with a ventricle of fluid in the middle."""
    places = (np.indices((grid,) * 3) + 0.5) / grid - 0.5
    radius = np.sqrt((places[0] / 0.8) ** 2 + places[1] ** 2 + (places[2] / 0.9) ** 2)
    tissues = np.stack([(radius < 0.06) | (radius > 0.38), (radius > 0.28) & (radius <= 0.38), radius <= 0.28], -1)
    tissues[radius < 0.06, 2] = False
    return Anatomy("egg", tissues.astype(np.float32) * (radius < 0.42)[..., None])


def made_up(sizes, key=0):
    """Makes rows with two features. The first decides the label in every group but the last, where the second does."""
    rng = np.random.default_rng(key)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    features = rng.normal(size=(len(groups), 2)).astype(np.float32)
    deciding = np.where(groups == len(sizes) - 1, features[:, 1], features[:, 0])
    order = rng.permutation(len(groups))
    return Rows(*map(jnp.asarray, (features[order], (deciding > 0).astype(np.int32)[order], groups[order])))


def fake_table(name, **kwargs):
    """Makes a table of 70 rows a group, in place of a real one."""
    rows = made_up([70] * GROUPS[name])
    names = tuple(f"group {g}" for g in range(GROUPS[name]))
    return mixjax.data.Table(*map(np.asarray, rows), names, ("first", "second"), "made up")
