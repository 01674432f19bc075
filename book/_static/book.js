/* The theme's arrows that unfold a part of the navigation say nothing to a screen reader: they are named after their entry. */
addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-sidenav summary")) {
    const entry = arrow.closest("li").querySelector("a");
    if (entry) arrow.setAttribute("aria-label", `Pages of: ${entry.textContent.trim()}`);
  }
});
/* A long signature of the API reference is a definition list without terms: to a screen reader it is a list. */
addEventListener("DOMContentLoaded", () => {
  for (const parameters of document.querySelectorAll("dt.sig > dl")) {
    parameters.setAttribute("role", "list");
    parameters.querySelectorAll(":scope > dd").forEach((one) => one.setAttribute("role", "listitem"));
  }
});
/* Entries of the bibliography stand in a list, whose members have a role of books that axe-core no longer takes for one. */
addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".citation-list > .citation").forEach((one) => one.setAttribute("role", "listitem"));
});
