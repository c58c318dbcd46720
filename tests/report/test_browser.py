"""The page in a real browser: what it shows, how it answers, and that it asks nobody for anything."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace

import pytest

from stopctl import Every, Maximize, Minimize, NonFinite, OnBest, Patience, ReduceOnPlateau, Run
from stopctl.report.data import page_run
from stopctl.report.page import page as page_of
from stopctl.report.page import write_report
from support.given import Given, leaf, torch_like
from support.pageserver import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")

playwright.expect.set_options(timeout=60000)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
LOSSES = [1.0, 0.6, 0.4, 0.3, 0.35, 0.28, 0.27, 0.3, 0.31, 0.32, 0.33, 0.34]


class Crash(Exception):
    pass


def train(directory, losses, *, crash_after=None, **rules):
    """Train on given losses; a crash leaves the run as a killed process would."""
    with Run(
        directory, state=Given({"model": torch_like(w=leaf([1.0]))}), durability="process", **rules
    ) as run:
        for epoch in run.epochs(len(losses)):
            run.step(10)
            run.report(val_loss=losses[epoch - 1], train_loss=0.9 / epoch, val_accuracy=1 - losses[epoch - 1])
            if epoch == crash_after:
                raise Crash


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A page of one plain run, and one of two: one more that crashed, was resumed, and has hostile notes."""
    folder = tmp_path_factory.mktemp("report")
    train(folder / "plain", LOSSES, stop=Patience(4) | NonFinite(), save=Every(epochs=5) | OnBest())
    rules = {
        "save": Every(epochs=4),
        "stop": Patience(5),
        "lr": ReduceOnPlateau(0.5, patience=2),
        "notes": {"note": HOSTILE},
    }
    with pytest.raises(Crash):
        train(folder / "resumed", [loss + 0.5 for loss in LOSSES], crash_after=7, **rules)
    train(folder / "resumed", [loss + 0.05 for loss in LOSSES], **rules)
    write_report([folder / "plain"], folder / "one.html")
    write_report([folder / "plain", folder / "resumed"], folder / "two.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visitor:
    """Opens pages, all in one tab unless they need another kind of device, and notes what they must not do."""

    def __init__(self, browser, folder):
        self.browser, self.folder, self.trouble, self.asked = browser, folder, [], None
        self.tab = self.new(viewport={"width": 1000, "height": 800})

    def new(self, **device):
        context = self.browser.new_context(**device)
        context.route("**/*", self.route)
        page = context.new_page()
        page.set_default_timeout(60000)  # an upper bound: the machine may be busy
        page.on("console", lambda message: self.trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.trouble.append("dialog"), dialog.dismiss()))
        return page

    def route(self, found):
        if found.request.url == self.asked or found.request.url == f"{self.asked}events":
            found.continue_()
        else:
            self.trouble.append(f"requested {found.request.url}")
            found.abort()

    def __call__(self, name, **device):
        page = self.new(**device) if device else self.tab
        self.asked = name if "://" in name else (self.folder / name).as_uri()
        page.goto(self.asked)
        return page


@pytest.fixture(scope="module")
def visitor(browser, reports):
    return Visitor(browser, reports)


@pytest.fixture
def visit(visitor):
    """Open a page; at the end of the test nothing may have been requested, logged, raised or asked."""
    yield visitor
    trouble, visitor.trouble = visitor.trouble, []
    assert trouble == []


def point(page, epoch, last=11):
    """Where an epoch is in the main panel, in its own pixels."""
    left, right = page.evaluate("[panels[0].left, panels[0].right]")
    return left + (right - left) * (epoch - 1) / (last - 1)


def chart(page):
    return page.locator("#main-panel > svg")


def test_the_best_is_read_out_until_something_is_pointed_at(visit):
    page = visit("one.html")
    assert "epoch 7 · step 70" in page.locator("#readout").inner_text()
    assert page.locator("[data-mark=best]").count() == 1
    assert page.locator("[data-mark=stop]").count() == 1
    assert page.locator("[data-mark=kept]").count() + page.locator("[data-mark=saved]").count() >= 6


def test_hovering_tells_epoch_values_and_the_decision(visit):
    page = visit("one.html")
    chart(page).hover(position={"x": point(page, 4), "y": 120})
    playwright.expect(page.locator("#readout")).to_contain_text("epoch 4")
    told = page.locator("#readout").inner_text()
    for part in ("epoch 4 · step 40", "0.3", "0.225", "0.7", "new best 0.3"):
        assert part in told
    chart(page).hover(position={"x": point(page, 11) + 3, "y": 60})
    playwright.expect(page.locator("#readout")).to_contain_text("epoch 11")
    assert "no improvement over 0.27 for 4 reports" in page.locator("#readout").inner_text()
    assert page.locator("#main-panel .cursor").count() == 1


def test_the_keyboard_does_what_hovering_does(visit):
    page = visit("one.html")
    chart(page).focus()
    for key, epoch in (
        ("ArrowRight", 8),
        ("ArrowLeft", 7),
        ("Home", 1),
        ("PageUp", 11),
        ("ArrowLeft", 10),
        ("End", 11),
    ):
        page.keyboard.press(key)
        playwright.expect(page.locator("#readout")).to_contain_text(f"epoch {epoch} ")


def test_the_slider_moves_the_stop(visit):
    page = visit("one.html")
    slider, text, marker = (
        page.locator("#patience"),
        page.locator("#whatif-text"),
        page.locator("#main-panel line.whatif"),
    )
    assert page.locator("#patience-value").inner_text() == "4"
    own = float(marker.get_attribute("x1"))
    slider.fill("0")
    assert page.locator("#patience-value").inner_text() == "1"
    assert "epoch 5: no improvement over 0.3 for 1 report" in text.inner_text()
    assert float(marker.get_attribute("x1")) < own
    assert float(marker.get_attribute("x1")) == pytest.approx(point(page, 5), abs=1)
    slider.press("End")
    assert "would not have stopped by epoch 11, where the record ends" in text.inner_text()
    assert marker.count() == 0


def test_dark_mode_follows_the_system_and_the_button(visit):
    page = visit("one.html", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    button = page.locator("#theme")
    assert button.inner_text() == "Light"
    button.click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert button.inner_text() == "Dark"
    button.click()
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == dark


@pytest.mark.parametrize("name", ["one.html", "two.html", "many.html"])
def test_a_phone_needs_no_sideways_scrolling_and_answers_to_touch(visit, many, name):
    page = visit(name, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    chart(page).tap(position={"x": 60, "y": 100})
    playwright.expect(page.locator("#readout")).to_contain_text("epoch 1")
    for fold in page.locator(".folds > details:not([open])").all():
        if fold.is_visible():
            fold.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert page.evaluate(f"{wide}.map((one) => one.ariaLabel)") == []  # nor does any table
    page.set_viewport_size({"width": 740, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 740


def test_voided_parts_are_shown_on_request_only(visit):
    page = visit("two.html")
    box, voided = page.locator("#voided"), page.locator("path.void")
    assert voided.count() == 0
    assert not box.is_checked()
    box.check()
    assert voided.count() == 3
    box.uncheck()
    assert voided.count() == 0
    assert not visit("one.html").locator("#voided").is_visible()


def test_the_legend_hides_a_run_and_all_that_is_its(visit):
    page = visit("two.html")
    curves = page.locator("#main-panel > svg path.curve")
    assert curves.count() == 4
    assert page.locator("[data-mark=drop]").count() >= 1
    assert page.locator("[data-mark=resume]").count() == 1
    page.get_by_label("resumed", exact=True).uncheck()
    assert curves.count() == 2
    assert page.locator("[data-mark=drop]").count() == 0
    assert "resumed" not in page.locator("#readout").inner_text()
    page.get_by_label("plain", exact=True).uncheck()
    assert curves.count() == 0
    page.get_by_label("plain", exact=True).check()
    assert curves.count() == 2


def test_other_axes_and_a_logarithmic_one(visit):
    page = visit("two.html")
    before = page.locator("[data-series=val_loss]").first.get_attribute("d")
    page.locator("#log").check()
    assert page.locator("[data-series=val_loss]").first.get_attribute("d") != before
    for value in ("step", "seconds", "epoch"):
        page.locator("#axis").select_option(value)
    page.locator("#log").uncheck()
    assert page.locator("[data-series=val_loss]").first.get_attribute("d") == before


ODD = [1.0, 0.6, 250.0, 0.5, float("nan"), 0.45, float("inf"), 0.4, 0.38, 0.39, 0.37, 0.36]


@pytest.fixture(scope="module")
def odd(reports):
    """A page of one run with an outlier, NaN, infinity and a name that is a spreadsheet's formula."""
    train(reports / "=HYPERLINK(1)", ODD, stop=None, save=None)
    write_report([reports / "=HYPERLINK(1)"], reports / "strange.html")
    return "strange.html"


def test_a_drag_zooms_and_a_double_click_the_button_and_the_keyboard_go_back(visit):
    page = visit("one.html")
    window = "panels.map((panel) => panel.window.map(Math.round))"
    bounds = chart(page).bounding_box()

    def drag(first, last):
        page.mouse.move(bounds["x"] + point(page, first), bounds["y"] + 100)
        page.mouse.down()
        page.mouse.move(bounds["x"] + point(page, last), bounds["y"] + 120, steps=3)
        assert page.locator(".selection").count() == 2  # in every panel
        page.mouse.up()

    drag(4, 8)
    assert page.evaluate(window) == [[4, 8], [4, 8]]
    assert page.locator("[data-mark=stop]").count() == 0
    assert page.locator(".selection").count() == 0
    page.locator("#whole").click()
    assert page.evaluate(window) == [[1, 11], [1, 11]]
    assert not page.locator("#whole").is_visible()
    drag(9, 6)
    assert page.evaluate(window)[0] == [6, 9]
    chart(page).dblclick(position={"x": 200, "y": 100})
    assert page.evaluate(window)[0] == [1, 11]
    chart(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.evaluate(window)[0] == [1, 3]
    page.keyboard.press("End")  # what is seen goes along with the cursor
    playwright.expect(page.locator("#readout")).to_contain_text("epoch 11 ")
    assert page.evaluate(window)[0][1] == 11
    page.keyboard.press("-")
    page.keyboard.press("Escape")
    assert page.evaluate(window)[0] == [1, 11]


def test_smoothing_leaves_the_raw_curve_faint_behind(visit):
    page = visit("one.html")
    path = page.locator("#main-panel [data-series=val_loss]")
    raw = path.get_attribute("d")
    page.locator("#smooth").fill("0.6")
    assert path.get_attribute("d") != raw
    assert page.locator("#main-panel path.raw").count() == 2
    assert raw in [one.get_attribute("d") for one in page.locator("path.raw").all()]
    page.locator("#smooth").fill("0")
    assert path.get_attribute("d") == raw
    assert page.locator("path.raw").count() == 0


def test_an_outlier_has_no_part_in_the_average(visit, odd):
    page = visit(odd)
    smooth = page.evaluate("smoothed([1, 1, 250, 'NaN', 1, null, 1, 2, 1, 1], 0.5)")
    assert smooth[:7] == [1, 1, 1, "NaN", 1, None, 1]
    assert 1 < smooth[8] < smooth[7] < 2


def test_odd_values_are_marked_at_the_edge_and_flatten_nothing(visit, odd):
    page = visit(odd)
    height = "panels[0].height(0.36) - panels[0].height(1)"
    assert page.evaluate(height) > 100
    assert page.locator("#main-panel [data-mark=outlier] title").all_text_contents() == ["val_loss 250"]
    marks = page.locator("#main-panel [data-mark=nonfinite] title").all_text_contents()
    assert marks == ["val_loss NaN", "val_loss ∞"]
    page.get_by_label("Outliers at the edge").uncheck()
    assert page.evaluate(height) < 5
    assert page.locator("#main-panel [data-mark=outlier]").count() == 0
    page.get_by_label("Outliers at the edge").check()
    assert page.evaluate(height) > 100
    assert not visit("one.html").locator("#robust").is_visible()  # nothing to cut off


def test_what_is_seen_is_saved_as_a_picture_and_as_values(visit, odd):
    page = visit(odd)
    saved = {}
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as download:
            page.locator(f"#save-{kind}").click()
        saved[download.value.suggested_filename] = download.value.path().read_bytes()
    svg, png, values = saved["curves.svg"].decode(), saved["curves.png"], saved["values.csv"].decode()
    assert svg.startswith("<svg xmlns=")
    assert "=HYPERLINK(1)" in svg
    assert "class=" not in svg
    assert "var(" not in svg
    assert 'stroke="rgb(' in svg
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000
    rows = list(csv.reader(io.StringIO(values, newline="")))
    assert rows[0] == ["run", "epoch", "step", "seconds", "val_loss", "train_loss", "val_accuracy", "decided"]
    assert [row[0] for row in rows[1:]] == ["'=HYPERLINK(1)"] * 12  # no formula
    assert [row[4] for row in rows[1:6]] == ["1", "0.6", "250", "0.5", "NaN"]


def test_a_text_that_a_spreadsheet_would_run_is_none(visit):
    page = visit("one.html")
    cells = ["=1+1", "+1", "-1+2", "@x", "\t=1", ' "', "a,b", None, -1.5]
    assert page.evaluate("(values) => values.map(cell)", cells) == [
        "'=1+1", "+1", "'-1+2", "'@x", "'\t=1", '" """', '"a,b"', "", "-1.5",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def many(reports):
    """A page of 30 runs, one in three with another goal, made of one that was read."""
    run = page_run(reports / "plain")
    made = []
    for i in range(30):
        goal = Maximize("val_accuracy") if i % 3 == 2 else run.question.goal
        best, metric = (i / 100, goal.metric)
        drawn = {**run.drawn, "name": f"run-{i}", "metric": metric}
        question = replace(run.question, goal=goal)
        notes = {"lr": 0.1 / (i + 1), "name": ["a", "b", HOSTILE][i % 3], "same": 1.0}
        state = "stopped" if i % 2 else "interrupted"
        made.append(
            replace(
                run, name=f"run-{i}", metric=metric, best=best, best_value=str(best), state=state,
                notes=notes, drawn=drawn, question=question,
                facts={**run.facts, "notes": {f"note {k}": f"{i} " + "text " * 9 for k in range(6)}},
            )
        )  # fmt: skip
    (reports / "many.html").write_text(page_of(made))
    return "many.html"


def test_many_runs_are_one_screen_until_one_unfolds_and_open_with_the_best(visit, many):
    page = visit(many, viewport={"width": 1200, "height": 800})
    height = "document.documentElement.scrollHeight"
    assert page.evaluate(height) <= 800
    drawn = page.locator("#runs-table input:checked")
    best = [f"run-{i}" for i in (0, 1, 3, 4, 29, 26, 23, 20)]  # the best of each goal
    assert page.locator("#runs-table tr:not(.off) th[scope=row]").all_inner_texts() == best
    page.get_by_text("Checkpoints").click()
    assert page.locator("[data-part=checkpoints] > div:visible").count() == 8  # of those drawn
    assert page.evaluate(height) > 800
    page.locator("#choose-none").click()
    assert drawn.count() == page.locator("path[data-series]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1200


def test_the_table_of_runs_is_sorted_and_filtered(visit, many):
    page = visit(many)
    rows = page.locator("#runs-table tbody tr:visible")
    names = lambda: [row.split()[0] for row in rows.all_inner_texts()]  # noqa: E731
    page.get_by_role("button", name="run", exact=True).click()
    assert names()[:3] == ["run-0", "run-1", "run-2"]
    page.get_by_role("button", name="lr").click()
    assert names()[0] == "run-29"
    page.get_by_role("button", name="lr").click()
    assert names()[0] == "run-0"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("lr")
    for words, found in (
        ("run-2", 11), ("lr>=0.05", 2), ("state=stopped best<0.05", 2), ("metric=val_accuracy", 10),
        ("interrupted name=a", 5), ("nothing", 0), ("no=1", 0),
    ):  # fmt: skip
        page.locator("#filter").fill(words)
        assert rows.count() == found, words
    page.locator("#filter").fill("name=b")
    page.locator("#choose-all").click()
    assert page.locator("#choice").inner_text() == "10 of 30 drawn, 10 listed"
    assert page.locator("#main-panel path[data-series=val_loss]").count() == 10


def test_colours_by_a_note_tell_its_values_as_text(visit, many):
    page = visit(many)
    key = page.locator("#colour-key li")
    assert page.locator("#colour option").all_inner_texts() == ["run", "lr", "name"]  # what differs
    page.locator("#colour").select_option("name")
    assert sorted(key.all_inner_texts()) == sorted([HOSTILE, "a", "b"])
    page.locator("#colour").select_option("lr")
    assert key.count() == 8
    assert page.locator("path.shade-7").count() > 0  # the largest, that of the first run
    page.locator("#colour").select_option("")
    assert key.count() == page.locator("[class*=shade]").count() == 0


def test_what_a_run_says_is_text(visit):
    page = visit("two.html")
    assert HOSTILE in page.locator("body").inner_text()
    assert page.locator("img").count() == 0
    assert page.evaluate("document.scripts.length") == 2


def test_a_metric_may_be_called_as_what_every_object_has(visit, reports):
    for name in ("__proto__", "constructor"):
        goal = Minimize(name)
        with Run(reports / name, state={"w": 0}, goal=goal, stop=None, durability="process") as run:
            for epoch in run.epochs(3):
                run.report(**{name: 1 / epoch})
    write_report([reports / "plain", reports / "__proto__", reports / "constructor"], reports / "odd.html")
    page = visit("odd.html")
    for name in ("__proto__", "constructor"):
        assert page.locator(f'path[data-series="{name}"]').count() == 1
    page.locator("#values summary").click()
    page.locator("#values-run").select_option("1")
    assert page.locator("#values-table th").all_inner_texts()[-2:] == ["__proto__", "decided"]


def test_the_table_of_values_has_every_report(visit):
    page = visit("two.html")
    page.locator("#values summary").click()
    rows = page.locator("#values-table tbody tr")
    playwright.expect(rows).to_have_count(11)
    assert rows.nth(3).inner_text().split()[:2] == ["4", "40"]
    page.locator("#values-run").select_option("1")
    assert rows.count() == 12


def test_it_is_readable_without_scripts(visit):
    page = visit("two.html", java_script_enabled=False)
    told = page.locator("body").inner_text()
    for part in (
        "no improvement over 0.27 for 4 reports",
        "Patience(4) | NonFinite()",
        "best",
        "need JavaScript",
    ):
        assert part in told


def test_a_page_that_is_served_renews_itself_and_keeps_what_was_chosen(visit, tmp_path):
    expect = playwright.expect
    train(tmp_path / "alpha", LOSSES[:3], stop=None, notes={"lr": 0.1})
    with serving(tmp_path) as server:
        page = visit(server.url)
        page.locator("#axis").select_option("step")
        page.locator("#log").check()
        assert page.locator("#main-panel [data-series=val_loss]").count() == 1
        train(tmp_path / "beta", LOSSES, stop=None, notes={"lr": HOSTILE})
        expect(page.locator("#runs-table tbody tr")).to_have_count(2)
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("#main-panel [data-series=val_loss]")).to_have_count(2)
        assert (page.locator("#axis").input_value(), page.locator("#log").is_checked()) == ("step", True)
        page.get_by_label("alpha", exact=True).uncheck()
        page.get_by_text("Table of values").click()
        page.locator("#values-run").select_option("0")
        train(tmp_path / "alpha", LOSSES[:5], stop=None, notes={"lr": 0.1})
        expect(page.locator("#values-table tbody tr")).to_have_count(5)
        assert not page.get_by_label("alpha", exact=True).is_checked()
        shutil.rmtree(tmp_path / "beta")
        expect(page.locator(".notice")).to_contain_text("beta cannot be read, it is shown as it was last")
        assert page.locator("img").count() == 0
        visit.asked = None  # what the browser asks when nobody answers any more is no trouble of the page's
    expect(page.locator("#live")).to_contain_text("no longer served")
    page.goto("about:blank")
    visit.trouble.clear()


def test_a_hundred_thousand_reports_are_drawn_to_the_pixel(visit, reports):
    run = page_run(reports / "plain")
    n = 100_000
    wave = [float(i * 7919 % 1000) for i in range(n)]
    wave[54_321] = 5000.0
    long = {
        **run.drawn,
        "epoch": list(range(1, n + 1)),
        "step": list(range(1, n + 1)),
        "seconds": list(range(1, n + 1)),
        "values": {"val_loss": wave},
        "decisions": {},
    }
    (reports / "long.html").write_text(page_of([replace(run, drawn=long)]))
    page = visit("long.html")
    drawn = page.locator("[data-series=val_loss]").get_attribute("d")
    assert drawn.count("L") <= 4 * 1000
    top = page.evaluate("panels[0].height(5000)")
    assert f" {top:.1f}" in drawn
    page.locator("#values summary").click()
    playwright.expect(page.locator("#values-table tbody tr")).to_have_count(200)
    page.locator("#values-later").click()
    playwright.expect(page.locator("#values-range")).to_have_text("reports 201 to 400 of 100000")
    assert page.evaluate("document.querySelectorAll('*').length") < 5000
