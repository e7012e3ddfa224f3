"use strict";
(() => {
  const main = document.querySelector("main");
  const board = document.querySelector(".board");
  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });

  function reveal(id) {
    const target = document.getElementById(id);
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  }

  if (!board) {
    addEventListener("hashchange", () => reveal(location.hash.slice(1)));
    return reveal(location.hash.slice(1));
  }

  const search = document.querySelector("#search");
  const status = document.querySelector("#status");
  const bodies = [...board.tBodies];
  const rows = bodies.flatMap((body) => [...body.rows]).filter((row) => !row.matches(".group"));
  const heads = [...board.querySelectorAll("th[data-sort]")];
  const first = heads.find((each) => ["ascending", "descending"].includes(each.getAttribute("aria-sort"))) || heads[0];
  const toggles = ["family", "show", "protocol", "kind"];
  const initial = {
    family: "all", show: "value", protocol: "native", kind: "all", sort: first.dataset.sort, dir: first.dataset.first, q: "",
  };
  const state = { ...initial };

  const choices = (key) => [...document.querySelectorAll(`button[data-${key}]`)];
  const allowed = {
    ...Object.fromEntries(toggles.map((key) => [key, [initial[key], ...choices(key).map((each) => each.dataset[key])]])),
    sort: heads.map((each) => each.dataset.sort),
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

  function show() {
    for (const key of toggles) {
      main.dataset[key] = state[key];
      for (const button of choices(key)) button.setAttribute("aria-pressed", String(button.dataset[key] === state[key]));
    }
    const visible = [...board.tHead.rows].at(-1).cells;
    const columns = [...visible].filter((each) => getComputedStyle(each).display !== "none").length;
    for (const cell of board.querySelectorAll(".group th")) cell.colSpan = columns;
    if (search.value !== state.q) search.value = state.q;
    sort();
    filter();
  }

  // The mean rank has a column per family, of which one is shown: they sort as one.
  function head(key) {
    const of = (each) => each.dataset.sort === key && (!each.dataset.of || each.dataset.of === state.family);
    return heads.find(of) || heads[0];
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
    const ordered = [...rows].sort((a, b) => compare(a, b) || name(a).localeCompare(name(b)));
    for (const body of bodies) body.append(...ordered.filter((row) => row.parentElement === body));
  }

  function filter() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    for (const body of bodies) {
      const group = body.querySelector(".group");
      if (group) group.hidden = ![...body.rows].some((row) => row !== group && !row.hidden);
    }
    const shown = rows.filter((row) => !row.hidden && getComputedStyle(row.parentElement).display !== "none").length;
    status.textContent = shown < rows.length ? `${shown} of ${rows.length} models` : "";
  }

  for (const each of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...each.childNodes);
    each.append(button);
    button.addEventListener("click", () => {
      const key = each.dataset.sort;
      const other = each.dataset.first === "ascending" ? "descending" : "ascending";
      state.dir = state.sort === key && state.dir === each.dataset.first ? other : each.dataset.first;
      state.sort = key;
      write();
    });
  }
  for (const key of toggles) {
    for (const button of choices(key)) button.addEventListener("click", () => { state[key] = button.dataset[key]; write(); });
  }
  search.addEventListener("input", () => { state.q = search.value; write(); });
  addEventListener("hashchange", read);
  document.querySelector(".controls").hidden = false;
  read();
})();
