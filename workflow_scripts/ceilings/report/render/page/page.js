"use strict";
// The page as a whole: theme, address, charts, print.

const theme = document.getElementById("theme");

function storedTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // a browser may refuse storage to files
  }
}

function setTheme(value) {
  document.documentElement.style.colorScheme = value;
  theme.value = value;
}

theme.addEventListener("change", () => {
  setTheme(theme.value);
  try {
    localStorage.setItem("theme", theme.value);
  } catch {
    // it lasts as long as the page then
  }
});
if ([...theme.options].some((option) => option.value === storedTheme())) setTheme(storedTheme());

let waiting;
document.addEventListener("filtered", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawOverview, 150); // not for every letter of a word
});
document.getElementById("panel")?.addEventListener("change", offerShapes);
document.getElementById("view")?.addEventListener("change", drawOverview);
addEventListener("hashchange", openAddressed);

/** Open whatever hides the element that an address names. */
function reveal(hash) {
  const target = hash.length > 1 && document.getElementById(decodeURI(hash.slice(1)));
  if (!target) return;
  target.querySelector(":scope > details")?.setAttribute("open", "");
  for (let place = target.closest("details"); place; place = place.parentElement.closest("details")) place.open = true;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link) reveal(link.hash);
});
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("main details:not(.facet)")) closed.open = true;
});

// A mark for whoever waits for the page: everything is drawn.
(async () => {
  offerShapes();
  reveal(location.hash);
  await drawOverview();
  await drawServed();
  await openAddressed();
  document.documentElement.dataset.ready = "true";
  performance.mark("ready");
})();
