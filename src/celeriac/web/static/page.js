// Keeps the page up to date while it is seen, switches the theme, and moves along tables by keys.
// The page works without it: nothing here is needed to see or to do anything.
"use strict";

const body = document.body;
const live = document.getElementById("live");
let source = null;

// What a person is working on must not change under their hands.
function isBusy() {
  const focused = document.activeElement;
  return Boolean(live.querySelector("input:checked, details.acting[open]")) ||
    (live.contains(focused) && focused.matches("input, select, textarea, button"));
}

// A row is the same one on the changed page where it stands for the same task, queue or worker.
function nameOf(row) {
  const box = row.querySelector("input[type=checkbox]");
  const link = row.querySelector("a");
  return box ? box.value : link ? link.href : "";
}

function follow() {
  if (document.hidden || source || !live || !live.children.length) return;
  source = new EventSource(body.dataset.live + "?path=" + encodeURIComponent(body.dataset.path));
  source.onmessage = (event) => {
    if (isBusy()) return;
    const opened = [...live.querySelectorAll("details")].map((part) => part.open);
    const current = live.querySelector("tr.current");
    const name = current ? nameOf(current) : "";
    live.innerHTML = event.data;
    if (name) {
      const same = [...live.querySelectorAll("tbody tr")].find((row) => nameOf(row) === name);
      if (same) same.classList.add("current");
    }
    live.querySelectorAll("details").forEach((part, index) => {
      if (index < opened.length) part.open = opened[index];
    });
  };
}

function unfollow() {
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? unfollow() : follow()));
window.addEventListener("pagehide", unfollow);
follow();

const button = document.getElementById("theme");
const themes = ["auto", "light", "dark"];

function show(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = "Theme: " + theme;
}

let theme = localStorage.getItem("celeriac-theme") || "auto";
button.hidden = false;
show(theme);
button.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  localStorage.setItem("celeriac-theme", theme);
  show(theme);
});

// j and k move, x chooses, r runs the chosen again, / searches, Enter opens.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const rows = [...document.querySelectorAll("main tbody tr")];
  const current = rows.findIndex((row) => row.classList.contains("current"));
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("search").focus();
  } else if (event.key === "j" || event.key === "k") {
    const next = Math.min(rows.length - 1, Math.max(0, current + (event.key === "j" ? 1 : -1)));
    rows.forEach((row, index) => row.classList.toggle("current", index === next));
    if (rows[next]) rows[next].scrollIntoView({ block: "nearest" });
  } else if (event.key === "x" && current >= 0) {
    const box = rows[current].querySelector("input[type=checkbox]");
    if (box) box.checked = !box.checked;
  } else if (event.key === "r") {
    const again = document.querySelector("main form:has(tbody input:checked) button[value=retry]");
    if (again) again.click();
  } else if (event.key === "Enter" && current >= 0 && event.target === body) {
    const link = rows[current].querySelector("a");
    if (link) link.click();
  }
});
