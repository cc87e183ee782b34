"""The host's sampler against the JAX samplers: the same draws, weights and states; processes; checkpoints."""

import functools
import io
import multiprocessing
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import HostSampler, hardest, proportional
from mixjax.samplers.scored import threefry
from tests.samplers.scored.host_cases import LOSSES, PRIOR, ROUNDING, N, assert_states_agree, twins

KINDS = ("clipped", "self_normalised", "tree")
both_betas = pytest.mark.parametrize("beta", [1.5, None], ids=["hardness", "proportional"])
both_modes = pytest.mark.parametrize("replacement", [True, False], ids=["with", "without"])


def most_events(rate, trials):
    """Four standard deviations above the mean."""
    return rate * trials + 4 * (rate * trials) ** 0.5


@pytest.mark.parametrize("widest", [1024], indirect=True)
@both_betas
@pytest.mark.parametrize("n", [1000, 100_000])
def test_draws_with_replacement_differ_at_edges_only(n, beta):
    draws = 200_000
    losses = np.random.default_rng(1).gamma(2.0, 1.0, n).astype(np.float32)
    sampler, state, host = twins(n, beta, losses)
    theirs, their_weights = map(np.asarray, jax.jit(sampler.sample, static_argnums=2)(state, jax.random.key(5), draws))
    ours, our_weights = host.sample(5, draws)
    # A share's error moves an edge by at most half of it; uniforms lie 2^-23 apart; a node has fanout - 1 edges, and
    # the root, a square of up to 1024 children, 31 in either direction.
    rate = (len(host.state.sums) * (host.fanout - 1) + 2 * 31) * (ROUNDING / 2 + 2**-23)
    same = ours == theirs
    assert (~same).sum() <= most_events(rate, draws)
    np.testing.assert_allclose(our_weights[same], their_weights[same], rtol=ROUNDING)


@pytest.mark.parametrize("widest", [1024], indirect=True)
@pytest.mark.parametrize(("n", "beta"), [(1000, 1.5), (100_000, None)])
def test_batches_without_replacement_differ_at_ties_only(n, beta):
    size, batches = 64, 400
    losses = np.random.default_rng(1).gamma(2.0, 1.0, n).astype(np.float32)
    sampler, state, host = twins(n, beta, losses, replacement=False)
    keys = jax.random.split(jax.random.key(6), batches)
    theirs, their_weights = jax.jit(lambda s, keys: jax.lax.map(lambda k: sampler.sample(s, k, size), keys))(
        state, keys
    )
    ours, our_weights = map(np.stack, zip(*(host.sample(key, size) for key in jax.random.key_data(keys)), strict=True))
    # Of the perturbed log-masses, the r-th and the next are an exponential variable of rate about r apart: summed over
    # the ranks that are kept, the chance that two are within rounding of each other, at every level.
    rate = (len(host.state.sums) + 1) * (size + 1) ** 2 / 2 * 2 * ROUNDING
    same = (ours == theirs).all(1)
    assert (~same).sum() <= most_events(rate, batches)
    # A weight is B prior / (1 - exp(-exp(log-mass - threshold))), the threshold having an error at every level.
    np.testing.assert_allclose(our_weights[same], np.asarray(their_weights)[same], rtol=1e-3)


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@pytest.mark.parametrize(
    ("beta", "settings"),
    [
        (1.0, {"replacement": False, "prior": PRIOR, "floor": 0.2}),
        (1.0, {"prior": PRIOR, "decay": 0.6, "fanout": 18}),
        (1.0, {"replacement": False, "decay": 0.6, "floor": 0.2, "fanout": 512}),
        (None, {"prior": PRIOR, "floor": 0.2, "fanout": 3}),
        (None, {"replacement": False, "prior": PRIOR, "decay": 0.6}),
    ],
)
def test_twins_stay_twins_in_training(beta, settings):
    sampler, state, host = twins(N, beta, LOSSES, **settings)
    assert_states_agree(host.state, state)
    sample = jax.jit(sampler.sample, static_argnums=2)

    @jax.jit
    def learn(state, indices, losses):
        weights = [sampler.importance_weights(state, indices[:20], losses[:20], kind) for kind in KINDS]
        return sampler.update(state, indices, losses), weights

    different = 0
    for step in range(20):
        key = jax.random.fold_in(jax.random.key(8), step)
        theirs, _ = sample(state, key, 16)
        ours, _ = host.sample(jax.random.key_data(key), 16)
        different += (ours != np.asarray(theirs)).any()
        random = np.random.default_rng(step)
        indices = np.concatenate([theirs, theirs[:4], [-1, N, N + 10]])  # some twice, some from elsewhere
        losses = random.gamma(2.0, 1.0, len(indices)).astype(np.float32)
        losses[random.integers(len(losses), size=5)] = [np.nan, np.inf, -np.inf, 0.0, np.nan]
        state, wanted = learn(state, indices, losses)
        for kind, weights in zip(KINDS, wanted, strict=True):
            before = pickle.dumps(host.state)
            np.testing.assert_allclose(host.importance_weights(indices[:20], losses[:20], kind), weights, rtol=2e-5)
            assert pickle.dumps(host.state) == before
        assert host.update(indices, losses) is None
        assert_states_agree(host.state, state)
    assert different <= 1  # of 20 batches; see the rates above
    np.testing.assert_allclose(host.log_probs(), sampler.log_probs(state), rtol=1e-6, atol=ROUNDING)
    indices = np.array([5, 7, 5, N - 1])
    np.testing.assert_array_equal(host.log_probs(indices), host.log_probs()[indices])


def test_update_by_hand():
    host = HostSampler(4, [1.0, 2.0, 3.0, 4.0], beta=1.0, decay=0.5)
    host.update([0, 2, 2, 1, 3, 9], [3.0, 5.0, 9.0, np.nan, -np.inf, 1.0])
    assert host.values.tolist() == [2.0, 2.0, 5.0, 4.0]
    np.testing.assert_allclose(host.log_probs(), np.array([2, 2, 5, 4]) - np.log(np.exp([2, 2, 5, 4]).sum()), rtol=1e-6)


@pytest.mark.parametrize(
    ("beta", "losses", "shares"),
    [
        (0.0, [1.0, -1e30, 1e30, 2.0], [0.25, 0.25, 0.25, 0.25]),
        (np.inf, [1.0, 3.0, 3.0, 2.0], [0.0, 0.5, 0.5, 0.0]),
        (1.0, [np.nan, 3.0, np.inf, 3.0], [0.25, 0.25, 0.25, 0.25]),
        (None, [0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]),
        (None, [-1.0, 1.0, 0.0, 3.0], [0.0, 0.25, 0.0, 0.75]),
    ],
)
def test_extremes(beta, losses, shares):
    sampler, state, host = twins(4, beta, np.array(losses, np.float32))
    np.testing.assert_allclose(np.exp(host.log_probs()), shares, atol=1e-6)
    np.testing.assert_array_equal(host.sample(3, 50)[0], sampler.sample(state, jax.random.key(3), 50)[0])


@pytest.mark.parametrize("n", [1, 9])
@both_modes
def test_small(n, replacement):
    sampler, state, host = twins(n, 1.0, LOSSES[:n], replacement=replacement)
    for ours, theirs in zip(
        host.sample(3, n), jax.jit(sampler.sample, static_argnums=2)(state, jax.random.key(3), n), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_fewer_examples_than_slots():
    prior = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    sampler, state, host = twins(5, 1.0, np.ones(5), prior=prior, replacement=False)
    indices, weights = host.sample(2, 4)
    assert set(indices) == {1, 3} and weights[2:].tolist() == [0.0, 0.0] and indices[2] == indices[3] == indices[0]
    for ours, theirs in zip(
        (indices, weights), jax.jit(sampler.sample, static_argnums=2)(state, jax.random.key(2), 4), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 70, N])
def test_hardest_are_jaxs(k):
    values = np.round(LOSSES, 1)  # with ties
    ours, theirs = HostSampler(N, values, beta=1.0).hardest(k), hardest(values, k)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def load(pipe, steps):
    """A loader: draws by keys of its own, and learns losses from the pipe."""
    host = pipe.recv()
    for step in range(steps):
        indices, _ = host.sample(threefry.fold_in(threefry.key(0), step), 8)
        pipe.send((indices, pickle.dumps(host)))
        host.update(indices, pipe.recv())


def test_a_loader_in_another_process_sees_updates(monkeypatch):
    # 64 examples of loss 1, each drawn gets loss 0, and exp(40) is the odds: 8 batches of 8 are all 64, if seen.
    monkeypatch.setenv("JAX_PLATFORMS", "none_such")  # of the new process, where any use of a device would fail
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=load, args=(other, 8))
    process.start()
    pipe.send(HostSampler(64, 1.0, beta=40.0, replacement=False))
    batches, checkpoints = [], []
    for _ in range(8):
        assert pipe.poll(60)
        indices, checkpoint = pipe.recv()
        batches.append(indices)
        checkpoints.append(checkpoint)
        pipe.send(np.zeros(8))
    process.join(60)
    assert process.exitcode == 0
    assert sorted(np.concatenate(batches)) == list(range(64))
    # Resumed here from the middle, bit by bit.
    host = pickle.loads(checkpoints[3])
    for step in range(3, 8):
        indices, _ = host.sample(threefry.fold_in(threefry.key(0), step), 8)
        np.testing.assert_array_equal(indices, batches[step])
        assert pickle.dumps(host.state) == pickle.dumps(pickle.loads(checkpoints[step]).state)
        host.update(indices, np.zeros(8))


def test_a_process_that_uses_the_host_sampler_only_does_not_load_jax():
    code = """if True:
        import pickle, sys
        from mixjax.samplers import HostBatchSampler, HostIndexSampler, HostSampler
        for beta, replacement in ((1.0, True), (None, False)):
            host = HostSampler(3000, 2.0, beta, prior=range(3000), floor=0.1, replacement=replacement)
            indices, _ = host.sample(7, 4)
            host.importance_weights(indices, [0.1, 0.2, 0.3, 4.0], "tree")
            host.update(indices, [0.1, 0.2, 0.3, 4.0])
            host.rebuild(), host.log_probs(indices), host.hardest(2)
            again = pickle.loads(pickle.dumps(host))
            again.state = host.state
            assert again.sample(3, 8)[0].tolist() == host.sample(3, 8)[0].tolist()
            try:
                host.sample(0, 0)
            except ValueError:
                pass
            batches = HostBatchSampler(host, 4, num_batches=2)
            for _ in HostIndexSampler(batches):
                batches.keep(batches.batch().step) if batches._taken < batches._next else None
            batches.load_state_dict(batches.state_dict())
        loaded = [name for name in ("jax", "jaxlib", "chex", "optax", "flax") if name in sys.modules]
        print(loaded)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@both_modes
def test_checkpoint_by_savez_resumes_bit_by_bit(replacement):
    make = functools.partial(HostSampler, N, beta=1.0, prior=PRIOR, floor=0.1, replacement=replacement)
    host, file = make(LOSSES), io.BytesIO()
    host.update(np.arange(40), LOSSES[40:80])
    leaves, structure = jax.tree.flatten(host.state)
    np.savez(file, *leaves)
    file.seek(0)
    resumed = make(0.0)
    resumed.state = jax.tree.unflatten(structure, np.load(file).values())
    for step in range(5):
        ours, theirs = resumed.sample(step, 16), host.sample(step, 16)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        for sampler in (resumed, host):
            sampler.update(ours[0], np.sin(ours[0]))
    assert pickle.dumps(resumed.state) == pickle.dumps(host.state)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, "n >= 1"),
        ({"fanout": 1}, "fanout >= 2"),
        ({"beta": -1.0}, r"beta must be in \[0, inf\], got -1.0"),
        ({"beta": np.nan}, r"beta must be in \[0, inf\]"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\]"),
        ({"floor": -0.1}, r"floor must be in \[0, 1\]"),
        ({"clip": (0.0, 1.0)}, "clip must be positive"),
        ({"values": np.ones(3)}, r"initial values must be a scalar or have shape \(4,\), got \(3,\)"),
        ({"values": np.nan}, "initial values must be finite"),
        ({"prior": np.ones(3)}, r"prior must have shape \(4,\), got \(3,\)"),
        ({"prior": -np.ones(4)}, "prior must be finite, non-negative"),
    ],
)
def test_construction_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HostSampler(**{"n": 4, "values": 1.0, "beta": 1.0} | kwargs)


def test_call_errors():
    host = HostSampler(4, 1.0, beta=1.0, replacement=False)
    for size in (0, 5):
        with pytest.raises(ValueError, match=rf"batch_size must be in \[1, 4\], got {size}"):
            host.sample(0, size)
    for key in (jax.random.key(0), jax.random.key_data(jax.random.key(0, impl="rbg")), np.zeros(2), 0.5):
        with pytest.raises(ValueError, match=r"key must be a seed, or uint32 of shape \(2,\)"):
            host.sample(key, 2)
    for call in (host.update, host.importance_weights):
        with pytest.raises(ValueError, match="vectors of one length"):
            call([0, 1], [1.0])
    with pytest.raises(ValueError, match="kind must be one of"):
        host.importance_weights([0], [1.0], kind="exact")
    with pytest.raises(TypeError, match="state must be a SamplerState, got dict"):
        host.state = host.state._asdict()
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"k must be in \[1, 4\], got {k}"):
            host.hardest(k)


def test_other_random_numbers_are_refused():
    with (
        jax.default_prng_impl("rbg"),
        pytest.raises(RuntimeError, match="jax_default_prng_impl = threefry2x32, got rbg"),
    ):
        HostSampler(4, 1.0)
    with jax.threefry_partitionable(False), pytest.raises(RuntimeError, match="jax_threefry_partitionable = True"):
        HostSampler(4, 1.0)
    assert HostSampler(4, jnp.ones(4)).sample(jax.random.PRNGKey(0), 2)[0].dtype == np.int32


@pytest.mark.parametrize("kind", ["clipped", "self_normalised"])
def test_ratios_of_scores_that_were_or_become_zero(kind):
    start, indices, new = np.float32([0.0, 0.0, 2.0, 2.0]), np.arange(4), np.float32([3.0, 0.0, 0.0, 4.0])
    sampler = proportional(4, floor=0.5)
    wanted = sampler.importance_weights(sampler.init(start), indices, new, kind)
    weights = HostSampler(4, start, floor=0.5).importance_weights(indices, new, kind)
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, None])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_the_first_loss_that_is_not_finite_is_told_once_and_keeps_its_place(wrong, compiled):
    host = HostSampler(5, 1.0, beta=1.0, compiled=compiled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host.update([0, 4], [0.5, 0.25])
        # Padding has an index of no example, and nobody's loss.
        host.update([5, -1], [wrong, wrong])
    with pytest.warns(RuntimeWarning, match="2 of 3 losses are not finite, the first is .* of example 3: ") as told:
        host.update([1, 3, 2], [0.1, wrong, wrong])
    assert told[0].filename == __file__
    host = pickle.loads(pickle.dumps(host))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host.update([3], [wrong])
    np.testing.assert_allclose(host.values, [0.5, 0.1, 1.0, 1.0, 0.25])
    with pytest.warns(RuntimeWarning):
        HostSampler(5, 1.0, beta=1.0, compiled=compiled).update([0], [wrong])


def test_an_example_of_prior_zero_is_no_longer_drawn_whatever_its_loss():
    host = HostSampler(4, [0.1, 9.0, 0.1, 0.2], beta=10.0)
    assert (host.sample(0, 50)[0] == 1).all()
    mended = HostSampler(4, host.values, beta=10.0, prior=[1, 0, 1, 1])
    assert not (mended.sample(0, 50)[0] == 1).any()
    growing = HostSampler(4, host.values, beta=10.0, growing=True)
    growing.insert([1], 0.0, prior=0.0)
    assert not (growing.sample(0, 50)[0] == 1).any()
