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
/* On a phone a wide figure fits the window, and a tap shows it with letters that can be read, in a box that scrolls. */
addEventListener("load", () => {
  if (!matchMedia("(max-width: 600px)").matches) return;
  for (const image of document.querySelectorAll(".cell_output > img, .bd-article figure > img")) {
    if (image.naturalWidth < 1.3 * image.clientWidth) continue;
    const [box, tools, button] = ["div", "div", "button"].map((name) => document.createElement(name));
    [box.className, tools.className, button.type, button.textContent] = ["figure-box", "figure-tools", "button", "enlarge"];
    image.replaceWith(box, tools);
    box.append(image);
    tools.append(button);
    for (const one of [button, image]) {
      one.addEventListener("click", () => {
        const large = box.classList.toggle("large");
        button.setAttribute("aria-pressed", large);
        box.tabIndex = large ? 0 : -1; // what scrolls, scrolls by keys
      });
    }
  }
});
