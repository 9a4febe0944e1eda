"use strict";
// Everything that comes from the sweep enters the page through textContent and attributes, never as markup.
(() => {
  const find = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const breakable = (text) => text.split(/(?<=[/.])(?=\w)/).flatMap((part) => [make("wbr"), part]).slice(1);
  const data = JSON.parse(find("#data").textContent);
  const runs = data.runs;
  const STEP = 500; // rows that are shown at once

  // ------------------------------------------------------------------------------------------------------- theme
  const themes = ["auto", "light", "dark"];
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    find("#theme").textContent = `◐ ${theme}`;
    find("#theme").setAttribute("aria-label", `Colors: ${theme}`);
  };
  const remembered = () => {
    try { return localStorage.getItem("report-theme"); } catch { return null; } // a page opened as a file may have no storage
  };
  setTheme(themes.includes(remembered()) ? remembered() : "auto");
  find("#theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % themes.length];
    setTheme(next);
    try { localStorage.setItem("report-theme", next); } catch { /* the choice is forgotten when the page is closed */ }
  });

  // --------------------------------------------------------------------------------------------------------- sort
  const missing = (value) => value === "" || value === null || value === undefined;
  const numeric = (value) => typeof value === "number" ? value : value.trim() === "" ? NaN : Number(value);
  // Numbers come first, then texts; cells without a value come last in both directions.
  const compare = (left, right, sign) => {
    if (missing(left) || missing(right)) return missing(left) - missing(right);
    const [a, b] = [numeric(left), numeric(right)];
    if (Number.isNaN(a) !== Number.isNaN(b)) return sign * (Number.isNaN(a) - Number.isNaN(b));
    return sign * (Number.isNaN(a) ? String(left).localeCompare(String(right)) : a - b);
  };
  // A press on a heading sorts in its first order, the next one in reverse, the third in the order of the plan.
  const turn = (head, heads) => {
    const first = find("button", head).dataset.first ?? "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === "none" ? first : now === first ? second : "none";
    for (const each of heads) each.setAttribute("aria-sort", each === head ? next : "none");
    return next;
  };

  const means = find("#means");
  const heads = all("thead th[aria-sort]", means);
  const body = find("tbody.models", means); // rows of naive methods are not sorted
  const planned = [...body.rows];
  heads.forEach((head, column) => find("button", head).addEventListener("click", () => {
    const order = turn(head, heads);
    const sign = order === "descending" ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value;
    const sorted = order === "none" ? planned : [...planned].sort((a, b) => compare(value(a), value(b), sign));
    body.replaceChildren(...sorted);
  }));

  const measure = () => means.style.setProperty("--first", `${find("tbody th", means)?.offsetWidth ?? 0}px`);
  measure(); // names of columns stay visible beside the row keys
  addEventListener("resize", measure);

  // --------------------------------------------------------------------------------------------------------- runs
  const number = (value) => value === null ? "null" : typeof value === "number" ? String(Number(value.toPrecision(5))) : "";
  const columns = [
    { title: "run", value: (run) => run.name },
    { title: "status", value: (run) => run.status },
    ...data.columns.map((index) => ({ title: data.keys[index], value: (run) => run.values[index] })),
    ...data.metrics.slice(0, data.main).map((title, index) => ({
      title, number: true, lower: data.lower[index], value: (run) => run.numbers[index], show: (run) => number(run.numbers[index]),
    })),
    { title: "seconds", number: true, lower: true, value: (run) => run.seconds, show: (run) => number(run.seconds ?? "") },
    { title: "folder" },
  ];
  const badge = (status) => {
    const dot = make("i", { className: "dot" });
    const found = make("span", { className: "badge" }, dot, status);
    found.classList.add(status.replace(/\W/g, "") || "unknown");
    return found;
  };
  const rowOf = (run) => {
    if (run.row) return run.row;
    const row = make("tr");
    for (const column of columns) {
      const cell = make(column.title === "run" ? "th" : "td");
      if (column.title === "run" && column === columns[0]) {
        cell.scope = "row";
        const open = make("button", { type: "button", className: "open", title: run.name, textContent: run.name });
        open.addEventListener("click", () => tell(run));
        cell.append(open);
      } else if (column === columns[1]) cell.append(badge(run.status));
      else if (column === columns[columns.length - 1]) cell.append(make("a", { href: run.link, textContent: "open" }));
      else if (column.number) {
        cell.className = "number";
        cell.textContent = column.show(run);
      } else {
        const text = String(column.value(run));
        cell.append(make("span", { className: "cut", title: text, textContent: text }));
      }
      row.append(cell);
    }
    return run.row = row;
  };
  const list = find("#list");
  const state = { order: "none", column: 0, chosen: null, limit: STEP };
  const listHeads = columns.map((column) => {
    const head = make("th", { scope: "col", className: column.number ? "number" : "" });
    if (!column.value) return head.append(column.title), head;
    head.setAttribute("aria-sort", "none");
    const button = make("button", { type: "button", className: "sort" }, ...breakable(column.title));
    button.dataset.first = column.number && !column.lower ? "descending" : "ascending";
    head.append(button);
    return head;
  });
  const sortable = listHeads.filter((head) => head.hasAttribute("aria-sort"));
  const sortBy = (column) => {
    state.column = column;
    state.order = turn(listHeads[column], sortable);
  };
  listHeads.forEach((head, column) => find("button", head)?.addEventListener("click", () => { sortBy(column); show(); }));
  find("thead", list).append(make("tr", {}, ...listHeads));
  for (const run of runs) {
    const values = run.values.map((value, index) => `${data.keys[index]}=${value}`);
    run.text = [run.name, run.status, run.reason, ...values, ...run.overrides].join("\n").toLowerCase();
  }
  const show = () => {
    const words = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = find("#status").value;
    let found = (state.chosen ?? runs).filter(
      (run) => (!status || run.status === status) && words.every((word) => run.text.includes(word)));
    if (state.order !== "none") {
      const sign = state.order === "descending" ? -1 : 1;
      const value = columns[state.column].value;
      found = [...found].sort((a, b) => compare(value(a), value(b), sign));
    }
    find("tbody", list).replaceChildren(...found.slice(0, state.limit).map(rowOf));
    const filtered = found.length < runs.length;
    find("#found").textContent = filtered ? `${found.length} of ${runs.length} runs` : `${runs.length} runs`;
    find("#clear").hidden = !filtered;
    const hidden = found.length - state.limit;
    find("#more").hidden = hidden <= 0;
    find("#more").textContent = `Show ${Math.min(hidden, STEP)} more of ${hidden}`;
  };
  for (const [name, event] of [["#filter", "input"], ["#status", "change"]])
    find(name).addEventListener(event, () => { state.limit = STEP; show(); });
  find("#more").addEventListener("click", () => { state.limit += STEP; show(); });
  find("#clear").addEventListener("click", () => {
    find("#filter").value = find("#status").value = "";
    state.chosen = null;
    show();
    find("#filter").focus();
  });
  for (const link of all("a.cell")) link.addEventListener("click", () => {
    state.chosen = data.groups[link.dataset.group].map((index) => runs[index]);
    find("#filter").value = find("#status").value = "";
    const column = columns.findIndex((each) => each.number && each.title === link.dataset.metric);
    for (const head of sortable) head.setAttribute("aria-sort", "none");
    if (column > 0) sortBy(column);
    show();
    find("#runs").focus({ preventScroll: true }); // the browser scrolls there by the link
  });

  // ------------------------------------------------------------------------------------------------------ dialogs
  const copy = (button) => button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch { // the browser forbids copying: select the text for the keyboard
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const command = (text) => {
    const button = make("button", { type: "button", textContent: "Copy" });
    button.dataset.copy = text;
    copy(button);
    return make("div", { className: "command" }, make("code", { textContent: text }), button);
  };
  const label = (text) => make("p", { className: "label", textContent: text });
  const pairs = (entries) => make("table", { className: "narrow" }, make("tbody", {}, ...entries.map(([key, text]) =>
    make("tr", {}, make("th", { scope: "row" }, ...breakable(key)), make("td", { className: "number", textContent: text })))));
  const tell = (run) => {
    const about = find("#about");
    find("h2", about).textContent = run.name;
    const pick = (selector, title) => {
      const button = make("button", { type: "button", textContent: title });
      button.addEventListener("click", () => {
        find(selector).value = String(runs.indexOf(run));
        oppose();
        about.close();
        find("#compare-head").scrollIntoView();
      });
      return button;
    };
    const why = (name) => run.nulls[name] ? `: ${run.nulls[name]}` : "";
    const reported = data.metrics.map((name, index) => [name, number(run.numbers[index]) + why(name)]).filter(([, text]) => text);
    find("div", about).replaceChildren(
      make("p", {}, badge(run.status), run.reason ? `: ${run.reason}` : ""),
      make("div", { className: "controls" }, make("a", { href: run.link, textContent: "Open the folder" }),
        pick("#first", "Compare as first"), pick("#second", "Compare as second")),
      label("Name in TensorBoard"), command(run.name),
      ...(run.command ? [label("Reproduce it alone"), command(run.command)] : []),
      ...(run.overrides.length ? [label("Overrides"), make("p", { className: "long" }, make("code", { textContent: run.overrides.join("\n") }))] : []),
      ...(reported.length ? [label("Metrics"), pairs(reported)] : []),
    );
    about.showModal();
  };
  for (const button of all(".enlarge")) button.addEventListener("click", () => {
    const image = find("img", button);
    find("#large img").src = image.src;
    find("#large img").alt = image.alt;
    find("#large").classList.toggle("pixels", Boolean(button.closest(".pictures")));
    find("#large p").textContent = image.alt;
    find("#large").showModal();
  });
  for (const link of all("[data-shown]")) { // the file is in the page already, as the picture
    link.download = link.dataset.shown;
    link.href = find("img", link.closest("figure")).src;
  }
  for (const dialog of all("dialog")) dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // a press beside the dialog
  });

  // ------------------------------------------------------------------------------------------------- side by side
  const selects = [find("#first"), find("#second")];
  selects.forEach((select, which) => {
    select.append(...runs.map((run, index) => make("option", { value: String(index), textContent: run.name })));
    select.value = String(Math.min(which, runs.length - 1));
    select.addEventListener("change", () => oppose());
  });
  const oppose = () => {
    const [first, second] = selects.map((select) => runs[Number(select.value)]);
    const entries = [
      ["status", first.status, second.status],
      ...data.keys.map((key, index) => [key, first.values[index], second.values[index]]),
      ...data.metrics.map((name, index) => [name, number(first.numbers[index]), number(second.numbers[index])]),
    ].filter(([, left, right]) => left !== right || (find("#same").checked && left !== ""));
    const marked = (left, right) => find("#same").checked && left !== right; // rows are marked only among equal ones
    const rows = entries.map(([key, left, right]) => make("tr", { className: marked(left, right) ? "differs" : "" },
      make("th", { scope: "row" }, marked(left, right) ? "≠ " : "", make("code", {}, ...breakable(key))),
      make("td", { className: "long", textContent: left }), make("td", { className: "long", textContent: right })));
    find("#compare tbody").replaceChildren(...rows);
  };
  find("#same").addEventListener("change", oppose);

  for (const element of all(".scripted, #theme, [data-copy]")) element.hidden = false;
  for (const button of all("[data-copy]")) copy(button);
  addEventListener("beforeprint", () => { find("#configs details").open = true; });
  show();
  oppose();
})();
