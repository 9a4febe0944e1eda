"""The page of a sweep, read as text and driven in a browser."""

import base64
import dataclasses
import hashlib
import html
import json
import re
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from research.report.collect import collect
from research.report.page import HERE, page
from research.report.table import table

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'`&amp;{{7*7}}<!--ü日\u202e\ud800"
METRICS = ("loss", "reconstruction_mse", "elbo_nats", "nll_nats", "kl_nats", "probe_accuracy")


@dataclasses.dataclass
class Figure:
    name: str = "learning_curves"
    title: str = "Learning <curves>"
    caption: str = 'Two "curves" & their spread'
    runs: tuple[str, ...] = ()
    svg: bytes = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 250"><script>window.hacked=1</script></svg>'
    pdf: bytes = b"%PDF-1.5"
    png: bytes = b""


def png(width: int = 16, height: int = 8, size: int = 100) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(size)


def write(folder: Path, **options: Any) -> str:
    """The page of a sweep folder."""
    figures = options.pop("figures", ())
    return page(table(collect(folder), **options), folder, figures)


class Elements(HTMLParser):
    """Start tags of a page, as a browser without scripts sees them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ------------------------------------------------------------------------------------------------------------- browser


def browse(folder: Path, text: str, *flags: str) -> tuple[str, str]:
    """What a browser makes of a page, and what it complained about."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    # a software display, a profile of its own, no sandbox (which root may not have), no updates and no reports
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]
    logged = ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000"]
    command = ["chromium", *quiet, *logged, "--window-size=1280,900", *flags, "--dump-dom", path.as_uri()]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
    complaints = [line for line in ended.stderr.decode(errors="replace").splitlines() if ":CONSOLE" in line]
    return ended.stdout.decode(), "\n".join(complaints)


def drive(folder: Path, text: str, script: str) -> Any:
    """What `script` returns in the page, which keeps its policy: only this script is allowed beside the page's own."""
    helpers = "const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];"
    body = (
        f"{helpers} const answer = (() => {{ {script} }})(); document.body.replaceChildren(); "
        "document.body.dataset.answer = JSON.stringify(answer);"
    )
    allowed = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src &#39;sha256-{allowed}&#39; ", 1)
    shown, complaints = browse(folder, text.replace("</body>", f"<script>{body}</script></body>"))
    assert not complaints
    answer = re.search(r'data-answer="([^"]*)"', shown)
    assert answer, shown[-2000:]
    return json.loads(html.unescape(answer[1]))


def fill(sweep: Any, values: int = 2, seeds: int = 3, **more: float) -> None:
    """Latent sizes x seeds, each with all metrics; the loss is the latent size + a tenth of the seed."""
    for latent_dim in (2**power for power in range(1, values + 1)):
        for seed in range(seeds):
            metrics = {f"{part}/{name}": latent_dim + seed / 10 for part in ("test", "validation") for name in METRICS}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics | more)


# ---------------------------------------------------------------------------------------------------------------- text


def test_a_page_is_one_file_that_loads_nothing(sweep):
    fill(sweep, **{"baseline/mean/reconstruction_mse": 3.0})
    text = write(sweep.folder, figures=[Figure()])
    elements = Elements(text)
    for tag, attributes in elements.tags:
        assert tag not in ("link", "base", "iframe", "object", "embed")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "action", "poster"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:", "../", "figures/")), address
            assert not (tag == "a" and address.startswith("data:") and "download" not in attributes)
    (policy,) = [meta["content"] for meta in elements.of("meta") if "http-equiv" in meta]
    assert policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind in ("js", "css"):
        digest = hashlib.sha256((HERE / f"page.{kind}").read_bytes()).digest()
        assert base64.b64encode(digest).decode() in policy
    assert "url(" not in (HERE / "page.css").read_text()
    for way in ("innerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "XMLHttpRequest", "import("):
        assert way not in (HERE / "page.js").read_text()


def test_the_page_shows_the_plan_and_where_numbers_come_from(sweep):
    fill(sweep)
    sweep.add({"model.latent_dim": 4, "seed": 7}, status="diverged", reason="first bad step 12")
    sweep.add({"model.latent_dim": 2, "seed": 0, "model.beta": 1.0}, written=False)
    path = sweep.folder / "sweep.json"
    program = {"mode": "vmap", "width": 3, "devices": 1, "members": []}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"groups": {"a": program, "b": program}}))
    run = next(sweep.folder.glob("*seed=0")) / "result.json"
    more = {"versions": {"jax": "9.8.7"}, "objective": "validation/loss", "seconds_device_share": 2.5}
    run.write_text(json.dumps(json.loads(run.read_text()) | more))
    text = html.unescape(re.sub(r"<wbr>", "", write(sweep.folder)))
    for words in (
        *("8 runs", "6 completed", "1 diverged", "first bad step 12", "2: 2 × vmap of width 3", "jax 9.8.7"),
        *("validation/loss, handed to sweepers", "epochs 3", "c0ffee", "0123456789ab", "2.5 s in all"),
        *(f"tensorboard --logdir {sweep.folder}", "mean ± standard deviation", "2, 4", "0, 1, 2, 7"),
    ):
        assert words in text, words


def test_cells_come_from_the_shared_table_and_lead_to_their_runs(sweep):
    fill(sweep, values=3, **{"baseline/mean/reconstruction_mse": 2.5})
    text = write(sweep.folder, metrics=["test/reconstruction_mse"])
    body, naive = re.search(r'<tbody class="models">(.*?)</tbody>', text, re.S), text.split('<tbody class="baselines">')
    assert body
    assert len(naive) == 2
    assert "2.500" in naive[1].split("</tbody>")[0]
    assert "2.500" not in body[1]
    cells = re.findall(r'data-value="([^"]*)"><a href="#runs".*?data-group="(\d+)".*?>(.*?)</a>', body[1])
    assert [group for _, group, _ in cells] == ["0", "1", "2"]
    assert [float(value) for value, *_ in cells] == pytest.approx([2.1, 4.1, 8.1])
    assert cells[0][2] == "<strong>2.10 ± 0.10</strong>"
    assert cells[1][2] == "<u>4.10 ± 0.10</u><sup>†</sup>"
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [[data["runs"][index]["values"][0] for index in group] for group in data["groups"]] == [
        [str(value)] * 3 for value in (2, 4, 8)
    ]


def test_best_and_worst_run_with_their_own_pictures(sweep):
    fill(sweep)
    best = next(sweep.folder.glob("*=4,seed=2"))
    worst = next(sweep.folder.glob("*=2,seed=0"))
    for run in (best, worst):
        (run / "figures").mkdir()
    (best / "figures" / "first_samples.png").write_bytes(png())
    (best / "figures" / "no_picture.png").write_bytes(b"<svg onload=hacked>")
    (best / "figures" / "too_large.png").write_bytes(png(size=2_000_000))
    secret = sweep.folder.parent / "secret.png"
    secret.write_bytes(png(size=777))
    (best / "figures" / "linked.png").symlink_to(secret)
    (worst / "figures").rmdir()
    (worst / "figures").symlink_to(sweep.folder.parent)
    result = best / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"command": "python scripts/train.py seed=0"}))
    section = write(sweep.folder).split('id="extremes"')[1].split("</section>")[0]
    assert "<code>validation/elbo_nats</code>: higher is better; among 6 finished runs" in section
    first, second = section.split("<article")[1:]
    assert best.name in first
    assert worst.name in second
    assert "python scripts/train.py seed=0" in first
    assert re.findall(r'<img src="([^"]*)" alt="([^"]*)" width="16" height="8"', section) == [
        (f"data:image/png;base64,{base64.b64encode(png()).decode()}", "Best run: first samples")
    ]
    assert "2 more in the run" in first


def test_runs_that_cannot_be_compared_by_the_first_metric_are_compared_by_another(sweep):
    fill(sweep)
    metrics = {
        "validation/loss": 0.0,
        "validation/reconstruction_mse": 9.0,
        "test/loss": 0.0,
        "test/reconstruction_mse": 9,
    }
    sweep.add({"model.beta": 4.0, "seed": 0}, metrics)
    section = write(sweep.folder).split('id="extremes"')[1].split("</section>")[0]
    assert "<code>validation/reconstruction_mse</code>" in section
    only = write(sweep.folder, metrics=["test/loss"]).split('id="extremes"')[1].split("</section>")[0]
    assert "<code>validation/reconstruction_mse</code>" in only


def test_a_figure_is_shown_as_a_picture_and_its_files_are_embedded_or_linked(sweep):
    fill(sweep)
    large = Figure(name="heavy", svg=b'<svg viewBox="0 0 4 2">' + b" " * 400_000, png=png(640, 480, 50_000))
    text = write(sweep.folder, figures=[Figure(png=png()), large])
    images = [image for image in Elements(text).of("img") if image.get("src")]
    assert [(image["width"], image["height"]) for image in images] == [("400", "250"), ("640", "480")]
    assert [str(image["src"]).partition(";")[0] for image in images] == ["data:image/svg+xml", "data:image/png"]
    assert images[0]["alt"] == 'Two "curves" & their spread'
    links = [link for link in Elements(text).of("a") if "download" in link or str(link["href"]).startswith("figures/")]
    assert [link.get("download") for link in links] == [
        *(None, "learning_curves.pdf", "learning_curves.png"),  # what is shown is given out by the script
        *(None, "heavy.pdf", None),
    ]
    assert [link["href"] for link in links[3:]][::2] == ["figures/heavy.svg", "figures/heavy.png"]
    assert [link.get("data-shown") for link in links] == ["learning_curves.svg", *[None] * 4, "heavy.png"]
    assert "Learning &lt;curves&gt;" in text


def test_a_sweep_without_any_result_has_a_page_too(sweep):
    for seed in range(2):
        sweep.add({"seed": seed}, written=False)
    text = write(sweep.folder)
    assert "2 missing" in text
    assert 'id="extremes"' not in text
    assert "not started" in text


def colors(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text))


def luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_reaches_wcag_aa_in_light_and_dark():
    style = (HERE / "page.css").read_text()
    light, toggled, preferred = (colors(block) for block in style.split("* { box-sizing")[0].split(":root")[1:])
    assert toggled == preferred
    for theme in (light, light | toggled):
        for back in ("paper", "raised", "tint", "mark"):
            for front, least in (("ink", 4.5), ("muted", 4.5), ("link", 4.5)):
                bright, dim = sorted((luminance(theme[front]), luminance(theme[back])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= least, (front, back)
        statuses = ("completed", "stopped", "diverged", "failed", "interrupted", "pruned", "missing", "unreadable")
        for front in ("strong-line", *statuses):
            bright, dim = sorted((luminance(theme[front]), luminance(theme["paper"])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 3, front


# ------------------------------------------------------------------------------------------------------------- browser


def hostile(sweep: Any) -> str:
    """A sweep in which everything that can be named by somebody else is named badly."""
    fill(sweep)
    for number, text in enumerate((EVIL, "y" * 300)):
        folder = sweep.add({"model.latent_dim": 2 + number, "seed": 5 + number}, {"test/loss": 1.0, EVIL: 1.0})
        config = json.loads((folder / "config.json").read_text())
        config["config"]["optimizer"] |= {"name": text, EVIL: text}
        config["choices"] |= {"model": text, EVIL: text}
        (folder / "config.json").write_text(json.dumps(config))
        result = json.loads((folder / "result.json").read_text()) | {"command": text, "versions": {EVIL: EVIL}}
        result |= {"objective": EVIL, "commit": EVIL, "data_sha256": EVIL, "overrides": [f"model={text}"]}
        (folder / "result.json").write_text(json.dumps(result | {"program": {"mode": EVIL, "device_kind": EVIL}}))
    folder = sweep.add({"seed": 9}, {"test/loss": None}, null_reasons={"test/loss": EVIL})
    named = folder.rename(folder.with_name("<img src=x onerror=window.hacked=1>\"'&"))
    sweep.add({"seed": 10}, status="failed", reason=EVIL)
    sweep.add({"seed": 11}, status='x" onclick="window.hacked=1', reason=EVIL)
    path = sweep.folder / "sweep.json"
    content = json.loads(path.read_text()) | {
        "name": EVIL,
        "swept": [EVIL, "seed", 3],
        "groups": {EVIL: {"mode": EVIL}},
    }
    content["runs"] = {named.name if name == folder.name else name: about for name, about in content["runs"].items()}
    path.write_text(json.dumps(content))
    return write(sweep.folder, figures=[Figure(title=EVIL, caption=EVIL)])


@pytest.mark.needs("chromium")
def test_names_of_others_never_become_markup(sweep, tmp_path):
    text = hostile(sweep)
    text.encode()
    assert "\u202e" not in text
    plain = Elements(text)
    assert len(plain.of("script")) == 2
    assert not [attributes for _, attributes in plain.tags for name in attributes if name.startswith("on")]
    assert all(str(image.get("src", "data:")).startswith("data:") for image in plain.of("img"))
    answer = drive(
        tmp_path,
        text,
        """
        for (const cell of $$("a.cell")) cell.click();
        $("#clear").click();
        for (const open of $$("#list .open")) { open.click(); $("#about").close(); }
        $("#first").value = "6"; $("#same").click();
        return { hacked: window.hacked ?? null, scripts: $$("script").length, title: document.title,
                 images: $$("img[src]").filter((i) => !i.src.startsWith("data:")).length,
                 rows: $$("#list tbody tr").length, handlers: $$("[onclick], [onerror]").length,
                 text: $("#compare").textContent, head: $$("#list th").map((e) => e.textContent) };
        """,
    )
    assert answer["hacked"] is None
    assert (answer["scripts"], answer["images"], answer["handlers"], answer["rows"]) == (3, 0, 0, 11)
    assert answer["title"].startswith("</script><script>window.hacked=1")
    assert "<img src=x onerror=window.hacked=1>" in answer["text"]
    assert any(EVIL[:60] in head for head in answer["head"])


@pytest.mark.needs("chromium")
def test_the_policy_stops_what_is_not_the_pages_own(sweep, tmp_path):
    fill(sweep)
    foreign = (
        '<script>document.body.dataset.broken = "1"</script><img src="http://127.0.0.1:9/x.png"><i style="top:1px">'
    )
    shown, complaints = browse(tmp_path, write(sweep.folder).replace("</main>", f"{foreign}</main>"))
    assert "data-broken" not in shown
    assert "runs</output>" in shown  # the page's own script ran
    for kind in ("script", "image", "style"):
        assert f"{kind}" in complaints.lower()


@pytest.mark.needs("chromium")
def test_rows_are_sorted_and_runs_are_filtered_opened_and_compared(sweep, tmp_path):
    fill(sweep, values=4, **{"baseline/mean/reconstruction_mse": 2.5})
    sweep.add({"model.latent_dim": 5, "seed": 0}, status="failed", reason="no memory")
    sweep.add({"model.latent_dim": 2, "seed": 9}, status="diverged", reason="first bad step 12")
    answer = drive(
        tmp_path,
        write(sweep.folder, metrics=["test/reconstruction_mse", "test/probe_accuracy"], figures=[Figure()]),
        """
        const names = () => $$("#list tbody tr").map((r) => r.cells[0].innerText), found = () => $("#found").innerText;
        const type = (t) => { $("#filter").value = t; $("#filter").dispatchEvent(new Event("input")); };
        const answer = { all: [names().length, found()] };
        type("seed=1 latent_dim=4"); answer.words = names();
        type("bad step"); answer.reason = names();
        type("nothing like it"); answer.none = [names().length, found()];
        $("#clear").click(); answer.cleared = names().length;
        $("#status").value = "diverged"; $("#status").dispatchEvent(new Event("change")); answer.status = names();
        $("#clear").click();
        $$("a.cell").at(-1).click(); answer.cell = [names(), location.hash, document.activeElement.id];
        answer.sorted = $$("#list thead th").map((h) => h.ariaSort);
        $("#list .open").click();
        answer.about = [$("#about").matches(":modal"), $("#about h2").innerText, $("#about code").innerText];
        $$("#about button").find((b) => b.innerText === "Compare as second").click();
        answer.after = [$("#about").open, $("#second").selectedOptions[0].text];
        answer.compare = $$("#compare tbody tr").map((r) => [...r.cells].map((c) => c.innerText));
        $(".enlarge").focus(); $(".enlarge").click();
        const large = $("#large img");
        answer.large = [$("#large").matches(":modal"), large.src === $(".enlarge img").src, large.alt];
        answer.given = [$("[data-shown]").download, $("[data-shown]").href === $(".enlarge img").src];
        $("#large button").click(); answer.closed = [$("#large").open, document.activeElement === $(".enlarge")];
        const themes = []; for (let i = 0; i < 3; i++) { $("#theme").click(); themes.push(
          [document.documentElement.dataset.theme ?? "auto", getComputedStyle(document.body).backgroundColor]); }
        const heads = $$("#means thead th"), order = () => $$("#means .models tr").map((r) => r.cells[0].innerText);
        const steps = [], press = (place) => {
          const button = heads[place].querySelector("button");
          button.focus(); button.click();
          steps.push([document.activeElement === button, heads.map((h) => h.ariaSort), order()]);
        };
        press(1); press(1); press(1); press(2); press(0); press(0);
        const buttons = heads.every((h) => h.querySelector("button"));
        return { ...answer, themes, steps, buttons, naive: $("#means").tBodies[1].innerText };
        """,
    )
    assert answer["all"] == [14, "14 runs"]
    assert answer["words"] == ["model.latent_dim=4,seed=1"]
    assert answer["reason"] == answer["status"] == ["model.latent_dim=2,seed=9"]
    assert answer["none"] == [0, "0 of 14 runs"]
    assert answer["cleared"] == 14
    names, anchor, focus = answer["cell"]  # the last metric of the last row: higher is better
    assert names == [f"model.latent_dim=16,seed={seed}" for seed in (2, 1, 0)]
    assert (anchor, focus) == ("#runs", "runs")
    assert answer["sorted"].count("descending") == 1
    assert answer["about"] == [True, names[0], names[0]]
    assert answer["after"] == [False, names[0]]
    assert ["model.latent_dim", "2", "16"] in answer["compare"]
    assert answer["large"] == [True, True, 'Two "curves" & their spread']
    assert answer["given"] == ["learning_curves.svg", True]
    assert answer["closed"] == [False, True]
    assert dict(answer["themes"]) == {
        "light": "rgb(255, 255, 255)",
        "dark": "rgb(20, 23, 27)",
        "auto": "rgb(255, 255, 255)",
    }
    focused, sorts, orders = zip(*answer["steps"], strict=True)
    assert all(focused)
    assert sorts[:4] == (
        ["none", "ascending", "none"],
        ["none", "descending", "none"],
        ["none", "none", "none"],
        ["none", "none", "descending"],  # where higher is better, the highest come first
    )
    planned = ["2", "4", "5", "8", "16"]
    assert orders[0] == ["2", "4", "8", "16", "5"]  # by number, not by letter; rows without a number come last
    assert orders[1] == orders[3] == ["16", "8", "4", "2", "5"]
    assert orders[2] == orders[4] == planned
    assert orders[5] == planned[::-1]
    assert "mean" in answer["naive"]
    assert answer["buttons"]


@pytest.mark.needs("chromium")
def test_a_page_of_many_runs_fits_a_phone_with_and_without_scripts(sweep, tmp_path):
    runs = 120
    fill(sweep, values=12, seeds=10)
    folder = sweep.folder / "model.latent_dim=2,seed=0"
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"overrides": ["z" * 300], "command": "z" * 300}))
    text = write(sweep.folder, columns=["model.latent_dim"], figures=[Figure()])
    assert len(text) < 500_000
    # a sandbox without a word about scripts stands for a browser without any
    frames = "".join(
        f'<iframe width="390" height="844"{without} srcdoc="{html.escape(text)}"></iframe>'
        for without in ("", ' sandbox="allow-same-origin"')
    )
    measure = """<script>onload = () => document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(
        ({ contentDocument: page }) => [page.documentElement.scrollWidth, page.documentElement.clientWidth,
        ...["#list tbody tr", "noscript tbody tr"].map((rows) => page.querySelectorAll(rows).length),
        page.querySelector(".controls").checkVisibility()]))</script>"""
    shown, _ = browse(tmp_path, f"<!DOCTYPE html><body>{frames}{measure}")
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title
    for width, room, *_ in json.loads(title[1]):
        assert width <= room <= 390
    assert [row[2:] for row in json.loads(title[1])] == [[runs, 0, True], [0, runs, False]]
