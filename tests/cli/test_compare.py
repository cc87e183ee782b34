"""The options of ``mixjax compare`` as its help shows them."""


def test_help_teaches(command):
    out = command("compare", "--help")[1]
    for part in (
        "Examples:",
        "--along",
        "--baseline erma --select step=100",
        "results/quickstart results/again",
        "Holm",
    ):
        assert part in out
