// What all parts of the page share: the data, the address that holds the state, and small helpers.
// Every text of a file becomes a text node; nothing is ever read as HTML.
"use strict";

const rfbench = (() => {
  const listeners = [];
  const waiting = new Map();
  const kept = new Map(); // the images that were looked at last
  const KEPT = 12;
  const VIEWS = ["overview", "images", "image"];

  const app = { index: null };

  /** An element with attributes, listeners (onclick: ...) and children; strings become text. */
  app.make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key === "class") element.className = value;
      else if (key in element && typeof value !== "string") element[key] = value;
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };

  /** The same for SVG. */
  app.draw = (name, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children.flat());
    return element;
  };

  /** A number as tables show it: fixed decimals, or four significant digits. */
  app.shown = (value, decimals, more = 0) => {
    if (value === null || value === undefined) return "–";
    const fixed = decimals !== null && Math.abs(value) < 1e6;
    const text = fixed ? value.toFixed(decimals + more) : String(Number(value.toPrecision(4)));
    return Number(text) === 0 ? text.replace("-", "") : text;
  };

  app.named = (measure) => {
    const arrow = { up: " ↑", down: " ↓" }[measure.direction] || "";
    return measure.title + (measure.unit ? ` (${measure.unit})` : "") + arrow;
  };

  app.choice = (label, options, value, change) => {
    const select = app.make("select", { onchange: () => change(select.value) });
    for (const [key, text] of options) select.append(app.make("option", { value: key, selected: key === value }, text));
    return app.make("label", {}, label, select);
  };

  // --- the address -----------------------------------------------------------------------------------------------

  /** {view, options} of the address; an anchor within the first page is the first page. */
  app.where = () => {
    const hash = location.hash.slice(1);
    if (!hash.startsWith("/")) return { view: "overview", options: new URLSearchParams(), anchor: hash };
    const [path, query] = hash.slice(1).split(/\?(.*)/s);
    return { view: VIEWS.includes(path) ? path : "overview", options: new URLSearchParams(query || ""), anchor: "" };
  };

  app.address = (view, options = {}) => {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(options)) if (value !== null && value !== undefined && value !== "") query.set(key, value);
    const text = query.toString();
    return `#/${view === "overview" ? "" : view}${text ? `?${text}` : ""}`;
  };

  /** Keep the state in the address without a new entry in the history. */
  app.remember = (view, options) => {
    const address = app.address(view, options);
    if (address !== location.hash) history.replaceState(null, "", address);
  };

  app.go = (view, options) => { location.hash = app.address(view, options); };

  app.onview = (view, show) => listeners.push([view, show]);

  let before = null;
  function route() {
    const { view, options, anchor } = app.where();
    for (const name of VIEWS) document.getElementById(name).hidden = name !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.body.dataset.view = view;
    for (const [name, show] of listeners) if (name === view) show(options);
    if (anchor) {
      const target = document.getElementById(anchor);
      if (target) target.scrollIntoView();
    } else if (before !== null && before !== view) {
      scrollTo(0, 0);
      document.getElementById("main").focus({ preventScroll: true });
    }
    before = view;
  }

  // --- data ------------------------------------------------------------------------------------------------------

  app.start = (index) => {
    app.index = index;
    index.images.forEach((image, i) => { image.place = i; });
    app.byId = new Map(index.images.map((image) => [image.id, image]));
    addEventListener("hashchange", route);
    for (const prepare of app.prepare) prepare(index);
    route();
    document.documentElement.dataset.ready = "yes";
  };
  app.prepare = [];

  /** Called by the script of an image. */
  app.put = (number, image) => {
    kept.set(number, image);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    for (const done of waiting.get(number) || []) done(image);
    waiting.delete(number);
  };

  /** A promise of the pixels of an image of the index. */
  app.load = (image) => new Promise((resolve, reject) => {
    const number = image.n;
    if (kept.has(number)) { resolve(kept.get(number)); return; }
    if (document.getElementById("index")) { // one file: the data lie in the page, perhaps not all of it yet
      const read = () => {
        const block = document.getElementById(`image-${number}`);
        if (block) { app.put(number, JSON.parse(block.textContent)); resolve(kept.get(number)); }
        else if (document.readyState === "loading") addEventListener("DOMContentLoaded", read, { once: true });
        else reject(new Error("this file is not whole: the image is missing in it"));
      };
      read();
      return;
    }
    if (waiting.has(number)) { waiting.get(number).push(resolve); return; }
    waiting.set(number, [resolve]);
    const name = `images/${String(number).padStart(5, "0")}.js`;
    const script = app.make("script", { src: name, onload: () => script.remove(), onerror: () => {
      script.remove();
      waiting.delete(number);
      reject(new Error(`${name} is missing beside this page`));
    } });
    document.head.append(script);
  });

  return app;
})();
