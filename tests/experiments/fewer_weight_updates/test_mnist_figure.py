"""The figure of MNIST's domains."""

from experiments.fewer_weight_updates import mnist_figure
from tests.experiments.fewer_weight_updates.made_up_mnist import long_horizons_win, made_up


def test_figure_shows_every_method_and_domain_once():
    data = made_up(long_horizons_win, lambda n: 1.0, 1.3)
    figure = mnist_figure.figure({"A run": data})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 6 + 1 + 3 + 6 + 1
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
