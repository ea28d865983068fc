"""What is text in files of several kinds, which headings it stands under, and how short sections are joined."""

from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, StreamObject

from uar.collections.chunks import chunks
from uar.collections.sections import Section, joined, read_document
from uar.collections.sections.decoding import decoded

FONT = DictionaryObject(
    {
        NameObject(key): NameObject(name)
        for key, name in {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}.items()
    }
)


def sections(tmp_path: Path, name: str, content: str) -> list[tuple[str, tuple[str, ...]]]:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    found = read_document(path)
    return [(": ".join(section.path) or found.name, section.paragraphs) for section in found.sections]


def words(number: int, word: str = "word") -> str:
    return " ".join([word] * number)


def test_short_sections_join_until_they_are_long_enough() -> None:
    ten, fifty = (words(10),), (words(50),)
    log = [Section(("Log", f"v{n}"), ten) for n in range(5)]
    assert [len(group) for group in joined(log, 20)] == [2, 3]  # the rest joins the group before it
    long = Section(("Log", "long"), fifty)
    assert joined([log[0], long, log[1], long, log[2]], 20) == [[log[0], long], [log[1], long, log[2]]]
    assert joined([long, log[0], long], 20) == [[long], [log[0], long]]
    assert joined(log[:1], 20) == [log[:1]] and joined(log, 0) == [[one] for one in log] and joined([], 20) == []


def test_a_title_says_what_the_whole_passage_stands_under() -> None:
    log = [Section(("Log", f"v{n}"), (words(10, f"w{n}"),)) for n in range(2)]
    assert chunks(log, 120, 20) == [("Log", f"v0: {words(10, 'w0')} v1: {words(10, 'w1')}")]
    long = Section(("Log", "Why?"), (words(60, "a"), words(60, "b")))
    assert chunks([log[0], long], 80, 20) == [
        ("Log", f"v0: {words(10, 'w0')} Why? {words(60, 'a')}"),
        ("Log: Why?", words(60, "b")),
    ]
    rest = Section(("Log", "v9"), (words(10, "r"),))  # its heading stands in the text, what it begins within in the title
    assert chunks([long, rest], 80, 20)[1] == ("Log: Why?", f"{words(60, 'b')} v9: {words(10, 'r')}")
    assert chunks([Section((), ("Few.",)), Section(("A",), ("More.",))], 80, 20) == [("", "Few. A: More.")]


def test_no_passage_is_longer_for_the_headings_in_it() -> None:
    log = [Section(("Log", words(5, f"h{n}")), (words(19, f"w{n}"),)) for n in range(6)]
    assert max(len(text.split()) for _, text in chunks(log, 60, 20)) <= 60


def test_the_lead_to_a_long_block_is_no_stub_of_its_own() -> None:
    code = "\n".join(words(10, f"c{n}") for n in range(11))
    (first, second) = [text for _, text in chunks([Section((), ("An example of it:", code))], 110, 20)]
    assert first.startswith("An example of it: c0") and second.startswith("c")
    lead = f"{words(50)} as in:"
    assert chunks([Section((), (words(50), lead, words(50, "c"), words(50)))], 120, 20)[1][1].startswith(lead)


def test_every_heading_above_a_section_is_in_its_title(tmp_path: Path) -> None:
    text = "# Log\n\n## 1.2\n\n### Added\n\nHives.\n\n### Fixed\n\nWax.\n\n## 1.1\n\n### Added\n\nBees.\n"
    expected = [("Log: 1.2: Added", ("Hives.",)), ("Log: 1.2: Fixed", ("Wax.",)), ("Log: 1.1: Added", ("Bees.",))]
    assert sections(tmp_path, "a.md", text) == expected
    lines = text.replace("### ", "<h3>").replace("## ", "<h2>").replace("# ", "<h1>")
    assert sections(tmp_path, "a.html", lines.replace("\n\n", "<p>")) == expected


def test_markdown_has_headings_code_and_text(tmp_path: Path) -> None:
    text = "---\ntitle: 'Wax'\ntags: [a]\n---\n[![b](http://x/y.svg)](http://z) Intro <p align='c'>hi</p>\n# Bees ##\n"
    text += "See [docs](http://x), [more][m].\n\n[m]: http://y\n\n<!-- a\n\nb -->\n\n"
    text += "```sh\n# no heading\n```\n\nHives\n-----\nUnder *it*.\n"
    assert sections(tmp_path, "a-b.md", text) == [
        ("Wax", ("Intro", "hi")),
        ("Bees", ("See docs, more.", "# no heading")),
        ("Bees: Hives", ("Under it.",)),
    ]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("| a | b |\n|---|:-:|\n| 1 | `2` |", ("a | b\n1 | 2",)),
        ("- one\n- two\n\n  more", ("- one\n- two", "more")),
        ("3. three\n4. four", ("3. three\n4. four",)),
        ("pip install <package> or a<b> `<c>`", ("pip install <package> or a `<c>`".replace("`", ""),)),
        ("Of <title> and <script>.", ("Of <title> and <script>.",)),
        ("Text.[^1]\n\n[^1]: A note.\n\n> [!NOTE]\n> Hot.\n\n!!! warning\n    Wet.", ("Text.", "A note.", "Hot.", "Wet.")),
        ("## Table of Contents\n\n- [A](#a)\n  - [B](#b)\n\nText.", ("Text.",)),
        ("## Contents\n\n- Two screws\n- [A](#a)", ("- Two screws\n- A",)),
        ("```{toctree}\nintro\n```\n\n***\n\nEnd.", ("End.",)),
    ],
)
def test_markup_of_markdown_is_no_text(tmp_path: Path, markup: str, expected: tuple[str, ...]) -> None:
    assert sections(tmp_path, "a.md", f"# A\n\n{markup}\n") == [("A", expected)]


def test_front_matter_titles_what_has_no_heading_of_its_own(tmp_path: Path) -> None:
    for matter in ('+++\ntitle = "Wax"\ntags = [\n  "a",\n]\n+++\n', "---\ntitle: Wax\n# x\n---\n"):
        assert sections(tmp_path, "a.md", f"{matter}Text.\n\n## Hives\n\nMore.\n") == [
            ("Wax", ("Text.",)),
            ("Wax: Hives", ("More.",)),
        ]
    assert sections(tmp_path, "a.md", "---\nA rule above.\n\n---\n") == [("a", ("A rule above.",))]


def test_restructured_text_has_headings_and_text(tmp_path: Path) -> None:
    text = "=====\n Bees\n=====\n\n:ref:`Hives <h>` and ``*code_*``.\n\n.. image:: x.png\n   :alt: y\n\n"
    text += ".. note:: Wax.\n\nSub\n---\nMore.\n"
    assert sections(tmp_path, "a.rst", text) == [("Bees", ("Hives and *code_*.", "Wax.")), ("Bees: Sub", ("More.",))]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (".. toctree::\n   :maxdepth: 2\n\n   intro\n   guide", ()),
        (".. A comment\n   of two lines", ()),
        (".. _target: http://x\n.. |v| replace:: 1\n\n:orphan:", ()),
        (".. code-block:: python\n   :linenos:\n\n   f(*a, **b)_", ("f(*a, **b)_",)),
        (".. py:function:: bees(*hives)\n   :noindex:\n\n   Counts *them*.", ("bees(*hives)", "Counts them.")),
        (".. class:: Hive\n\n   .. method:: open(self)", ("Hive", "open(self)")),
        (".. autoclass:: bees.Hive\n   :members:\n\n   A hive.\n\n.. currentmodule:: wax", ("A hive.",)),
        (".. versionadded:: 3.2 Wax.", ("New in version 3.2: Wax.",)),
        ("* .. deprecated:: 4\n    More.", ("Deprecated since version 4:\n    More.",)),
        (".. figure:: x.png\n   :alt: y\n\n   A caption.", ("A caption.",)),
        (".. [1] A footnote\n   goes on.", ("A footnote\n   goes on.",)),
        ("=====  ===\nA      B\n=====  ===\n1      2\n=====  ===", ("A      B", "1      2")),
        ("+---+---+\n| a | b |\n+---+---+", ("a | b",)),
        ("So::\n\n  x_ = `y`\n\nSee [1]_ of `a b`_, __init__, `<x>`__ and |name|.",
         ("So:", "x_ = `y`", "See of a b, __init__, <x> and name.")),
        (":Author: Bee", ("Author: Bee",)),
        ("Never closed: ``min` of it.\n\n``*B*`` and C_.", ("Never closed: `min of it.", "*B* and C.")),
        (":prop:`A_<B>` and :ref:`!x <y>`", ("A_<B> and x",)),
    ],
)  # fmt: skip
def test_markup_of_restructured_text_is_no_text(tmp_path: Path, markup: str, expected: tuple[str, ...]) -> None:
    found = sections(tmp_path, "a.rst", f"Bees\n====\n\n{markup}\n\nEnd.\n")
    assert found == [("Bees", (*expected, "End."))]


def test_a_text_file_may_hold_restructured_text(tmp_path: Path) -> None:
    assert sections(tmp_path, "a.txt", "Bees\n~~~~\n\n.. _wax:\n\n:ref:`Wax <wax>`.\n") == [("Bees", ("Wax.",))]


def test_rules_of_plain_text_are_no_text(tmp_path: Path) -> None:
    text = "Bees\n====\n\nOne.\n\n-----------\n\n* * *** *\n\nTwo\n+----+----+\nthree.\n"
    assert sections(tmp_path, "a.txt", text) == [("Bees", ("One.", "Two", "three."))]


def test_lines_of_contents_are_no_text(tmp_path: Path) -> None:
    text = "Hives ........ 12\nWax . . . . . . . iv\nAnd so on... 3 of them.\n"
    assert sections(tmp_path, "a.txt", text) == [("a", ("And so on... 3 of them.",))]
    assert read_document(tmp_path / "a.txt").left_out[0] == ("line of contents", "Hives ........ 12")


def test_bookmarks_of_a_pdf_are_its_headings(tmp_path: Path) -> None:
    writer = PdfWriter()
    shown = [
        ["Bees 1", "Before.", "1.2 Hives", "A sentence goes"],
        ["Bees 2", "on here. Wax-", "- 2 -"],
        ["Bees 3", "works:", "7 8"],
    ]
    for lines in shown:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F"): FONT})})
        content = StreamObject()
        content.set_data(("BT /F 9 Tf 12 TL 9 280 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET").encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    writer.add_blank_page(300, 300)
    writer.add_outline_item(title="Part", page_number=0)
    writer.add_outline_item(title="hives", page_number=0)
    writer.write(tmp_path / "a.pdf")
    found = read_document(tmp_path / "a.pdf")
    assert found.left_out.pop(0) == ("page without text", "page 4, which may be a picture of one")
    assert [text for _, text in found.left_out] == ["Bees 1", "Bees 2", "- 2 -", "Bees 3"]
    assert [(section.path, section.paragraphs) for section in found.sections] == [
        (("Part",), ("Before.",)),
        (("hives",), ("A sentence goes\non here. Waxworks:\n7 8",)),
    ]


def test_a_web_page_has_its_text_alone(tmp_path: Path) -> None:
    page = "<html><head><title>Bees &amp; wax</title><style>p{}</style></head><body><nav><ul><li>Menu</ul></nav>{}</body>"
    body = "<h2>Hives<a>¶</a></h2><p>First <b>bold</b> text.<p>Second.<div role='navigation'><div>Side</div>x</div>"
    assert sections(tmp_path, "a.html", page.replace("{}", body)) == [
        ("Bees & wax: Hives", ("First bold text.", "Second.")),
    ]
    main = page.replace("{}", f"<p>Before.</p><main><h1>Wax</h1>{body}</main><p>After.</p>")
    assert sections(tmp_path, "b.html", main) == [("Wax: Hives", ("First bold text.", "Second."))]
    assert read_document(tmp_path / "b.html").left_out == [("text beside the main part of a page", "Before. After.")]
    assert not read_document(tmp_path / "a.html").left_out


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<form><h1>A</h1><p>Text.<input value=x><select><option>y</select><button>Go</button></form>", ("Text.",)),
        ("<h1>A</h1><div><nav><a>Menu</a></div><p>Text.", ("Menu", "Text.")),  # who never closes it loses no text
        ("<h1><div>A</div></h1><p>Text.<nav>Menu</nav><footer>c</footer><p hidden>x", ("Text.",)),
        ("<h1>A</h1><dl><dt>bees()<dd><p>Count.</dl><ul><li>a<li><p>b</ul>", ("bees()\nCount.", "- a\n- b")),
        ("<h1>A</h1><table><tr><th>x<th>y<tr><td>1<td><p>2</p></table>", ("x | y\n1 | 2",)),
        ("<h1>A</h1><table><tr><td><p>Left.</p><ul><li>item</ul><td>Right.</table>", ("Left.", "- item", "Right.")),
        ("<h1>A</h1><div class='x TOC'><dl><dt>B</dl></div><h2>Contents:</h2>Text.", ("Text.",)),
        ("<h1>A</h1>one<br>two<!-- c --> three<pre>  x\n\n  y</pre>", ("one\ntwo three", "x\n\n  y")),
        (
            "<h1>A</h1><p style='color: red; DISPLAY : none'>x<p style='visibility:hidden'>x<p style='display:block'>Text.",
            ("Text.",),
        ),
        (
            "<h1>A</h1><pre><span class=boring>fn main() {\n</span>let x = 1;\n<span class=boring>}</span></pre>",
            ("let x = 1;",),
        ),
        ("<h1>A</h1><pre hidden>x</pre><p>a   b\n  c", ("a b c",)),
        ("<h1>A<a href='#a'>#</a></h1><h2>Contents</h2><ul><li><a href=x>B</a></ul><h2>A</h2><p>Text.", ("Text.",)),
    ],
)
def test_parts_of_a_web_page(tmp_path: Path, body: str, expected: tuple[str, ...]) -> None:
    assert sections(tmp_path, "a.html", f"<?xml version='1.0' encoding='latin-1'?><body>{body}") == [("A", expected)]


def test_a_page_that_cannot_be_read_to_its_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>Text.\n" + "<b>" * 3000 + "More.", encoding="utf-8")
    ((why, reason),) = read_document(tmp_path / "a.html").left_out
    assert why == "rest of a page" and "line 2" in reason


def test_the_title_of_a_page_stands_once(tmp_path: Path) -> None:
    page = "<title>Hives | Bees 2.0</title><p>Intro.<h2>hives</h2><p>Text."
    assert sections(tmp_path, "a.html", page) == [("Hives | Bees 2.0", ("Intro.",)), ("hives", ("Text.",))]


def test_soft_hyphens_part_no_word(tmp_path: Path) -> None:
    assert sections(tmp_path, "page.html", "<h1>Data&shy;bases</h1><p>Long com&shy;pounds.") == [
        ("Databases", ("Long compounds.",))
    ]
    assert sections(tmp_path, "lines.txt", "The data\u00ad\n  bases of a long line.") == [
        ("lines", ("The databases of a long line.",))
    ]


def test_nul_signs_are_taken_out_and_counted() -> None:
    text = "héllo wörld \0 naïve"
    assert decoded(text.encode()) == ("héllo wörld  naïve", "utf-8", 1)
    assert decoded(text.encode("cp1252"), "cp1252") == ("héllo wörld  naïve", "cp1252", 1)
    latin = "Bees fly over fields. " * 9
    for encoding in ("utf-16-le", "utf-16-be"):
        assert decoded(latin.encode(encoding)) == (latin, encoding, 0)
    assert decoded(latin.encode("utf-32")) == (latin, "utf-32", 0)


def test_escape_sequences_say_the_encoding() -> None:
    assert decoded("日本語の文章".encode("iso2022_jp")) == ("日本語の文章", "iso2022_jp_2", 0)
    assert decoded("한국어 문장".encode("iso2022_kr")) == ("한국어 문장", "iso2022_kr", 0)
    assert decoded(b"\x1b[31mred") == ("\x1b[31mred", "utf-8", 0)


def test_blocks_within_blocks_beyond_any_use_are_shown_or_counted(tmp_path: Path) -> None:
    notes = "\n".join(f"{'   ' * depth}.. note:: level{depth}\n" for depth in range(600))
    ((_, paragraphs),) = sections(tmp_path, "deep.rst", notes)
    assert [f"level{depth}" for depth in range(600)] == [word for word in " ".join(paragraphs).split() if word[:5] == "level"]
    (tmp_path / "deep.md").write_text(f"first\n\n{'>' * 100} lost", encoding="utf-8")
    found = read_document(tmp_path / "deep.md")
    assert found.sections[0].paragraphs == ("first",) and found.left_out == [("block too deep", "lost")]
