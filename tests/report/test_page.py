"""The page as text: what is in it, that nothing in it can run, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from stopctl import Maximize, NotARunError, OnBest, Patience, Run, SettingError
from stopctl.report import page as module
from stopctl.report.data import page_run
from stopctl.report.page import embedded, page, write_report

HOSTILE = '</script><script>alert("1")</script><!-- & <img src=x onerror=alert(2)>'


def trained(directory, **options):
    with Run(
        directory, state={"w": 0}, durability="process", stop=Patience(2), save=OnBest(), **options
    ) as run:
        for epoch in run.epochs(6):
            run.report(val_loss=abs(3 - epoch) + 0.5, **{HOSTILE: 1.0})
    return directory


@pytest.fixture
def run(tmp_path):
    return trained(tmp_path / "run", notes={HOSTILE: HOSTILE, "lr": 1e-3})


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each script and style."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside, self.texts = [], None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        self.texts.append((self.inside, data))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_is_one_file_that_names_no_other(run):
    text = page([page_run(run)])
    parsed = Parsed(text)
    assert [one["href"] for one in parsed.of("link")] == ["data:,"]
    assert not parsed.of("img")
    assert not [
        name
        for _, attributes in parsed.elements
        for name in attributes
        if name in ("src", "style") or name.startswith("on")
    ]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_only_our_own_script_and_style_may_run(run):
    parsed = Parsed(page([page_run(run)]))
    (policy,) = [one["content"] for one in parsed.of("meta") if "http-equiv" in one]
    texts = {tag: [text for inside, text in parsed.texts if inside == tag] for tag in ("script", "style")}
    assert [one.get("type") for one in parsed.of("script")] == ["application/json", None]
    for tag, text in (("script", texts["script"][1]), ("style", texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_what_a_run_says_is_data_or_text(run):
    text = page([page_run(run)])
    parsed = Parsed(text)
    (data,) = [text for inside, text in parsed.texts if inside == "script" and text.startswith("{")]
    assert HOSTILE in json.loads(data)["runs"][0]["values"]
    assert "<" not in data
    assert sum(HOSTILE in text for inside, text in parsed.texts if inside != "script") >= 2
    assert "<img" not in text


def test_embedded_json_ends_no_element_and_is_strict():
    text = embedded({"a": "</script>&<!--", "b": [1.5, None]})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script>&<!--", "b": [1.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        embedded(float("nan"))


def test_every_label_and_heading_names_something(run):
    parsed = Parsed(page([page_run(run)] * 2))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [
        attributes[key]
        for _, attributes in parsed.elements
        for key in ("aria-labelledby", "for")
        if key in attributes
    ]
    assert set(named) <= set(ids)
    assert parsed.of("html") == [{"lang": "en"}]
    assert len(parsed.of("h1")) == len(parsed.of("main")) == 1


def test_the_title_names_up_to_three_runs(run):
    one = page_run(run)
    for count, title in ((1, "run"), (2, "run and run"), (3, "run, run and run"), (4, "4 runs")):
        assert f"<title>{title}</title>" in page([one] * count)


def test_runs_of_mixed_directions_are_refused(run, tmp_path):
    trained(tmp_path / "other", goal=Maximize("val_loss"))
    with pytest.raises(SettingError, match=r"mixed directions: run has Minimize.*, other has Maximize"):
        write_report([run, tmp_path / "other"], tmp_path / "r.html")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_curves_can_be_told_from_the_ground_in_both_themes():
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    style = (module.files("stopctl.report") / "page.css").read_text()
    themes = [
        dict(re.findall(r"(--[\w-]+): (#\w{6});", block))
        for block in re.findall(r":root[^{]*\{([^}]*)\}", style)
    ]
    assert len(themes) == 3
    assert themes[1] == themes[2]  # asked for by the button, and by the system
    for theme in themes:
        for ground in ("--paper", "--raised"):
            assert contrast(theme["--ink"], theme[ground]) >= 7
            assert contrast(theme["--soft"], theme[ground]) >= 4.5
        for name in [name for name in theme if name.startswith("--run-")]:
            assert contrast(theme[name], theme["--paper"]) >= 4.5, name  # its flag has text in it
        assert contrast(theme["--accent"], theme["--paper"]) >= 4.5


def test_an_older_report_is_replaced_but_nothing_else(run, tmp_path):
    target = tmp_path / "report.html"
    assert write_report([run], target) == target
    first = target.read_text()
    write_report([run, run], target)
    assert target.read_text() != first
    target.write_text("mine")
    with pytest.raises(SettingError, match="is there already"):
        write_report([run], target)
    assert target.read_text() == "mine"
    write_report([run], target, force=True)
    assert target.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("runs", "to", "error", "message"),
    [
        ([], "r.html", SettingError, "at least one run"),
        (["run"], ".", SettingError, "is a directory: name a file in it"),
        (["run"], "no/r.html", SettingError, "is no directory: make it first, or write the report elsewhere"),
        (["nothing"], "r.html", NotARunError, "there is no such directory"),
        (["run", "."], "r.html", NotARunError, "it has no run.json"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(run, tmp_path, runs, to, error, message):
    with pytest.raises(error, match=message) as caught:
        write_report([tmp_path / one for one in runs], tmp_path / to)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_reading_changes_nothing_in_the_run(run, tmp_path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_report([run], tmp_path / "report.html")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
