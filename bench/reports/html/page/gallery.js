// The images as a list: filters, orders, and the numbers that the order goes by. The address holds the state.
"use strict";

rfbench.prepare.push((index) => {
  const { make, shown, named, choice } = rfbench;
  const section = document.getElementById("images");
  const AT_ONCE = 120;
  const hasRows = index.rows.length > 0;
  const state = { order: "dataset", metric: "", row: "0", other: "1", scene: "", split: "", said: "", q: "" };
  for (const key of Object.keys(state)) if (key in index.start) state[key] = index.start[key];
  const begin = { ...state };
  if (!state.metric && index.measures.length) state.metric = index.measures[0].name;

  const scenes = [...new Set(index.images.map((image) => image.scene))];
  const splits = [...new Set(index.images.map((image) => image.split))];
  const severities = [...new Set(index.images.flatMap((image) => image.lines.map(([severity]) => severity)))];
  const deviates = index.images.some((image) => image.deviation);
  const column = () => index.measures.findIndex((m) => m.name === state.metric);
  const label = (row) => index.rows[Number(row)] ?? "";

  const orders = [["dataset", "as in the dataset"]];
  if (index.measures.length) orders.unshift(["worst", "worst first"], ["best", "best first"]);
  if (index.measures.length && index.rows.length > 1) {
    orders.unshift(["apart", index.kind === "gate" ? "moved most" : "two models disagree most"]);
  }
  if (deviates) orders.push(["deviation", "largest predicted deviation"]);
  if (hasRows) orders.push(["none", "without a score, and why"]);
  if (severities.length) orders.push(["said", "with notes and errors first"]);

  const title = make("h1", { id: "images-title" }, "Images");
  const bar = make("form", { class: "bar", "aria-label": "Order and filters", onsubmit: (event) => event.preventDefault() });
  const count = make("p", { class: "count", role: "status" });
  const list = make("ol", { class: "cards" });
  const more = make("button", { class: "plain", type: "button", onclick: () => fill() }, "Show more");
  section.append(title, bar, count, list, make("p", {}, more));

  function update(change) {
    Object.assign(state, change);
    rfbench.remember("images", differing());
    show();
  }

  /** The state as far as it differs from how the page begins, for short addresses. */
  function differing() {
    return Object.fromEntries(Object.entries(state).filter(([key, value]) => value !== begin[key]));
  }

  function controls() {
    const rows = index.rows.map((text, i) => [String(i), text]);
    const measured = ["apart", "worst", "best", "none"].includes(state.order) && index.measures.length;
    const parts = [choice("Order", orders, state.order, (order) => update({ order }))];
    if (measured) parts.push(choice("Metric", index.measures.map((m) => [m.name, named(m)]), state.metric, (metric) => update({ metric })));
    if (hasRows && state.order !== "dataset" && state.order !== "said") parts.push(choice(state.order === "apart" ? "Between" : "Of", rows, state.row, (row) => update({ row })));
    if (state.order === "apart") parts.push(choice("and", rows, state.other, (other) => update({ other })));
    if (splits.length > 1) parts.push(choice("Split", [["", "all"], ...splits.map((s) => [s, s || "(none)"])], state.split, (split) => update({ split })));
    if (scenes.length > 1 && scenes.length < index.images.length) parts.push(choice("Scene", [["", "all"], ...scenes.map((s) => [s, s || "(none)"])], state.scene, (scene) => update({ scene })));
    if (severities.length) parts.push(choice("Said", [["", "anything"], ...severities.map((s) => [s, `${s}s`])], state.said, (said) => update({ said })));
    const search = make("input", { type: "search", value: state.q, placeholder: "part of an id", oninput: () => {
      state.q = search.value;
      rfbench.remember("images", differing());
      refill();
    } });
    parts.push(make("label", {}, "Id", search));
    const focused = [...bar.querySelectorAll("select")].indexOf(document.activeElement);
    bar.replaceChildren(...parts);
    if (focused >= 0) bar.querySelectorAll("select")[focused]?.focus();
  }

  /** What an image is ordered by: [has one, key, text]. */
  function score(image) {
    const at = column();
    const measure = index.measures[at];
    const value = (row) => image.values[Number(row)]?.[at] ?? null;
    const why = (row) => index.reasons[image.why?.[`${row},${at}`]];
    const text = (row) => `${measure.title} ${shown(value(row), measure.decimals)}${measure.unit ? ` ${measure.unit}` : ""}`;
    switch (state.order) {
      case "apart": {
        const [a, b] = [value(state.row), value(state.other)];
        if (a === null || b === null) return [false, 0, `no difference: ${why(state.row) || why(state.other) || "one has no number"}`];
        const difference = a - b;
        return [true, -Math.abs(difference), `${measure.title} ${difference > 0 ? "+" : ""}${shown(difference, measure.decimals, 1)}: ${shown(a, measure.decimals)} and ${shown(b, measure.decimals)}`];
      }
      case "worst":
      case "best": {
        const v = value(state.row);
        if (v === null) return [false, 0, why(state.row) || "no number"];
        const sign = (measure.direction === "up") === (state.order === "worst") ? 1 : -1;
        return [true, sign * v, text(state.row)];
      }
      case "deviation": {
        const v = image.deviation?.[state.row];
        return v === undefined ? [false, 0, "no predicted deviation"] : [true, -v, `deviation ${v.toFixed(2)} of 255`];
      }
      case "none": {
        const reasons = index.measures.map((m, j) => [m.title, index.reasons[image.why?.[`${state.row},${j}`]]]).filter(([, why_]) => why_);
        return [reasons.length > 0, 0, reasons.slice(0, 3).map(([t, why_]) => `${t}: ${why_}`).join("; ")];
      }
      case "said":
        return [image.lines.length > 0, { error: 0, warning: 1, note: 2 }[image.lines[0]?.[0]] ?? 3, ""];
      default:
        return [true, 0, measure && hasRows ? index.rows.map((_, row) => shown(value(row), measure.decimals)).join(" · ") : ""];
    }
  }

  let found = [];
  let filled = 0;

  function refill() {
    const wanted = state.q.toLowerCase();
    found = index.images
      .filter((image) => (!state.scene || image.scene === state.scene) && (!state.split || image.split === state.split)
        && (!state.said || image.lines.some(([severity]) => severity === state.said))
        && (!wanted || image.name.toLowerCase().includes(wanted)))
      .map((image) => [image, score(image)]);
    if (state.order === "none") found = found.filter(([, [has]]) => has);
    found.sort(([a, [hasA, keyA]], [b, [hasB, keyB]]) => hasB - hasA || keyA - keyB || a.place - b.place);
    rfbench.sequence = found.map(([image]) => image).filter((image) => image.n !== undefined);
    const hidden = found.filter(([image]) => image.n === undefined).length;
    const of = found.length === index.images.length ? "" : ` of ${index.images.length}`;
    count.textContent = `${found.length}${of} image${found.length === 1 ? "" : "s"}${hidden ? `; ${hidden} of them without pictures here` : ""}`;
    if (!found.length) count.textContent = state.order === "none" ? "Every image has every score." : "No image is like that; change the filters.";
    list.replaceChildren();
    filled = 0;
    fill();
  }

  function fill() {
    list.append(...found.slice(filled, filled + AT_ONCE).map(card));
    filled = Math.min(found.length, filled + AT_ONCE);
    more.hidden = filled >= found.length;
  }

  /** Which panels a card shows: what is compared, and what it is held against. */
  function pictured() {
    const keys = hasRows ? [`r${state.row}`] : ["lr"];
    if (state.order === "apart") keys.push(`r${state.other}`);
    keys.push("hr");
    if (state.order === "dataset" && hasRows) keys.unshift("lr");
    return [...new Set(keys)].map((key) => index.panels.findIndex((p) => p.key === key)).filter((i) => i >= 0);
  }

  function card([image, [, , text]]) {
    const panels = pictured();
    const said = image.lines.slice(0, 2).map(([severity, line]) => make("p", { class: `said ${severity}-text` }, `${severity === "note" ? "" : `${severity}: `}${line}`));
    const body = [
      make("p", { class: "title" }, make("span", {}, image.name), image.scene !== image.id && image.scene ? make("span", { class: "soft-text" }, image.scene) : null),
      text ? make("p", { class: "said" }, text) : null,
      ...said,
    ];
    if (image.n === undefined) return make("li", { class: "card" }, make("div", {}, ...body));
    const [h, w] = image.cell;
    const size = Math.min(1, 128 / Math.max(h, w), 250 / panels.length / w);
    const thumbs = panels.map((i) => {
      const picture = make("img", { src: image.thumb, alt: "", loading: "lazy", decoding: "async" });
      picture.style.width = `${index.panels.length * w * size}px`;
      picture.style.height = `${h * size}px`;
      picture.style.left = `${-i * w * size}px`;
      const frame = make("span", { class: "thumb" }, picture);
      frame.style.width = `${w * size}px`;
      frame.style.height = `${h * size}px`;
      frame.style.display = "block";
      const name = make("span", { class: "thumb-name" }, index.panels[i].label);
      name.style.width = frame.style.width;
      return make("span", {}, frame, name);
    });
    const options = { id: image.id };
    if (hasRows) options.a = `r${state.row}`;
    if (state.order === "apart") options.b = `r${state.other}`;
    return make("li", { class: "card" }, make("a", { href: rfbench.address("image", options) }, make("span", { class: "thumbs" }, ...thumbs), ...body));
  }

  function show() {
    controls();
    refill();
  }

  rfbench.sequence = index.images.filter((image) => image.n !== undefined);
  rfbench.galleryAddress = () => rfbench.address("images", differing());
  rfbench.onview("images", (options) => {
    Object.assign(state, begin, Object.fromEntries([...options].filter(([key]) => key in state)));
    if (!orders.some(([key]) => key === state.order)) state.order = begin.order;
    if (column() < 0 && index.measures.length) state.metric = index.measures[0].name;
    for (const key of ["row", "other"]) if (hasRows && !index.rows[Number(state[key])]) state[key] = "0";
    show();
  });
});
