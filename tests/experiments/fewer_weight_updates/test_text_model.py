"""The decoder's losses, their variances, and the dependence of bytes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.fewer_weight_updates.text_model import Decoder, byte_losses, design_effects, loss_variances


def test_a_loss_depends_on_the_bytes_up_to_its_own_alone():
    losses = jax.jit(lambda x: byte_losses(Decoder(1, 8, 2, 6, rngs=nnx.Rngs(0)), x))
    windows = np.random.default_rng(0).integers(0, 256, (3, 7)).astype(np.uint8)
    changed = windows.copy()
    changed[:, 4] += 1
    before, after = losses(np.concatenate([windows, changed])).reshape(2, 3, 6)
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-6)
    assert (np.abs(before - after)[:, 3:] > 1e-6).all()  # byte 4 is what loss 3 predicts, and what losses 4 and 5 see


def test_a_loss_is_the_cross_entropy_of_the_next_byte():
    windows = np.arange(12).reshape(2, 6).astype(np.uint8)

    @jax.jit
    def both(windows):
        model = Decoder(0, 4, 1, 5, rngs=nnx.Rngs(0))
        return model(windows[:, :-1]), byte_losses(model, windows)

    logits, found = both(windows)
    logits = np.asarray(logits, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, windows[:, 1:, None].astype(int), axis=-1)[..., 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_two_variances_of_a_sequences_mean_loss():
    losses = np.random.default_rng(0).normal(size=(2, 5, 8)) + np.arange(5)[:, None]
    of_sequences, of_bytes = loss_variances(jnp.asarray(losses))
    np.testing.assert_allclose(of_sequences, losses.mean(axis=2).var(axis=1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(of_bytes, losses.reshape(2, 40).var(axis=1, ddof=1) / 8, rtol=1e-5)


def test_a_design_effect_is_one_for_independent_losses_and_k_for_equal_ones():
    rng = np.random.default_rng(0)
    independent, equal = rng.normal(size=(2000, 8)), np.repeat(rng.normal(size=(2000, 1)), 8, axis=1)
    found = design_effects(jnp.stack([independent, equal]), [1, 2, 8])
    np.testing.assert_allclose(found, [[1, 1, 1], [1, 2, 8]], rtol=0.15)
    blocks = independent.reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(found[0, 1], 2 * blocks.var(ddof=1) / independent.var(ddof=1), rtol=1e-5)
    of_sequences, of_bytes = loss_variances(jnp.asarray(independent))
    np.testing.assert_allclose(found[0, 2], of_sequences / of_bytes, rtol=1e-2)  # divisors n - 1
