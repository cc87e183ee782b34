"""Experiments on mixes whose sampling weights are limited, or move, while a model trains."""
