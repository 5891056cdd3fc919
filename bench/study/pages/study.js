// The whole page: it shows what the server says is next, and sends what the reviewer said. It keeps nothing.
"use strict";

const main = document.getElementById("main");
const message = document.getElementById("message");
let state = null; // what the server told
let started = 0; // when the pictures of this trial were there
let maskSince = 0, maskMs = 0; // how long the outline was on
let zoom = 1;
let submission = ""; // of this page: what is sent twice is stored once
let sending = false;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

async function call(path, body) {
  const options = { headers: { Accept: "application/json" }, cache: "no-store" };
  if (body) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.headers["X-CSRF-Token"] = state.csrf;
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    return { offline: true, error: "The server cannot be reached. Your answer is still here: try again." };
  }
  let found;
  try {
    found = await answer.json();
  } catch {
    return { offline: true, error: "The server did not answer as expected. Try again." };
  }
  return answer.ok ? found : { status: answer.status, error: found.error || "This did not work." };
}

function asked() {
  const found = /^#([0-9]{1,6})$/.exec(location.hash);
  return found ? `/api/state?n=${found[1]}` : "/api/state";
}

async function load() {
  const found = await call(asked());
  if (found.error) return say(found.error);
  show(found, false);
}

function say(text) { message.textContent = text; }

function show(found, moved) {
  state = found;
  submission = newId();
  say(state.closed ? "The study is closed; thank you." : "");
  document.title = state.title;
  document.getElementById("title").textContent = state.title;
  const bar = document.getElementById("progress");
  bar.max = state.total;
  bar.value = state.open ? state.open - 1 : 0;
  const place = document.getElementById("place");
  main.replaceChildren();
  main.className = state.step === "trial" ? "" : "narrow";
  if (state.step === "profile") { place.textContent = "Before the first page"; showProfile(); }
  else if (state.step === "done") { place.textContent = "Finished"; showDone(); }
  else { place.textContent = `Part ${state.stage} of 2, page ${state.n} of ${state.total}`; showTrial(); }
  const hash = state.step === "trial" ? `#${state.n}` : "";
  if (location.hash !== hash) {
    const url = location.pathname + hash;
    if (moved) history.pushState(null, "", url); else history.replaceState(null, "", url);
  }
}

// --- pages ---

function showProfile() {
  main.append(make("p", { text: state.consent }));
  if (state.contact) main.append(make("p", { text: `Questions, or to have your answers deleted: ${state.contact}` }));
  const form = make("form", { class: "narrow", id: "form" });
  for (const question of state.questions) form.append(field(question, null, false));
  form.append(make("p", {}, make("button", { class: "primary", id: "next", text: "I agree, begin" })));
  form.addEventListener("submit", (event) => { event.preventDefault(); send("/api/profile", {}); });
  main.append(form);
  form.querySelector("input").focus();
}

function showDone() {
  main.append(make("h2", { text: "Thank you." }), make("p", { text: "All pages are answered. You may close this window." }));
  if (!state.closed) main.append(previous());
}

function showTrial() {
  main.append(make("p", { id: "caption", text: state.caption }));
  const panels = make("div", { id: "panels" });
  for (const panel of state.panels) {
    const alt = `Image ${panel.title}`;
    const picture = make("span", { class: "picture" }, make("img", { src: `/p/${panel.id}.png`, alt, "data-id": panel.id }));
    if (state.mask) picture.append(make("img", { src: `/p/${state.mask}.png`, alt: "", class: "mask" }));
    panels.append(make("figure", {}, make("figcaption", { text: panel.title }), picture));
  }
  const form = make("form", { id: "form" });
  const questions = make("div", { id: "questions" });
  for (const question of state.questions) questions.append(field(question, state.earlier, true));
  form.append(questions);
  const work = make("div", { id: "work", class: state.kind === "caption" ? "beside" : "" });
  work.append(panels, form);
  const bigger = make("button", { type: "button", id: "bigger" }, "Larger ", make("kbd", { text: "+" }));
  const smaller = make("button", { type: "button", id: "smaller" }, "Smaller ", make("kbd", { text: "-" }));
  bigger.addEventListener("click", () => setZoom(zoom + 1));
  smaller.addEventListener("click", () => setZoom(zoom - 1));
  const buttons = make("div", { id: "buttons" }, smaller, make("span", { id: "zoom" }), bigger);
  if (state.mask) {
    const mask = make("button", { type: "button", id: "mask", "aria-pressed": "true" }, "Outline ", make("kbd", { text: "m" }));
    mask.addEventListener("click", () => toggleMask());
    buttons.append(mask);
  }
  buttons.append(make("span", { class: "gap" }));
  if (state.n > 1) buttons.append(previous());
  buttons.append(make("button", { class: "primary", id: "next", form: "form", disabled: state.closed },
    state.earlier ? "Correct " : "Next ", make("kbd", { text: "Enter" })));
  form.addEventListener("submit", (event) => { event.preventDefault(); send("/api/answer", seen()); });
  main.append(work, buttons);
  maskMs = 0;
  maskSince = state.mask ? performance.now() : 0;
  if (state.mask) toggleMask(state.kind === "caption");
  const images = [...panels.querySelectorAll("img")];
  Promise.all(images.map((image) => image.decode().catch(() => say("An image could not be loaded; load the page again."))))
    .then(() => { fit(); started = performance.now(); });
  form.querySelector("input").focus();
}

function previous() {
  const number = state.step === "done" ? state.total : state.n - 1;
  const button = make("button", { type: "button", id: "previous" }, "Previous ", make("kbd", { text: "p" }));
  button.addEventListener("click", () => { location.hash = `#${number}`; });
  return button;
}

function field(question, earlier, keys) {
  const before = earlier ? earlier[question.key] : undefined;
  if (question.kind === "flag") {
    return make("label", {}, make("input", { type: "checkbox", name: question.key, checked: before === true }), ` ${question.text}`);
  }
  if (question.kind === "text") {
    const input = make("input", { type: "text", name: question.key, maxlength: 2000, required: question.required, autocomplete: "off" });
    input.value = before || "";
    return make("label", { class: "block" }, `${question.text} `, make("br"), input);
  }
  const box = make("fieldset", { "data-key": question.key }, make("legend", { text: question.text }));
  const options = question.kind === "choice" ? question.options
    : state.parts.map((text, i) => ({ value: String(i), label: text }));
  options.forEach((option, i) => {
    const input = make("input", {
      type: question.kind === "choice" ? "radio" : "checkbox", name: question.key, value: option.value,
      required: question.kind === "choice" && question.required,
      checked: question.kind === "choice" ? before === option.value : (before || []).includes(i),
    });
    const label = make("label", { class: question.kind === "parts" ? "block" : "" }, input, ` ${option.label}`);
    if (keys && question.kind === "choice") label.append(make("kbd", { text: String(i + 1) }));
    box.append(label);
  });
  return box;
}

// --- pictures ---

// The largest whole zoom at which the whole page fits into the window.
function fit() {
  for (let to = 16; to >= 1; to -= 1) {
    setZoom(to);
    const page = document.documentElement;
    if (main.getBoundingClientRect().bottom + window.scrollY <= window.innerHeight && page.scrollWidth <= window.innerWidth) return;
  }
}

function setZoom(to) {
  zoom = Math.min(16, Math.max(1, to)); // whole pixels only: nothing is made up between them
  for (const image of document.querySelectorAll("#panels img")) {
    const of = image.classList.contains("mask") ? image.previousElementSibling : image;
    image.width = of.naturalWidth * zoom;
    image.height = of.naturalHeight * zoom;
  }
  document.getElementById("zoom").textContent = `${zoom}×`;
}

function toggleMask(on) {
  const button = document.getElementById("mask");
  if (!button) return;
  const was = button.getAttribute("aria-pressed") === "true";
  const now = on === undefined ? !was : on;
  if (was && maskSince) maskMs += performance.now() - maskSince;
  maskSince = now ? performance.now() : 0;
  button.setAttribute("aria-pressed", String(now));
  for (const image of document.querySelectorAll("img.mask")) image.classList.toggle("hidden", !now);
}

// What stood on the screen, from left to right, as the browser laid it out.
function seen() {
  const images = [...document.querySelectorAll("#panels img:not(.mask)")];
  images.sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
  const now = performance.now();
  return {
    trial: state.trial, known: state.known, shown: images.map((image) => image.dataset.id),
    view: {
      zoom, width: window.innerWidth, height: window.innerHeight, ratio: window.devicePixelRatio,
      elapsed_ms: started ? now - started : 0, mask_ms: maskMs + (maskSince ? now - maskSince : 0),
    },
  };
}

// --- answers ---

function given() {
  const form = document.getElementById("form");
  const answers = {};
  for (const question of state.questions) {
    const inputs = [...form.querySelectorAll(`input[name="${question.key}"]`)];
    if (question.kind === "text") { if (inputs[0].value.trim()) answers[question.key] = inputs[0].value.trim(); }
    else if (question.kind === "flag") { if (inputs[0].checked) answers[question.key] = true; }
    else if (question.kind === "choice") {
      const chosen = inputs.find((input) => input.checked);
      if (chosen) answers[question.key] = chosen.value;
    } else {
      const chosen = inputs.filter((input) => input.checked).map((input) => Number(input.value));
      if (chosen.length) answers[question.key] = chosen;
    }
  }
  return answers;
}

async function send(path, more) {
  if (sending) return;
  sending = true;
  say("");
  const found = await call(path, { submission, answers: given(), ...more });
  sending = false;
  if (!found.error) return show(found, true);
  say(found.error);
  if (found.status === 409) { const words = found.error; history.replaceState(null, "", location.pathname); await load(); say(words); }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !state || state.step !== "trial") {
    if (state && state.step === "done" && event.key === "p") document.getElementById("previous")?.click();
    return;
  }
  if (event.target.type === "text") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "m") toggleMask();
  else if (event.key === "+" || event.key === "=") setZoom(zoom + 1);
  else if (event.key === "-") setZoom(zoom - 1);
  else if (event.key === "p") document.getElementById("previous")?.click();
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); document.getElementById("form").requestSubmit(); }
  else if (/^[1-9]$/.test(event.key)) {
    // The question that has the focus, else the first that has no answer.
    const boxes = [...document.querySelectorAll("fieldset")].filter((box) => box.querySelector("input[type=radio]"));
    const box = boxes.find((b) => !b.querySelector("input:checked")) || boxes.find((b) => b.contains(document.activeElement)) || boxes[0];
    const input = box?.querySelectorAll("input[type=radio]")[Number(event.key) - 1];
    if (input) { input.checked = true; input.focus(); }
  }
});
window.addEventListener("hashchange", load);
window.addEventListener("pageshow", (event) => { if (event.persisted) load(); });
load();
