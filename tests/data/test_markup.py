"""Plain text out of HTML."""

import pytest

from mixjax.data.markup import plain


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("no <b>tags</b>\n  at &lt;all&gt;", "no tags at <all>"),
        ("<p>one<p>two</p><div>three<h2>four</h2></div>", "one\n\ntwo\n\nthree\n\nfour"),
        ("<ul><li>a</li><li> b </li></ul><table><tr><td>c</td><th>d</th></tr></table>", "a\n\nb\n\nc\n\nd"),
        ("<head><title>x</title></head><p>a<script>if (a < b) c();</script><!-- <p>no --> d</p>", "a d"),
        ("<STYLE>p {}</STYLE><P CLASS='x'>a<BR/>b</P>", "a b"),
        ("<p>a</p><pre class='code'>  x = 1\n\n\ty<br>z &amp;  </pre>b", "a\n\n  x = 1\n\ty\nz &\n\nb"),
        ("<pre></pre><p></p><p>&nbsp;</p>a", "a"),
        ("a <span>b</span>c <i>d</i>, <parameter>e</parameter>", "a bc d, e"),
    ],
)
def test_the_text_of_pages(page, text):
    assert plain(page) == text
