"""The figure of the language model."""

from experiments.fewer_weight_updates import text_figure
from mixjax.runner import configs
from tests.experiments.fewer_weight_updates.made_up_text import CONFIG, made_up_results


def test_the_figure_shows_every_run():
    figure = text_figure.figure(made_up_results(0.02))
    assert len(figure.axes) == 6
    mixing = [label.get_text() for label in figure.axes[2].get_legend().get_texts()]
    erma = [label.get_text() for label in figure.axes[4].get_legend().get_texts()]
    assert set(mixing + erma) == {run.name for run in configs.load(CONFIG).runs}
    assert all(axis.get_ylabel() for axis in figure.axes)
