"""The decoder that the experiments share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.shared.decoder import Decoder


def test_packed_documents_do_not_see_one_another():
    model = Decoder(2, 8, 2, 7, vocabulary=11, rngs=nnx.Rngs(0))
    documents = [np.array([3, 1, 4]), np.array([1, 5, 9, 2])]
    rows = jnp.concatenate(documents)[None]
    segments = jnp.repeat(jnp.array([1, 2]), jnp.array([3, 4]))[None]
    positions = jnp.concatenate([jnp.arange(3), jnp.arange(4)])[None]
    logits = jax.jit(model)
    packed = logits(rows, segments, positions)[0]
    # What follows a document is not seen, so both are as long as the row.
    alone = [logits(np.resize(document, (1, 7)))[0, : len(document)] for document in documents]
    np.testing.assert_allclose(packed, jnp.concatenate(alone), atol=1e-5)
    # Without segments the second document sees the first one.
    assert jnp.abs(logits(rows)[0, 3:] - alone[1]).max() > 1e-3


def test_one_segment_is_no_segment():
    logits = jax.jit(Decoder(1, 8, 2, 5, vocabulary=11, rngs=nnx.Rngs(0)))
    rows = jnp.array([[1, 2, 3, 4, 5]])
    np.testing.assert_allclose(logits(rows), logits(rows, jnp.ones_like(rows), jnp.arange(5)[None]), atol=1e-6)
