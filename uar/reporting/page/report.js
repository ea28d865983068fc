"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  };

  // Theme: the system's, until the button says otherwise. Storage is refused to some pages opened from disk.
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("uar-theme", value);
      return localStorage.getItem("uar-theme");
    } catch {
      return null;
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const toggle = byId("theme");
  const showTheme = () => {
    toggle.setAttribute("aria-pressed", String(dark()));
    toggle.textContent = dark() ? "Light" : "Dark";
  };
  const kept = remembered();
  if (kept) root.dataset.theme = kept;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered(root.dataset.theme);
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();

  // Tables: numbers fall first, names rise first; what is missing stays last.
  const valueOf = (cell) => {
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const sort = (head) => {
    const heads = [...head.parentElement.children];
    const at = heads.indexOf(head);
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows];
    const number = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const falling = before === "none" ? number : before === "ascending";
    heads.forEach((h) => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const keyed = rows.map((row) => [valueOf(row.cells[at]), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return falling ? compare(b, a) : compare(a, b);
    });
    body.append(...keyed.map(([, row]) => row));
  };
  document.querySelectorAll("th[aria-sort]").forEach((head) => {
    head.querySelector("button").addEventListener("click", () => sort(head));
  });

  // Questions.
  const { pairs, passages } = JSON.parse(byId("data").textContent);
  if (!pairs.length) return;
  const [run, slug, measure, order, filter] = ["run", "slug", "measure", "order", "filter"].map(byId);
  const options = (select, values) => {
    const before = select.value;
    select.replaceChildren(...values.map((value) => new Option(value, value)));
    if (values.includes(before)) select.value = before;
  };
  const unique = (values) => [...new Set(values)];
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(3);
  const named = (name, seed) => (seed === null ? name : `${name} (seed ${seed})`);
  const chosen = () => pairs.find((p) => p.run === run.value && p.slug === slug.value);

  const chips = (node, query, id) => {
    const people = query.people[id];
    if (people) node.append(make("span", people[1] ? "people +" : `people: grade ${people[0]}`, `chip ${people[1] ? "yes" : "no"}`));
    // Rows whose LLMs say the same share a chip; where they do not, each chip names its rows.
    const said = new Map();
    Object.entries(query.llm[id] || {}).forEach(([row, [label, source]]) => {
      const words = `${source.replace("human", "people").replace("llm", "LLM").replaceAll(":", " ")} ${label ? "+" : "−"}`;
      said.set(words, [...(said.get(words) || []), row]);
    });
    said.forEach((rows, words) => {
      const chip = make("span", said.size > 1 ? `${words} (${rows.join("; ")})` : words, `chip ${words.endsWith("+") ? "yes" : "no"}`);
      chip.title = rows.join("; ");
      node.append(chip);
    });
  };
  const passage = (pair, query, id) => {
    const item = make("li");
    const [title, text] = (passages[pair.slug] || {})[id] || ["", ""];
    item.append(make("b", title || id));
    chips(item, query, id);
    if (text) item.append(make("p", text));
    return item;
  };
  const details = (pair, query) => {
    const detail = make("div", undefined, "detail");
    if (query.answers.length) {
      const line = make("p", "Answer: ");
      line.append(make("b", query.answers.join(" · ")));
      detail.append(line);
    }
    const scores = Object.entries(query.scores).map(([name, [a, b]]) => `${name} ${a.toFixed(3)} → ${b.toFixed(3)}`);
    detail.append(make("p", scores.join(", "), "muted"));
    if (query.gold.length) {
      detail.append(make("h4", "Positives by people"));
      const list = make("ul");
      query.gold.forEach(([id, ...ranks]) => {
        const [title] = (passages[pair.slug] || {})[id] || [""];
        const [a, b] = ranks.map((rank) => (rank === null ? "not found" : `rank ${rank}`));
        const item = make("li", `${title || id}: ${a} → ${b}`);
        chips(item, query, id);
        list.append(item);
      });
      detail.append(list);
    }
    const both = make("div", undefined, "both");
    [pair.baseline, pair.run].forEach((name, at) => {
      const side = make("section");
      side.append(make("h4", named(name, pair.seeds[at])));
      const list = make("ol");
      list.append(...query.lists[at].map((id) => passage(pair, query, id)));
      side.append(list);
      Object.entries(query.generations[at]).forEach(([line, answer]) => {
        const said = make("p", `Generated (${line.replace("_", " ")}): `);
        said.append(make("q", answer));
        side.append(said);
      });
      both.append(side);
    });
    detail.append(both);
    return detail;
  };
  const question = (pair, query, difference) => {
    const item = make("li");
    const box = make("details");
    const summary = make("summary");
    const kind = difference > 0 ? " gain" : difference < 0 ? " loss" : "";
    summary.append(make("span", signed(difference), `difference${kind}`), make("span", query.text || query.id));
    box.append(summary);
    box.addEventListener("toggle", () => { if (box.open && box.children.length < 2) box.append(details(pair, query)); });
    item.append(box);
    return item;
  };
  const searched = (query) =>
    [query.id, query.text, ...query.answers, ...query.generations.flatMap((g) => Object.values(g))].join("\n").toLowerCase();
  const show = () => {
    const pair = chosen();
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const scored = pair.queries
      .filter((query) => query.scores[measure.value])
      .map((query) => [query.scores[measure.value][1] - query.scores[measure.value][0], query])
      .filter(([difference]) => difference !== 0);
    const found = scored.filter(([, query]) => words.every((word) => searched(query).includes(word)));
    found.sort(([a, p], [b, q]) => {
      if (order.value === "text") return p.text.localeCompare(q.text);
      return (order.value === "loss" ? a - b : b - a) || p.id.localeCompare(q.id);
    });
    const [theirs, ours] = [pair.baseline, pair.run].map((name, at) => named(name, pair.seeds[at]));
    byId("count").textContent =
      `${found.length} of ${scored.length} questions: ${measure.value} of ${ours} minus ${theirs} on ${pair.slug}` +
      (pair.told[measure.value] ? `; ${pair.told[measure.value]}` : "");
    byId("questions").replaceChildren(...found.map(([difference, query]) => question(pair, query, difference)));
  };
  const chooseRun = () => {
    options(slug, pairs.filter((p) => p.run === run.value).map((p) => p.slug));
    chooseSlug();
  };
  const chooseSlug = () => {
    options(measure, chosen().measures);
    show();
  };
  options(run, unique(pairs.map((p) => p.run)));
  chooseRun();
  run.addEventListener("change", chooseRun);
  slug.addEventListener("change", chooseSlug);
  [measure, order].forEach((control) => control.addEventListener("change", show));
  filter.addEventListener("input", show);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
})();
