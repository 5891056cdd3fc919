// One image: a stage with a slider between any two pictures, all pictures beside it, maps, mask, and values.
"use strict";

rfbench.prepare.push((index) => {
  const { make, draw, shown, named, choice, pixels } = rfbench;
  const section = document.getElementById("image");
  const SVG_HEIGHT = 0.74; // of the window, at most, for the stage
  const LARGEST = 64; // screen pixels an image pixel

  const byKey = new Map(index.panels.map((panel) => [panel.key, panel]));
  const models = index.panels.filter((panel) => panel.kind === "model").map((panel) => panel.key);
  const [firstA, firstB] = [index.start.a || models[0] || "lr", index.start.b || "hr"];
  const begin = { a: firstA, b: firstB, mode: "slide", at: "50", show: "image", mask: "", z: "", x: "", y: "", p: "" };

  let image = null; // of the index
  let data = null; // its pixels, as they came
  let decoded = new Map();
  let state = { ...begin };
  let views = []; // {box, layers: [{element, key}], key}
  let request = 0;

  // --- the parts of the page -------------------------------------------------------------------------------------

  const title = make("h1", { id: "image-title" });
  const where = make("p");
  const button = (text, key, act, more = {}) => make("button", { class: "plain", type: "button", onclick: act, ...more }, text, key ? " " : null, key ? make("kbd", { "aria-hidden": "true" }, key) : null);
  const previous = button("Previous", "k", () => step(-1), { "aria-keyshortcuts": "k" });
  const next = button("Next", "j", () => step(1), { "aria-keyshortcuts": "j" });
  const gallery = make("a", { href: "#/images" }, "All images");
  const head = make("div", { class: "head" }, title, where, make("span", { class: "group" }, previous, next), gallery);
  const message = make("p", { class: "message", role: "status" });
  message.hidden = true;

  const stage = make("div", { class: "view stage-view", tabindex: "0", role: "img" });
  const range = make("input", { class: "range", type: "range", min: "0", max: "100", step: "0.5", "aria-label": "Divider between the two pictures", oninput: () => set({ at: range.value, mode: "slide" }) });
  const tools = make("div", { class: "tools" });
  const scale = make("div", { class: "scale" });
  const bar = pixels.legend(make("canvas", { role: "img", "aria-label": "Scale of the map, from its lowest to its highest value" }));
  const left = make("div", {}, stage, range, tools, scale);
  const panels = make("ul", { class: "panels", "aria-label": "All pictures" });
  const caption = make("div", { class: "caption" });
  const said = make("ul", { class: "notes" });
  const facts = make("ul", { class: "facts" });
  const scores = make("div");
  const keys = make("details", { class: "keys" }, make("summary", {}, "Keys"), make("ul", {}, ...[
    ["1 to 9", "one picture after the other, in place"], ["s", "the slider again"], ["[ ]", "move the divider"],
    ["+ −", "zoom"], ["0", "the whole image"], ["arrows", "move what is seen"], ["Shift and arrows", "move the marked pixel"],
    ["e", "errors against HR"], ["d", "predicted deviation"], ["i", "the images again"], ["m", "outline of the mask"],
    ["j k", "next and previous image"], ["g", "all images"],
  ].map(([key, text]) => make("li", {}, make("kbd", {}, key), ` ${text}`))));
  section.append(head, message, make("div", { class: "desk" }, left, make("div", {}, panels)),
    make("div", { class: "below" }, caption, scores, said, facts, keys));

  // --- state -----------------------------------------------------------------------------------------------------

  let remembering = 0;

  function set(change) {
    Object.assign(state, change);
    render();
    clearTimeout(remembering); // browsers refuse a hundred addresses in a few seconds
    remembering = setTimeout(remember, 150);
  }

  function remember() {
    if (rfbench.where().view !== "image" || !image) return;
    const changed = Object.entries(state).filter(([key, value]) => value !== begin[key]);
    rfbench.remember("image", { id: image.id, ...Object.fromEntries(changed) });
  }

  function step(by) {
    const list = rfbench.sequence;
    const at = list.indexOf(image);
    const target = list[(at < 0 ? 0 : at + by + list.length) % list.length];
    if (!target || target === image) return;
    const kept = Object.fromEntries(["a", "b", "mode", "at", "show", "mask"].map((key) => [key, state[key] === begin[key] ? "" : state[key]]));
    rfbench.go("image", { id: target.id, ...kept });
  }

  rfbench.onview("image", async (options) => {
    const id = options.get("id");
    const wanted = id === null ? image || rfbench.sequence[0] : rfbench.byId.get(id);
    if (!wanted || wanted.n === undefined) {
      say(wanted ? "The pictures of this image are not in this report." : index.images.length ? "There is no such image in this report." : "This report has no image.");
      return;
    }
    if (id !== null) state = { ...begin, ...Object.fromEntries([...options].filter(([key]) => key in begin)) };
    if (!byKey.has(state.a)) state.a = begin.a;
    if (!byKey.has(state.b)) state.b = begin.b;
    if (wanted === image && data) { render(); return; }
    const mine = request += 1;
    try {
      const found = await rfbench.load(wanted);
      if (mine !== request) return;
      image = wanted;
      data = found;
      decoded = new Map();
      await Promise.all([...Object.entries(data.pictures), ["mask", data.mask], ["valid", data.valid], ...data.maps.map((map, i) => [`map-${i}`, map.png])]
        .filter(([, url]) => url).map(async ([key, url]) => { decoded.set(key, await pixels.decode(url)); }));
      if (mine !== request) return;
      say("");
      build();
      render();
      remember();
      section.dataset.shown = image.id;
    } catch (error) {
      say(`This image cannot be shown: ${error.message}`);
    }
  });

  function say(text) {
    message.hidden = !text;
    message.textContent = text;
    for (const part of section.children) if (part !== message) part.hidden = Boolean(text);
  }

  // --- what an image brings --------------------------------------------------------------------------------------

  const modes = () => {
    const found = [["image", "images"]];
    if (decoded.has("hr")) found.push(["error", "errors against HR"]);
    for (const name of new Set(data.maps.map((map) => map.name))) found.push([`map:${name}`, name]);
    return found;
  };

  function build() {
    title.textContent = image.name;
    const list = rfbench.sequence;
    const at = list.indexOf(image);
    where.textContent = [image.scene && image.scene !== image.name ? `scene ${image.scene}` : "", image.split ? `split ${image.split}` : "", `${data.size[1]}×${data.size[0]} px`, at >= 0 ? `${at + 1} of ${list.length}` : ""].filter(Boolean).join(" · ");
    gallery.href = rfbench.galleryAddress();
    document.title = `${image.name} – ${index.title}`;
    if (!modes().some(([key]) => key === state.show)) state.show = "image";
    path = decoded.has("mask") ? pixels.outline(decoded.get("mask")) : "";
    maps = new Map();

    views = [];
    stage.style.aspectRatio = `${data.size[1]} / ${data.size[0]}`;
    stage.style.maxHeight = `${Math.round(SVG_HEIGHT * 100)}vh`;
    stage.replaceChildren();
    views.push(viewOn(stage, [state.a, state.b]));
    stage.append(divider, tagA, tagB);

    panels.replaceChildren(...index.panels.map((panel, i) => {
      const box = make("div", { class: "view" });
      box.style.aspectRatio = `${data.size[1]} / ${data.size[0]}`;
      const number = i < 9 ? make("kbd", { "aria-hidden": "true" }, String(i + 1)) : null;
      const reading = make("p", { class: "reading" });
      const pick = make("button", { type: "button", "aria-pressed": "false", "data-key": panel.key, onclick: () => set({ a: panel.key, mode: "one" }) },
        box, make("span", { class: "label" }, number, make("span", {}, panel.label)));
      const view = viewOn(box, [panel.key]);
      view.reading = reading;
      view.pick = pick;
      views.push(view);
      if (data.absent[panel.key] || !decoded.has(panel.key)) box.append(make("span", { class: "absent" }, data.absent[panel.key] || "not in this run"));
      return make("li", { class: "panel" }, pick, reading);
    }));

    caption.replaceChildren(...(data.caption ? [make("strong", {}, "Caption: "), data.caption] : []));
    caption.hidden = !data.caption;
    said.replaceChildren(...image.lines.map(([severity, text]) => make("li", { class: `${severity}-text` }, `${severity === "note" ? "" : `${severity}: `}${text}`)));
    facts.replaceChildren(...data.facts.map(([name, text]) => make("li", {}, make("strong", {}, name), ` ${text}`)));
    scores.replaceChildren(...(index.measures.length ? [table()] : []));
    controls();
  }

  /** All scores of all rows of this image; what has none has its reason. */
  function table() {
    const body = index.rows.map((label, i) => make("tr", {}, make("th", { scope: "row" }, label), ...index.measures.map((m, j) => {
      const value = image.values[i]?.[j] ?? null;
      const why = index.reasons[image.why?.[`${i},${j}`]];
      const others = index.rows.map((_, k) => image.values[k]?.[j]).filter((v) => v !== null && v !== undefined).map((v) => Number(shown(v, m.decimals)));
      const best = m.direction && others.length > 1 && value !== null && Number(shown(value, m.decimals)) === (m.direction === "up" ? Math.max(...others) : Math.min(...others));
      return make("td", { class: `number${best ? " best" : ""}`, title: value === null ? why || "no number" : null }, make("span", { class: `value${value === null ? " none" : ""}` }, shown(value, m.decimals)));
    })));
    const heads = index.measures.map((m) => make("th", { scope: "col", class: "number", title: m.meaning || null }, named(m)));
    const reasons = new Map(); // text -> rows and metrics that it concerns
    index.rows.forEach((label, i) => index.measures.forEach((m, j) => {
      const text = index.reasons[image.why?.[`${i},${j}`]];
      if (text === undefined) return;
      if (!reasons.has(text)) reasons.set(text, [new Set(), new Set()]);
      reasons.get(text)[0].add(label);
      reasons.get(text)[1].add(m.title);
    }));
    const lines = [...reasons].map(([text, [rows, metrics]]) => `${[...metrics].join(", ")} of ${[...rows].join(", ")}: ${text}`);
    return make("div", {}, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores of this image" },
      make("table", { class: "grid" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "this image"), ...heads)), make("tbody", {}, ...body))),
    make("ul", { class: "notes" }, ...lines.map((text) => make("li", {}, text))));
  }

  function controls() {
    const options = index.panels.map((panel) => [panel.key, panel.label]);
    const pressed = (on) => ({ "aria-pressed": on ? "true" : "false" });
    tools.replaceChildren(
      choice("Left", options, state.a, (a) => set({ a })), choice("Right", options, state.b, (b) => set({ b, mode: "slide" })),
      button("Slider", "s", () => set({ mode: state.mode === "slide" ? "one" : "slide" }), { ...pressed(state.mode === "slide"), id: "slide" }),
      choice("Show", modes(), state.show, (show) => set({ show })),
      decoded.has("mask") ? button("Mask", "m", () => set({ mask: state.mask ? "" : "1" }), { ...pressed(state.mask === "1"), id: "mask" }) : "",
      make("span", { class: "group" }, button("−", null, () => zoom(1 / 1.5), { "aria-label": "Zoom out" }), button("Fit", "0", fit), button("+", null, () => zoom(1.5), { "aria-label": "Zoom in" })),
    );
  }

  // --- views -----------------------------------------------------------------------------------------------------

  const divider = make("div", { class: "divider" });
  const tagA = make("span", { class: "tag left" });
  const tagB = make("span", { class: "tag right" });
  let path = "";
  let maps = new Map();

  function viewOn(box, layerKeys) {
    const layers = layerKeys.map((_, i) => make("div", { class: i ? "layer clipped" : "layer" }));
    const over = make("div", { class: "layer" });
    const probe = make("div", { class: "probe" });
    over.append(probe);
    box.append(...layers, over);
    const view = { box, layers, over, probe, drawn: layers.map(() => "") };
    box.onpointermove = (event) => point(view, event);
    box.onpointerleave = () => { if (!state.p) read(null); };
    box.onpointerdown = (event) => grab(view, event);
    if (box === stage) box.onwheel = (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8, place(view, event)); };
    box.ondblclick = (event) => { event.preventDefault(); zoom(2, place(view, event)); };
    return view;
  }

  /** What is seen: zoom of the stage (screen pixels an image pixel) and the image point in its middle. */
  function seen() {
    const [h, w] = data.size;
    const whole = Math.min(stage.clientWidth / w, stage.clientHeight / h);
    const z = state.z ? Math.min(LARGEST, Math.max(whole, Number(state.z) || whole)) : whole;
    const half = [stage.clientWidth / z / 2, stage.clientHeight / z / 2];
    const clamp = (v, middle, size) => (size <= 2 * middle ? size / 2 : Math.min(size - middle, Math.max(middle, v)));
    return { z, whole, x: clamp(state.x ? Number(state.x) : w / 2, half[0], w), y: clamp(state.y ? Number(state.y) : h / 2, half[1], h) };
  }

  const zoomOf = (view, now) => (now.z * view.box.clientWidth) / (stage.clientWidth || 1);

  /** Lay an element over a part of the image, in shares of the view: right for views of any size, and on paper. */
  function put(element, now, x, y, width, height) {
    const [across, down] = [(100 * now.z) / (stage.clientWidth || 1), (100 * now.z) / (stage.clientHeight || 1)];
    Object.assign(element.style, { left: `${50 + (x - now.x) * across}%`, top: `${50 + (y - now.y) * down}%`, width: `${width * across}%`, height: `${height * down}%` });
  }

  /** The image point under a pointer. */
  function place(view, event) {
    const now = seen();
    const box = view.box.getBoundingClientRect();
    const z = zoomOf(view, now);
    return [now.x + (event.clientX - box.left - box.width / 2) / z, now.y + (event.clientY - box.top - box.height / 2) / z];
  }

  function zoom(by, about) {
    const now = seen();
    const z = Math.min(LARGEST, Math.max(now.whole, now.z * by));
    if (z <= now.whole * 1.001) { fit(); return; }
    const [x, y] = about || [now.x, now.y];
    set({ z: z.toFixed(3), x: (x + (now.x - x) * (now.z / z)).toFixed(2), y: (y + (now.y - y) * (now.z / z)).toFixed(2) });
  }

  function fit() { set({ z: "", x: "", y: "" }); }

  function pan(dx, dy) {
    const now = seen();
    if (!state.z) return;
    set({ x: (now.x + dx / now.z).toFixed(2), y: (now.y + dy / now.z).toFixed(2) });
    const after = seen();
    Object.assign(state, { x: after.x.toFixed(2), y: after.y.toFixed(2) });
  }

  function grab(view, event) {
    if (event.button !== 0) return;
    const rect = stage.getBoundingClientRect();
    const slides = view.box === stage && state.mode === "slide" && (!state.z || Math.abs(event.clientX - rect.left - (rect.width * Number(state.at)) / 100) < 20);
    let [x, y] = [event.clientX, event.clientY];
    let moved = false;
    if (view.box === stage) stage.setPointerCapture(event.pointerId);
    const move = (e) => {
      if (Math.abs(e.clientX - x) + Math.abs(e.clientY - y) < 2 && !moved) return;
      moved = true;
      if (slides) set({ at: Math.min(100, Math.max(0, (100 * (e.clientX - rect.left)) / rect.width)).toFixed(1) });
      else {
        const share = stage.clientWidth / view.box.clientWidth;
        pan((x - e.clientX) * share, (y - e.clientY) * share);
        [x, y] = [e.clientX, e.clientY];
      }
    };
    const end = (e) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
      if (!moved && view.box === stage) {
        const [px, py] = place(view, e).map(Math.floor);
        set({ p: state.p === `${px},${py}` ? "" : `${px},${py}` });
      }
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  // --- values ----------------------------------------------------------------------------------------------------

  function point(view, event) {
    if (!state.p) read(place(view, event).map(Math.floor));
  }

  /** A picture's pixel at a point of the grid; LR has larger ones, and lies below the border that others lack. */
  function pixel(key, [x, y]) {
    const found = decoded.get(key);
    if (!found) return null;
    const [h, w] = data.size;
    const border = byKey.get(key)?.kind === "lr" ? data.border : 0;
    const px = Math.floor(((x + border + 0.5) * found.width) / (w + 2 * border));
    const py = Math.floor(((y + border + 0.5) * found.height) / (h + 2 * border));
    if (px < 0 || py < 0 || px >= found.width || py >= found.height) return null;
    const at = 4 * (py * found.width + px);
    return [...found.data.slice(at, at + 3)];
  }

  function read(at) {
    const [h, w] = data.size;
    const inside = at && at[0] >= 0 && at[1] >= 0 && at[0] < w && at[1] < h;
    const truth = inside ? pixel("hr", at) : null;
    for (const view of views) {
      view.probe.hidden = !inside;
      if (inside) {
        put(view.probe, seen(), at[0], at[1], 1, 1);
      }
      if (!view.reading) continue;
      const key = view.pick.dataset.key;
      const rgb = inside ? pixel(key, at) : null;
      const lines = [];
      if (rgb) {
        const error = truth && byKey.get(key).kind === "model" ? Math.sqrt(rgb.reduce((sum, v, c) => sum + (v - truth[c]) ** 2, 0) / 3) : null;
        lines.push(rgb.join(" "), ...(error === null ? [] : [`error ${error.toFixed(1)}`]));
        data.maps.forEach((map, i) => {
          if (map.panel !== key) return;
          const found = valuesOf(i);
          const mx = Math.floor(((at[0] + 0.5) * found.width) / w);
          const my = Math.floor(((at[1] + 0.5) * found.height) / h);
          const value = found.values[my * found.width + mx];
          lines.push(map.classes ? map.classes[value] || "no class" : `${map.name} ${shown(value, null)}`);
        });
      }
      view.reading.textContent = lines.join(" · ");
    }
    stage.setAttribute("aria-label", describe(inside ? at : null));
  }

  function describe(at) {
    const now = state.mode === "slide" ? `${byKey.get(state.a).label} left, ${byKey.get(state.b).label} right of the divider` : byKey.get(state.a).label;
    if (!at) return `${image.name}: ${now}`;
    const values = index.panels.map((panel) => [panel.label, pixel(panel.key, at)]).filter(([, rgb]) => rgb).map(([label, rgb]) => `${label} ${rgb.join(" ")}`);
    return `${image.name}: ${now}; pixel ${at[0]}, ${at[1]}: ${values.join("; ")}`;
  }

  function valuesOf(i) {
    if (!maps.has(i)) {
      const { classes, low, high } = data.maps[i];
      const picture = decoded.get(`map-${i}`);
      maps.set(i, classes ? pixels.classified(picture, classes.length) : pixels.restored(picture, low, high));
    }
    return maps.get(i);
  }

  // --- drawing ---------------------------------------------------------------------------------------------------

  /** The map of each panel that is shown instead of its picture, with one scale for all: {of: key -> map, low, high, unit}. */
  function mapped() {
    if (state.show === "image") return null;
    if (maps.has(state.show)) return maps.get(state.show);
    const of = new Map();
    let [low, high, unit, classes] = [0, 0, "grey levels of 255", null];
    if (state.show === "error") {
      const truth = decoded.get("hr");
      for (const panel of index.panels) {
        const found = decoded.get(panel.key);
        if (panel.kind !== "hr" && found && truth && found.width === truth.width && found.height === truth.height) of.set(panel.key, pixels.difference(found, truth, decoded.get("valid")));
      }
      high = Math.max(1, Math.ceil(pixels.quantile([...of.values()], 0.99)));
    } else {
      const name = state.show.slice(4);
      data.maps.forEach((map, i) => { if (map.name === name) { of.set(map.panel, valuesOf(i)); classes = map.classes || null; low = Math.min(low, map.low ?? 0); high = Math.max(high, map.high ?? 0); unit = map.unit; } });
    }
    const found = { of, low, high, unit, classes, canvases: new Map() };
    for (const [key, map] of of) found.canvases.set(key, pixels.paint(map, low, high, Boolean(classes)));
    maps.set(state.show, found);
    return found;
  }

  function content(key, now) {
    const canvas = now?.canvases.get(key);
    if (canvas) {
      const copy = make("canvas", { width: canvas.width, height: canvas.height });
      copy.getContext("2d").drawImage(canvas, 0, 0);
      return copy;
    }
    return data.pictures[key] ? make("img", { src: data.pictures[key], alt: "", draggable: false }) : null;
  }

  function render() {
    if (!data || section.hidden) return;
    const now = seen();
    const [h, w] = data.size;
    const map = mapped();
    const slides = state.mode === "slide";
    stage.style.setProperty("--cut", `${state.at}%`);
    range.value = state.at;
    range.style.width = `${stage.clientWidth}px`;
    divider.hidden = !slides;
    stage.querySelectorAll(".clipped").forEach((layer) => { layer.hidden = !slides; });
    const suffix = (key) => (map?.of.has(key) ? `, ${state.show === "error" ? "error" : state.show.slice(4)}` : "");
    tagA.textContent = byKey.get(state.a).label + suffix(state.a);
    tagB.textContent = byKey.get(state.b).label + suffix(state.b);
    tagB.hidden = !slides;
    for (const view of views) {
      const layerKeys = view.box === stage ? [state.a, state.b] : [view.pick.dataset.key];
      view.layers.forEach((layer, i) => {
        const wanted = `${layerKeys[i]} ${state.show}`;
        if (view.drawn[i] !== wanted) {
          const element = content(layerKeys[i], map);
          layer.replaceChildren(...(element ? [element] : []));
          view.drawn[i] = wanted;
        }
        const element = layer.firstChild;
        if (!element) return;
        const border = byKey.get(layerKeys[i]).kind === "lr" ? data.border : 0;
        put(element, now, -border, -border, w + 2 * border, h + 2 * border);
      });
      let lines = view.over.querySelector("svg");
      if (state.mask && path) {
        if (!lines) {
          lines = draw("svg", { viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true" }, draw("path", { d: path, class: "outline below" }), draw("path", { d: path, class: "outline above" }));
          view.over.prepend(lines);
        }
        put(lines, now, 0, 0, w, h);
      } else if (lines) lines.remove();
      if (view.pick) view.pick.setAttribute("aria-pressed", String(view.pick.dataset.key === state.a || (slides && view.pick.dataset.key === state.b)));
    }
    scale.hidden = !map;
    if (map) scale.replaceChildren(...key(map));
    for (const [id, on] of [["slide", slides], ["mask", state.mask === "1"]]) document.getElementById(id)?.setAttribute("aria-pressed", String(on));
    const [selectA, selectB, selectShow] = tools.querySelectorAll("select");
    selectA.value = state.a;
    selectB.value = state.b;
    selectShow.value = state.show;
    read(state.p ? state.p.split(",").map(Number) : null);
  }

  /** What the colours of a map mean. */
  function key(map) {
    if (map.classes) {
      return map.classes.flatMap((name, i) => {
        const patch = make("canvas", { width: 1, height: 1, class: "patch", "aria-hidden": "true" });
        const context = patch.getContext("2d");
        context.fillStyle = `rgb(${pixels.CLASSES[i].join(" ")})`;
        context.fillRect(0, 0, 1, 1);
        return [patch, make("span", {}, name)];
      });
    }
    const isError = state.show === "error";
    const high = `${shown(map.high, null)} ${map.unit}${isError ? " (99 % lie below)" : ""}, one scale for all panels`;
    return [isError ? "Root mean square of R, G, B errors" : state.show.slice(4), make("span", {}, shown(map.low, null)), bar, make("span", {}, high)];
  }

  addEventListener("resize", () => render());

  // --- keys ------------------------------------------------------------------------------------------------------

  function flipMap(show) { set({ show: state.show === show ? "image" : show }); }

  addEventListener("keydown", (event) => {
    if (section.hidden || !data || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest?.("select, input[type=search], summary")) return;
    const inRange = event.target === range;
    const [h, w] = data.size;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (/^[1-9]$/.test(event.key)) {
      const panel = index.panels[Number(event.key) - 1];
      if (panel) set({ a: panel.key, mode: "one" });
    } else if (move && event.shiftKey && !inRange) {
      const [x, y] = state.p ? state.p.split(",").map(Number) : [Math.floor(w / 2), Math.floor(h / 2)];
      set({ p: `${Math.min(w - 1, Math.max(0, x + move[0]))},${Math.min(h - 1, Math.max(0, y + move[1]))}` });
    } else if (move && !inRange && state.z) pan(move[0] * 60, move[1] * 60);
    else if (event.key === "s") set({ mode: state.mode === "slide" ? "one" : "slide" });
    else if (event.key === "[" || event.key === "]") set({ mode: "slide", at: String(Math.min(100, Math.max(0, Number(state.at) + (event.key === "]" ? 2 : -2)))) });
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") fit();
    else if (event.key === "e" && decoded.has("hr")) flipMap("error");
    else if (event.key === "d" && data.maps.length) flipMap(`map:${data.maps[0].name}`);
    else if (event.key === "i") set({ show: "image" });
    else if (event.key === "m" && path) set({ mask: state.mask ? "" : "1" });
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "g") location.hash = rfbench.galleryAddress();
    else if (event.key === "Escape" && state.p) set({ p: "" });
    else return;
    event.preventDefault();
  });
});
