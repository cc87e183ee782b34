"""What makes a sweep another one than that whose chunks are in a folder."""

import jax
import jax.numpy as jnp
import pytest

import mixjax
from mixjax.sweeps.checkpoints import ChangedError
from tests.sweeps.small_sweep import sweep


def test_a_sweep_is_another_one_if_its_arguments_data_or_code_differ(tmp_path):
    sweep(tmp_path)
    for changes, message in [
        ({"seeds": 6}, "seeds: 5, now 6"),
        ({"axes": {"scale": [1.0, 3.0]}}, r"axes\.scale: \[1\.0, 2\.0\], now \[1\.0, 3\.0\]"),
        ({"chunk": 5}, "chunk: 2, now 5"),
        ({"first_seed": 1}, "first_seed"),
        ({"data": jnp.float32(2.0)}, "another run: data differs. Go back"),
        ({"identity": {"config": {"a": 1}}}, "config"),
        ({"axes": {"scale": mixjax.sweeps.Labels(["a", "b"], ["b", "a"])}}, "labels.scale"),
    ]:
        with pytest.raises(ChangedError, match=message):
            sweep(tmp_path, **changes)

    with pytest.raises(ValueError, match=r"identity: \['data'\] are compared anyway"):
        sweep(tmp_path, identity={"data": "v1"})

    def other(key, hparams, data):
        return {"error": hparams["scale"] * jax.random.normal(key, (3,)) - data}

    with pytest.raises(ChangedError, match=r"program \(the code of train\)"):
        mixjax.sweep(other, checkpoint=tmp_path, seeds=5, axes={"scale": [1.0, 2.0]}, data=jnp.float32(1.0), chunk=2)
