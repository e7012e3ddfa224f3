"use strict";
(() => {
  const main = document.querySelector("main");
  const board = document.querySelector(".board");
  const search = document.querySelector("#search");
  const status = document.querySelector("#status");
  const body = board.tBodies[0];
  const heads = [...board.querySelectorAll("th[data-sort]")];
  const initial = { family: "all", show: "value", protocol: "native", sort: "rank", dir: "ascending", q: "" };
  const state = { ...initial };

  const allowed = {
    family: ["all", "segmentation", "classification"],
    show: ["value", "rank"],
    protocol: ["native", "paper"],
    sort: heads.map((head) => head.dataset.sort),
    dir: ["ascending", "descending"],
  };

  function read() {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return reveal(hash);
    const asked = new URLSearchParams(hash);
    for (const key of Object.keys(initial)) {
      const value = asked.get(key);
      state[key] = value !== null && (key === "q" || allowed[key].includes(value)) ? value : initial[key];
    }
    show();
  }

  function write() {
    const changed = Object.entries(state).filter(([key, value]) => value !== initial[key]);
    const hash = new URLSearchParams(changed).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    show();
  }

  function reveal(id) {
    const target = document.getElementById(id);
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  }

  function show() {
    for (const key of ["family", "show", "protocol"]) {
      main.dataset[key] = state[key];
      for (const button of document.querySelectorAll(`button[data-${key}]`)) {
        button.setAttribute("aria-pressed", String(button.dataset[key] === state[key]));
      }
    }
    for (const [family, colspan] of Object.entries(spans)) {
      for (const row of board.querySelectorAll("th[scope=rowgroup]")) {
        if (family === state.family) row.colSpan = colspan;
      }
    }
    if (search.value !== state.q) search.value = state.q;
    sort();
    filter();
  }

  // The mean rank has a column per family, of which one is shown: they sort as one.
  function head(key) {
    const of = (each) => each.dataset.sort === key && (!each.dataset.of || each.dataset.of === state.family);
    return heads.find(of) || heads.find((each) => each.dataset.sort === "rank");
  }

  function sort() {
    const chosen = head(state.sort);
    for (const each of heads) each.setAttribute("aria-sort", each === chosen ? state.dir : "none");
    const sign = state.dir === "ascending" ? 1 : -1;
    const value = (row) => {
      const { native, paper } = row.cells[chosen.cellIndex].dataset;
      const text = state.protocol === "paper" && paper !== undefined ? paper : native;
      return text === undefined || text === "" ? null : text;
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (chosen.dataset.sort === "model" ? x.localeCompare(y) : Number(x) - Number(y));
    };
    const name = (row) => row.cells[0].dataset.native;
    body.append(...[...body.rows].sort((a, b) => compare(a, b) || name(a).localeCompare(name(b))));
  }

  function filter() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of board.querySelectorAll("tbody tr")) {
      const cell = row.cells[0];
      if (cell.scope === "rowgroup") continue;
      const text = cell.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden && row.parentElement === body;
    }
    status.textContent = words.length ? `${shown} of ${body.rows.length} models` : "";
  }

  const columns = (family) => [...board.tHead.rows[1].cells].filter(
    (cell) => (!cell.dataset.of || cell.dataset.of === family)
      && (family === "all" || !cell.dataset.f || cell.dataset.f === family),
  ).length;
  const spans = Object.fromEntries(allowed.family.map((family) => [family, columns(family)]));

  for (const each of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...each.childNodes);
    each.append(button);
    button.addEventListener("click", () => {
      const key = each.dataset.sort;
      const first = each.dataset.first;
      const other = first === "ascending" ? "descending" : "ascending";
      state.dir = state.sort === key && state.dir === first ? other : first;
      state.sort = key;
      write();
    });
  }
  for (const key of ["family", "show", "protocol"]) {
    for (const button of document.querySelectorAll(`button[data-${key}]`)) {
      button.addEventListener("click", () => { state[key] = button.dataset[key]; write(); });
    }
  }
  search.addEventListener("input", () => { state.q = search.value; write(); });
  addEventListener("hashchange", read);
  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
  document.querySelector(".controls").hidden = false;
  read();
})();
