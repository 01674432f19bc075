/* What is wrong with an open page, as a list of [kind, description]; read by visit.py. Folded parts are opened first: parts
   of the page, and columns of tables. */
async () => {
  const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  document.querySelectorAll("details").forEach((folded) => { folded.open = true; });
  await drawn();
  document.querySelectorAll('button.unfold[aria-expanded="false"]').forEach((folded) => folded.checkVisibility() && folded.click());
  await drawn();
  const main = document.querySelector("article.bd-article") || document.querySelector("main") || document.body;
  const found = [];
  const say = (kind, text) => found.push([kind, text]);
  const shown = (element) => element.checkVisibility({ checkVisibilityCSS: true }) && element.getClientRects().length > 0;
  const name = (element) => {
    const classes = typeof element.className === "string" && element.className ? "." + element.className.trim().replace(/\s+/g, ".") : "";
    const text = (element.innerText || "").trim().replace(/\s+/g, " ").slice(0, 60);
    return `<${element.tagName.toLowerCase()}${element.id ? "#" + element.id : ""}${classes}> ${text}`.trim();
  };

  // The page, and what lies in it, against its width.
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) {
    const wide = [...document.body.querySelectorAll("*")].filter(
      (element) => shown(element) && element.getBoundingClientRect().right + scrollX > root.clientWidth + 1);
    const first = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)))[0];
    say("overflow", `the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth} px: ${first ? name(first) : ""}`);
  }
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const clips = (element) => ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
  const inScrollingBox = (element) => {
    for (let box = element; box && box !== main; box = box.parentElement) if (scrolls(box)) return box;
    return null;
  };
  for (const element of main.querySelectorAll("table, img, pre, svg, canvas, video, iframe, mjx-container")) {
    if (!shown(element) || element.closest("mjx-assistive-mml") || (element.tagName === "svg" && element.closest("mjx-container"))) continue;
    if (inScrollingBox(element.parentElement)) continue;
    const right = element.getBoundingClientRect().right;
    if (clips(element) && element.scrollWidth > element.clientWidth + 1) say("cut off", name(element));
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
      if (right > box.getBoundingClientRect().right + 1.5) {
        say("cut off", `${name(element)} ends ${Math.round(right - box.getBoundingClientRect().right)} px after ${name(box).split(" ")[0]}`);
        break;
      }
    }
  }
  for (const cell of main.querySelectorAll("td, th")) {
    if (shown(cell) && !scrolls(cell) && cell.scrollWidth > cell.clientWidth + 1) {
      say("cell runs over", `${name(cell)}: ${cell.scrollWidth} px in ${cell.clientWidth} px`);
    }
  }
  for (const element of main.querySelectorAll("table, pre")) {
    const box = shown(element) && inScrollingBox(element);
    if (box && box.scrollWidth > box.clientWidth + 1) {
      const kind = element.tagName === "PRE" ? "code" : "table";
      say(`${kind} scrolls sideways`, `${name(element)}: ${box.scrollWidth} px in ${box.clientWidth} px`);
    }
  }

  // Mathematics: every formula of the source is set, none has an error, and none is left in the text.
  const formulas = [...main.querySelectorAll(".math")];
  for (const formula of formulas) {
    if (shown(formula) && !formula.querySelector("mjx-container")) say("mathematics", `not set: ${formula.textContent.trim().slice(0, 80)}`);
  }
  for (const fault of main.querySelectorAll("mjx-merror, [data-mjx-error]")) say("mathematics", `error: ${fault.textContent.slice(0, 80)}`);
  const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  const inCode = "pre, code, script, style, mjx-container, .math, textarea";
  let text = "";
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (!parent.closest(inCode) && shown(parent)) text += walker.currentNode.data;
  }
  for (const raw of text.matchAll(/\$[^\s$](?:[^$\n]*[^\s$])?\$|\\\(|\\\[|\\(?:frac|mathrm|mathbb|begin|end|times|pm|leq|geq)\b/g)) {
    say("mathematics", `left in the text: ${text.slice(Math.max(0, raw.index - 20), raw.index + 60).replace(/\s+/g, " ")}`);
  }

  // Images: each loads, and says in words what it shows. What is only decoration says so by an empty text and a role.
  for (const image of document.images) {
    const file = image.getAttribute("src").startsWith("data:") ? "data:" : image.getAttribute("src").split("/").pop();
    if (!image.complete || image.naturalWidth === 0) say("image", `does not load: ${file}`);
    const alternative = (image.getAttribute("alt") || "").trim();
    const decoration = ["presentation", "none"].includes(image.getAttribute("role"));
    if (!decoration && (!alternative || /\.(png|svg|jpe?g|gif|webp)$/i.test(alternative))) {
      say("alternative text", `${file}: ${alternative ? "only a file's name" : "none"}`);
    }
  }

  // What a program has left behind: in outputs, not in code that is shown as such.
  const said = [...main.querySelectorAll(".cell_output, p, li, td")].map((element) => element.innerText).join("\n");
  const debris = /Traceback \(most recent call last\)|\b\d{1,3}%\|[^|\n]*\||\d(?:it\/s|s\/it)\b|\b\w*Warning: |<Figure size|\u001b\[|<[\w.]+ object at 0x[0-9a-f]+>/g;
  for (const rest of new Set([...said.matchAll(debris)].map((match) => match[0]))) say("debris", rest);

  // Headings: one title, and no level left out.
  const headings = [...main.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(shown);
  const titles = headings.filter((heading) => heading.tagName === "H1");
  if (titles.length !== 1) say("headings", `${titles.length} titles`);
  headings.forEach((heading, i) => {
    const level = Number(heading.tagName[1]);
    const before = i ? Number(headings[i - 1].tagName[1]) : 0;
    if (level > before + 1) say("headings", `level ${level} after ${before}: ${name(heading)}`);
  });

  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return { found, first_paint_ms: paint ? Math.round(paint.startTime) : null };
}
