"""``mixjax show`` as its help shows it, and on a folder that is no result."""


def test_help_teaches(command):
    assert "mixjax show results/quickstart" in command("show", "--help")[1]


def test_show_needs_a_result(command, tmp_path):
    code, out, err = command("show", tmp_path)
    assert (code, out) == (2, "") and "holds no result of `mixjax run`" in err and err.count("\n") == 1
