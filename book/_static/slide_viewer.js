/* A slide to look into: OpenSeadragon shows its pyramid, and a canvas over it the tiles that a model read, coloured by
 * one of its maps. All that is said of a slide stands in the page, as JSON (mmmil/book/slide_viewer.py); its pixels are
 * plain images beside the page. Nothing is fetched, so that it works from a disk, too.
 *
 * Coordinates are level-0 px of the slide; the pyramid's own are `shrink` times smaller.
 */
(function () {
  "use strict";

  const SMALLEST = 6; // px on the screen: a tile that would be smaller is drawn so large
  const LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]; // of the scale bar, µm

  function make(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function button(text, name, action) {
    const made = make("button", { type: "button", onclick: action }, text);
    made.setAttribute("aria-label", name);
    return made;
  }

  function tileSource(about) {
    const around = new Set(about.around);
    return {
      width: about.width,
      height: about.height,
      tileSize: about.tile,
      minLevel: 0,
      maxLevel: about.finest,
      getTileUrl: (level, x, y) => `${about.files}/${level}/${x}_${y}.jpg`,
      // Where a fine image is missing the coarser one beneath it stays in view.
      tileExists: (level, x, y) => level <= about.whole || around.has(`${level}/${x}_${y}`),
    };
  }

  function open(figure, number) {
    const about = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const order = about.maps.map((map) => about.tiles.map((_, i) => i).sort((a, b) => map.value[b] - map.value[a]));
    const state = { map: 0, strength: 0.5, outlined: true, rank: -1 };
    const id = `slide-viewer-${number}`;

    // -- what is seen ----------------------------------------------------------------------------------------------
    const stage = make("div", { className: "slide-viewer-stage" });
    const drawing = make("canvas", { className: "slide-viewer-drawing" });
    const bar = make("div", { className: "slide-viewer-bar", hidden: true });
    const alarm = make("p", { className: "slide-viewer-alarm", hidden: true });
    alarm.setAttribute("role", "alert");
    drawing.setAttribute("aria-hidden", "true");
    figure.querySelector(".slide-viewer-absent").remove();
    figure.append(stage); // before OpenSeadragon measures it

    const viewer = OpenSeadragon({
      element: stage,
      tileSources: tileSource(about),
      drawer: "canvas", // WebGL refuses images of a page that was opened from a disk
      crossOriginPolicy: false,
      loadTilesWithAjax: false,
      showNavigationControl: false, // its buttons have no names for screen readers; ours have
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.18,
      cooperativeGestures: true, // one finger and the plain wheel move the page, not the slide
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      maxZoomPixelRatio: 4,
      visibilityRatio: 0.5,
    });
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-label", `Slide of ${about.name}`);
    viewer.canvas.setAttribute("aria-describedby", `${id}-keys`);
    viewer.canvas.append(drawing, bar);

    // -- what is drawn over the slide ------------------------------------------------------------------------------
    /** Where a level-0 px of the slide lies on the stage, px. */
    function onStage(x, y) {
      const image = viewer.world.getItemAt(0);
      const point = new OpenSeadragon.Point(x / about.shrink, y / about.shrink);
      return image.imageToViewerElementCoordinates(point);
    }

    function draw() {
      if (!viewer.world.getItemCount()) return;
      const sharp = window.devicePixelRatio || 1;
      drawing.width = Math.round(stage.clientWidth * sharp);
      drawing.height = Math.round(stage.clientHeight * sharp);
      const [origin, right, down] = [onStage(0, 0), onStage(1000, 0), onStage(0, 1000)];
      const scale = Math.hypot(right.x - origin.x, right.y - origin.y) / 1000; // px of the stage to one of level 0
      const turn = [right.x - origin.x, right.y - origin.y, down.x - origin.x, down.y - origin.y];
      const context = drawing.getContext("2d");
      context.setTransform(...turn.map((way) => (way / 1000) * sharp), origin.x * sharp, origin.y * sharp);
      const side = Math.max(about.side, SMALLEST / scale);
      const move = (about.side - side) / 2;
      const map = about.maps[state.map];
      about.tiles.forEach(([x, y], i) => {
        if (map) {
          context.globalAlpha = state.strength;
          context.fillStyle = map.palette[map.step[i]];
          context.fillRect(x + move, y + move, side, side);
        }
        context.globalAlpha = 1;
        if (state.outlined) {
          context.lineWidth = 1.2 / scale;
          context.strokeStyle = "#1a1a1a";
          context.strokeRect(x + move, y + move, side, side);
        }
      });
      if (map && state.rank >= 0) {
        const [x, y] = about.tiles[order[state.map][state.rank]];
        context.lineWidth = 4 / scale;
        context.strokeStyle = "#00a000";
        context.strokeRect(x + move, y + move, side, side);
      }
      drawBar(scale);
    }

    /** The longest round length that takes at most a third of the stage, and no more than 160 px. */
    function drawBar(scale) {
      if (!about.mpp) return;
      const room = Math.min(160, stage.clientWidth / 3);
      const length = LENGTHS.filter((um) => (um / about.mpp) * scale <= room).pop() || LENGTHS[0];
      bar.style.width = `${(length / about.mpp) * scale}px`;
      bar.textContent = length < 1000 ? `${length} µm` : `${length / 1000} mm`;
      bar.hidden = false;
    }

    // -- controls --------------------------------------------------------------------------------------------------
    const zoom = (factor) => () => viewer.viewport.zoomBy(factor).applyConstraints();
    const buttons = make(
      "div",
      { className: "slide-viewer-row" },
      button("+", "Zoom in", zoom(1.5)),
      button("−", "Zoom out", zoom(1 / 1.5)),
      button("Whole slide", "Show the whole slide", () => viewer.viewport.goHome()),
    );
    if (figure.requestFullscreen) {
      const full = () => (document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen());
      buttons.append(button("Full screen", "Full screen, on or off", full));
    }

    const choice = make("fieldset", {}, make("legend", {}, "Overlay"));
    [...about.maps.map((map) => map.title), "none"].forEach((title, k) => {
      const radio = make("input", { type: "radio", name: id, checked: k === 0, onchange: () => choose(k) });
      choice.append(make("label", {}, radio, title));
    });

    const slider = make("input", { type: "range", min: 0, max: 100, value: 100 * state.strength });
    slider.oninput = () => {
      state.strength = slider.value / 100;
      draw();
    };
    const outlines = make("input", { type: "checkbox", checked: state.outlined });
    outlines.onchange = () => {
      state.outlined = outlines.checked;
      draw();
    };
    const look = make(
      "div",
      { className: "slide-viewer-row" },
      make("label", {}, "Strength", slider),
      make("label", {}, outlines, "Outline tiles"),
    );

    const colours = make("div", { className: "slide-viewer-colours" });
    const ends = make("div", { className: "slide-viewer-ends" });
    const said = make("output", {});
    const steps = make(
      "div",
      { className: "slide-viewer-row" },
      button("‹ Previous tile", "Previous tile: the next higher one of this map", () => go(-1)),
      button("Next tile ›", "Next tile: the highest of this map, then the next lower one", () => go(1)),
      said,
    );

    function choose(k) {
      state.map = k;
      state.rank = -1;
      const map = about.maps[k];
      for (const part of [colours, ends, steps]) part.hidden = !map;
      if (map) {
        colours.style.background = `linear-gradient(to right, ${map.palette.join(", ")})`;
        ends.replaceChildren(...[map.ends[0], map.says, map.ends[1]].map((text) => make("span", {}, String(text))));
        say(`${about.tiles.length} tiles`);
      }
      draw();
    }

    function say(text) {
      said.textContent = text;
    }

    /** Go to a tile of the map in view, by rank: the highest first. */
    function go(step) {
      const n = about.tiles.length;
      state.rank = state.rank < 0 ? (step > 0 ? 0 : n - 1) : (state.rank + step + n) % n;
      const i = order[state.map][state.rank];
      const [x, y] = about.tiles[i].map((px) => (px - about.side / 2) / about.shrink);
      const side = (2 * about.side) / about.shrink;
      viewer.viewport.fitBounds(viewer.world.getItemAt(0).imageToViewportRectangle(x, y, side, side));
      say(`Tile ${state.rank + 1} of ${n} from the top: ${about.maps[state.map].value[i]}`);
      draw();
    }

    const all = about.detailed === about.tiles.length;
    const keys = make(
      "p",
      { className: "slide-viewer-small", id: `${id}-keys` },
      "Keys on the slide: arrows move it, + and − zoom, 0 shows all of it. With a mouse: drag, Ctrl and the wheel. ",
      all ? "" : `${about.detailed} of the ${about.tiles.length} tiles are there in full detail: those that count most in the first map. `,
      about.mpp ? "" : "There is no scale bar: nobody knows how many µm a pixel of this slide is.",
    );

    stage.before(buttons);
    figure.append(alarm, choice, look, colours, ends, steps, keys);
    viewer.addHandler("update-viewport", draw);
    viewer.addHandler("open", () => choose(0));
    viewer.addHandler("resize", draw);
    viewer.addHandler("tile-load-failed", () => {
      alarm.textContent = "Images of this slide are not beside the page: copy the whole folder of the book.";
      alarm.hidden = false;
    });
    figure.slideViewer = viewer; // for whoever wants to look further
  }

  document.querySelectorAll("figure.slide-viewer").forEach(open);
})();
