"""The page's script: sends a picture, shows the answers, and steps through them."""

SCRIPT = """
"use strict";
const { models, samples, largest, first } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const slider = at("lambda");
let answer = null;
let asked = 0;

const address = (png) => "data:image/png;base64," + png;

function say(text, wrong) {
  at("said").textContent = text;
  at("said").className = wrong ? "wrong" : "";
}

function step(index) {
  slider.value = index;
  const model = models[index];
  slider.setAttribute("aria-valuetext", model.spoken);
  at("label").textContent = model.label;
  at("numbers").textContent = model.numbers;
  at("chosen-text").textContent = "output, " + model.label;
  document.querySelectorAll("[data-model]").forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  if (!answer) return;
  const one = answer.translations[index];
  at("chosen").src = address(one.picture);
  at("chosen").alt = "Translation, " + model.label;
  at("numbers").textContent = model.numbers + "; this picture: cost " + one.cost.toPrecision(3);
}

function show(answered) {
  answer = answered;
  document.querySelectorAll("[data-source]").forEach((image) => { image.src = address(answer.source); });
  document.querySelectorAll("[data-model]").forEach((button, i) => {
    const one = answer.translations[i];
    button.querySelector("img").src = address(one.picture);
    button.querySelector("i").textContent = "of this one " + one.cost.toPrecision(3);
  });
  step(Number(slider.value));
}

async function translate(bytes, name) {
  const mine = ++asked;
  if (bytes.size > largest) {
    return say("This file has " + bytes.size + " bytes; choose one of at most " + largest + ".", true);
  }
  say("Translating " + name + " ...");
  at("shown").setAttribute("aria-busy", "true");
  try {
    const response = await fetch("translate", { method: "POST", body: bytes });
    const body = await response.json();
    if (mine !== asked) return;
    if (!response.ok) return say(body.message, true);
    show(body);
    say(name + ", translated by " + models.length + (models.length === 1 ? " generator" : " generators"));
  } catch (error) {
    if (mine === asked) say("The demo's server does not answer; start it again with make demo.", true);
  } finally {
    if (mine === asked) at("shown").removeAttribute("aria-busy");
  }
}

function trySample(index) {
  const bytes = Uint8Array.from(atob(samples[index]), (character) => character.charCodeAt(0));
  document.querySelectorAll("[data-sample]").forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  translate(new Blob([bytes]), "Sample " + (index + 1));
}

function upload(file) {
  document.querySelectorAll("[data-sample]").forEach((button) => button.setAttribute("aria-pressed", "false"));
  translate(file, file.name);
}

slider.addEventListener("input", () => step(Number(slider.value)));
document.querySelectorAll("[data-model]").forEach((button, i) => button.addEventListener("click", () => step(i)));
document.querySelectorAll("[data-sample]").forEach((button, i) => button.addEventListener("click", () => trySample(i)));
at("file").addEventListener("change", (event) => { if (event.target.files.length) upload(event.target.files[0]); });
const drop = at("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}
step(first);
trySample(0);
"""
