"""Eight simulated CPU devices, so that sharded code is tested everywhere; set before JAX makes its first array."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
