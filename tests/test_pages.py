"""The pages of a grading: what each shows to whom, and that texts of students do nothing in them."""

import functools
import json
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from made_grades import assignment, grade, measured, part, part_grade, shown

from rllab.evals.grading.grade import Flag, Grade, PartGrade
from rllab.evals.grading.leaderboard import leaderboard
from rllab.evals.grading.output import write_all
from rllab.evals.grading.pages import MOST_ITEMS, instructor_page, student_page
from rllab.evals.grading.points import Points

SUMS = part("sums")
FACTS = {"seed": 0, "versions": {"torch": "2.11"}, "hashes": ["aa", "bb"]}
VOID = {"meta", "br"}


class Parsed(HTMLParser):
    """A page: its elements with their attributes, its text, and its comments. Elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.comments, self._open = list[tuple[str, dict[str, str]]](), "", "", list[str]()
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data * (self._open[-1:] != ["style"])

    def handle_comment(self, data: str) -> None:
        self.comments += data

    @property
    def skeleton(self) -> list[tuple[str, dict[str, str]]]:
        """The elements without the addresses of students' pages, which are by the ids."""
        return [(tag, {k: v for k, v in attrs.items() if k != "href"}) for tag, attrs in self.elements]


def instructors(*grades: Grade, **facts: Any) -> str:
    parts = {p.part.name: p.part for g in grades for p in g.parts}
    return instructor_page(assignment(*parts.values()), grades, leaderboard(grades), facts or FACTS)


def students(one: Grade, **settings: Any) -> str:
    return student_page(assignment(*(p.part for p in one.parts), **settings), one)


def plain_text(page: str) -> str:
    return " ".join(Parsed(page).text.split())


def test_a_student_reads_the_points_and_why_they_were_lost() -> None:
    rule = Points(linear={"0.2": 0, "0.9": 10}, by="low")
    value = replace(measured((1, 0, 1, 0.5)), facts={"unanswered": 1}, remarks=["2 rows are left out"])
    game = part_grade(part("game", points=5.0), None, "run/ has no checkpoint: submit the whole folder")
    text = plain_text(students(grade("ann", part_grade(part(points=rule), value), game)))
    assert "Sums ann 0.71 of 15 points" in text and "sums 0.71 of 10" in text
    assert "points by the lower end of the 95 % interval: 0 at 0.2, 10 at 0.9, linear between" in text
    assert "value 0.625 95 % interval [0.250, 1.000] items 4 with full credit 2 unanswered 1" in text
    assert "2 rows are left out" in text and "run/ has no checkpoint: submit the whole folder" in text
    order = [text.index(f"{n} + {n}? answered it is {n}") for n in (1, 3, 0, 2)]
    assert order == sorted(order) and "1 credit 0 the answer is wrong asked 1 + 1?" in text


def test_returns_are_shown_by_the_lowest() -> None:
    text = plain_text(students(grade("ann", part_grade(SUMS, measured((-3.5, 1200.0, -200.25), "return")))))
    order = [text.index(x) for x in ("2 -200.2", "0 -3.5", "1 1200")]
    assert order == sorted(order) and "full credit" not in text


@pytest.mark.parametrize(
    ("show", "asked", "gold"), [("totals", False, False), ("items", True, False), ("gold", True, True)]
)
def test_a_page_shows_what_the_part_shows(show: Any, asked: bool, gold: bool) -> None:
    page = students(grade("ann", part_grade(part(show=show), measured((1, 0)))))
    assert ("1 + 1?" in page, "GOLD1" in page) == (asked, gold) and "value 0.500" in plain_text(page)


def test_of_many_items_the_worst_are_shown_and_the_rest_is_counted() -> None:
    page = students(grade("ann", part_grade(SUMS, measured([1] * 700 + [0] * 300))))
    text = plain_text(page)
    assert page.count("<article") == page.count(">credit 0<") == MOST_ITEMS and "700 + 700?" in text
    assert f"{1000 - MOST_ITEMS} further items are left out" in text and "0 + 0?" not in text.split("700 + 700?")[0]


def test_long_texts_are_cut() -> None:
    item = shown(0, question="q" * 10_000, answer="a" * 100_000, why="w" * 5_000)
    value = replace(measured((0,)), items=[item], remarks=["r" * 9_000])
    page = students(grade("ann", part_grade(SUMS, value)))
    assert len(page) < 20_000 and "98,000 more characters" in page and page.count("more characters") == 4
    assert len(instructors(grade("i" * 9_000, part_grade(SUMS, None, "f" * 100_000), why="w" * 10**5))) < 15_000


def test_other_students_are_never_named_on_a_page() -> None:
    flags = [Flag("identical", "the weights are those of bob", ("bob",)), Flag("memorised", "0.9 and 0.2 of bob")]
    flags += [Flag("zero", "all matrices are zero"), Flag("other base", "the adapter is of another base")]
    page = students(grade("ann", part_grade(SUMS, measured((1,))), flags=flags, earlier=[{"note": "bob"}]))
    assert "bob" not in page and "all matrices are zero" in page and "another base" in page
    whole = instructors(grade("ann", part_grade(SUMS, measured((1,))), flags=flags))
    assert whole.count("bob") == 3 and all(flag.kind in whole for flag in flags)


@pytest.mark.parametrize(
    ("status", "why", "words"),
    [
        ("missing", "", "There is no submission."),
        ("several", "there are 'ann' and 'ann.jsonl'", "There are 'ann' and 'ann.jsonl'."),
        ("not graded", "the machine ran out of memory", "The machine ran out of memory."),
    ],
)
def test_a_submission_that_is_not_graded_says_so(status: Any, why: str, words: str) -> None:
    one = Grade("ann", status, [PartGrade(SUMS, 0.0, None)], why=why)
    text = plain_text(students(one))
    assert words in text and ("0 of 10 points" in text) == (status != "not graded")
    assert ("not graded yet sums not graded yet" in text.replace(words + " ", "")) == (status == "not graded")
    assert status in plain_text(instructors(one)) and why in plain_text(instructors(one))


def test_the_instructor_sees_all_submissions() -> None:
    public = {str(n): 1.0 for n in range(4)} | {"of no private item": 0.0}
    ann = grade("ann", part_grade(SUMS, measured((1, 0, 0, 0), public=public)), columns={"section": "B7"})
    earlier = {"points": 3.25, "parts": {"sums": {"value": 0.325, "points": 3.25}}}
    ann = replace(ann, flags=[Flag("memorised", "1.0 on public items")], content="c0ffee", earlier=[earlier])
    bob = grade("bob", part_grade(SUMS, measured((1, 1, 0, 1), public=public)))
    parsed = Parsed(instructors(ann, bob, Grade("cat", "missing", [part_grade(SUMS, None)])))
    text = " ".join(parsed.text.split())
    for words in (
        "3 submissions; 2 graded; 1 missing",
        "B7",
        "c0ffee",
        "3.25",
        "torch 2.11 hashes aa, bb",
        "Median 5, mean 5, lowest 2.5",
    ):
        assert words in text
    assert "ann memorised 1.000 0.250 -0.750 4 bob 1.000 0.750 -0.250 4" in text
    assert "1 bob 7.5 0.750 best 2 ann 2.5 -0.500 [" in text and "no clear difference, p = 0.5" in text
    links = Counter(attrs["href"] for tag, attrs in parsed.elements if tag == "a")
    assert set(links) == {"html/ann.html", "html/bob.html", "html/cat.html"}
    assert sum(attrs.get("class", "") == "dot flagged" for _, attrs in parsed.elements) == 1


def test_links_lead_to_the_pages(tmp_path: Path) -> None:
    from urllib.parse import unquote

    ids = ["ann", "../x", 'a"b', "two\nlines", "50%", "\udcff", ".hidden", "é?#", "x" * 300, "<b>"]
    write_all(tmp_path, assignment(SUMS), [grade(i, part_grade(SUMS, measured((1,)))) for i in ids], FACTS)
    page = Parsed((tmp_path / "index.html").read_text(encoding="utf-8"))
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert len(links) == len(ids) and all((tmp_path / unquote(link)).is_file() for link in links)
    assert {p.parent for p in tmp_path.rglob("*.html")} == {tmp_path, tmp_path / "html"}


def test_nothing_graded_is_a_page_too() -> None:
    assert "Nothing is graded yet" in instructors(Grade("ann", "not graded", [PartGrade(SUMS, 0.0, None)]))
    assert "0 submissions" in instructors()


# Hostile texts

PORT = "PORT"
HOSTILE = [
    "<script>document.title='OWNED'</script>",
    "</script><script>document.title='OWNED'</script>",
    "</style></title></textarea></svg><img src=http://127.0.0.1:PORT/img onerror=\"document.title='OWNED'\">",
    '" onmouseover="document.title=\'OWNED\'" x="',
    "' style='background:url(http://127.0.0.1:PORT/css)",
    "<a href=\"javascript:document.title='OWNED'\">x</a>",
    "javascript:document.title='OWNED'",
    "<iframe src=http://127.0.0.1:PORT/frame></iframe><link rel=stylesheet href=http://127.0.0.1:PORT/link>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:PORT/meta'>",
    "<!-- <![CDATA[ <? <plaintext><xmp><noscript><template><math><svg onload=\"document.title='OWNED'\">",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "\x1b[31mred\x1b]0;OWNED\x07",
    "\u202egnp.exe \u2066",
    "a\x00b\ufeff\u2028\r\n\r",
    "\udcff\ud800",
    "&lt;script&gt;&#60;b&#62;",
    "Z" + "\u0301" * 300,
    "<b>" * 2000,
    "w" * 100_000,
]
HARMLESS = "harmless"


def tainted(text: str, n: int, show: Any = "gold") -> Grade:
    """A grade in which every text is `text`."""
    one, two = (part(f"{text}{name}", show=show) for name in ("a", "b"))
    item = shown(0, **dict.fromkeys(("id", "question", "answer", "why", "gold"), text))
    value = replace(measured((0,)), items=[item], facts={text: text}, remarks=[text], public={text: 1.0})
    return replace(
        grade(f"{n}{text}", part_grade(one, value), replace(part_grade(two, None, text), record=text)),
        columns={text: text},
        submitted=text,
        why=text,
        flags=[Flag("memorised", text, (text,)), Flag("zero", text, (text,))],
        earlier=[dict.fromkeys(("time", "status", "points", "content"), text) | {"parts": {text: {"fault": text}}}],
    )


def tainted_pages(text: str) -> tuple[str, str]:
    one = tainted(text, 0)
    made = assignment(*(p.part for p in one.parts), title=text)
    return student_page(made, one), instructor_page(made, [one], leaderboard([one]), {text: {text: [text]}})


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_makes_no_element_and_no_attribute(text: str) -> None:
    for page, harmless in zip(tainted_pages(text), tainted_pages(HARMLESS), strict=True):
        page.encode("utf-8")
        parsed, usual = Parsed(page), Parsed(harmless)
        cut = ("span", {"class": "muted small"})  # which says that a text is cut
        assert [e for e in parsed.skeleton if e != cut] == [e for e in usual.skeleton if e != cut]
        assert parsed.comments == ""
        assert all(attrs["href"].startswith("html/") for tag, attrs in parsed.elements if tag == "a")
        assert {t for t, _ in parsed.elements}.isdisjoint(("script", "iframe", "img", "link", "object", "form", "base"))
        assert not set(page) & {chr(c) for c in (*range(9), *range(11, 32), 127, *range(0x202A, 0x202F), 0x2066)}


def test_a_page_forbids_everything_but_its_own_styles() -> None:
    for page in tainted_pages(HARMLESS):
        policies = [a["content"] for t, a in Parsed(page).elements if a.get("http-equiv") == "Content-Security-Policy"]
        assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
        assert page.index("Content-Security-Policy") < page.index(HARMLESS)
        assert "http://" not in page and "https://" not in page and "url(" not in page and "@import" not in page


@dataclass
class Browser:
    """Chromium without a window, and a server that notes what a page requests."""

    folder: Path
    port: int
    requests: list[str]

    def dom(self, page: str) -> str:
        """Returns the elements of a page after its scripts ran, as HTML."""
        path = self.folder / "page.html"
        path.write_text(page.replace(PORT, str(self.port)), encoding="utf-8")
        words = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={self.folder / 'profile'}",
        ]
        words += ["--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
        done = subprocess.run(words, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if shutil.which("chromium") is None or subprocess.run(["chromium", "--version"], capture_output=True).returncode:
        pytest.skip("chromium is not installed")
    requests = list[str]()

    class Noted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Noted)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.05))
    thread.start()
    yield Browser(tmp_path, server.server_port, requests)
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_browser_would_notice(browser: Browser) -> None:
    page = "<title>x</title><script>document.title='OWNED'</script><img src=http://127.0.0.1:PORT/img>"
    assert "<title>OWNED" in browser.dom(page) and browser.requests == ["/img"]


def test_in_a_browser_a_hostile_text_runs_nothing_and_requests_nothing(browser: Browser) -> None:
    grades = [tainted(text, n) for n, text in enumerate(HOSTILE)]
    made = assignment(*(p.part for g in grades for p in g.parts), title=HOSTILE[2])
    whole = replace(grades[0], parts=[p for g in grades for p in g.parts])
    for page in (student_page(made, whole), instructor_page(made, grades, leaderboard(grades), {HOSTILE[0]: HOSTILE})):
        dom = browser.dom(page)
        counts = [Counter(t for t, _ in Parsed(text).elements if t != "tbody") for text in (dom, page)]
        assert counts[0] == counts[1] and counts[0]["title"] > 0
        assert "<title>OWNED" not in dom and json.dumps(browser.requests) == "[]"
