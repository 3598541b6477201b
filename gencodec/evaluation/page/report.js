"use strict";
// The viewer: two streams of a clip on one canvas, seen through a movable border or as a difference.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const names = Object.keys(data);
  if (!names.length || !document.getElementById("viewer")) return;
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const videos = new Map(); // "clip/stream" -> <video>, made when first shown
  const state = { clip: names[0], left: "source", right: "0", frame: 0, border: 0.5, playing: false };
  let running = Promise.resolve(), wanted = 0;

  const clip = () => data[state.clip];
  const streamOf = (id) => (id === "source" ? { codec: "source", video: clip().source, bits: [], perFrame: [] } : clip().streams[+id]);
  const label = (s) => (s.codec === "source" ? "source" : `${s.codec} ${s.bpp.toFixed(4)} bpp`);

  function option(value, text) {
    const o = document.createElement("option");
    o.value = value; o.textContent = text;
    return o;
  }

  function fillStreams() {
    const source = clip().source ? ["source"] : []; // runs of older versions have none
    const options = () => [...source.map((s) => option(s, s)), ...clip().streams.map((s, i) => option(String(i), label(s)))];
    for (const side of ["left", "right"]) {
      $(side).replaceChildren(...options());
      const offered = [...$(side).options].map((o) => o.value);
      if (!offered.includes(state[side])) state[side] = side === "left" ? offered[0] : "0";
      $(side).value = state[side];
    }
    $("frame").max = clip().frames - 1;
    state.frame = Math.min(state.frame, clip().frames - 1);
  }

  function videoOf(id) {
    const key = `${state.clip}/${id}`;
    if (!videos.has(key)) {
      const bytes = Uint8Array.from(atob(streamOf(id).video), (c) => c.charCodeAt(0));
      const video = document.createElement("video");
      video.muted = true; video.preload = "auto"; video.playsInline = true;
      video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
      videos.set(key, video);
    }
    return videos.get(key);
  }

  function fps() {
    const [a, b] = clip().fps.split("/");
    return +a / (+b || 1);
  }

  // Bring a video to a frame: to its middle, so that rounding cannot land on a neighbour.
  function seek(video, frame) {
    return new Promise((done) => {
      const time = (frame + 0.5) / fps();
      const go = () => {
        if (Math.abs(video.currentTime - time) < 1e-4 && video.readyState >= 2) return done();
        video.addEventListener("seeked", () => whenThere(video, done), { once: true });
        video.currentTime = time;
      };
      if (video.readyState >= 1) go();
      else {
        video.addEventListener("loadedmetadata", go, { once: true });
        video.addEventListener("error", done, { once: true });
      }
    });
  }

  // A slow machine says "seeked" before there is a picture: drawing it would leave the canvas empty.
  function whenThere(video, done, tries = 100) {
    probe.clearRect(0, 0, 1, 1);
    probe.drawImage(video, 0, 0, 1, 1);
    if (tries === 0 || probe.getImageData(0, 0, 1, 1).data[3]) return done();
    setTimeout(() => whenThere(video, done, tries - 1), 20);
  }

  function show() {
    const turn = ++wanted;
    running = running.then(async () => {
      if (turn !== wanted) return; // a newer request is waiting
      const sides = [videoOf(state.left), videoOf(state.right)];
      await Promise.all(sides.map((v) => seek(v, state.frame)));
      draw(sides);
    });
    return running;
  }

  function draw([left, right]) {
    const { width, height } = clip();
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    context.globalCompositeOperation = "source-over";
    if ($("mode").value === "difference") drawDifference(left, right, width, height);
    else {
      const x = Math.round(state.border * width);
      context.drawImage(right, 0, 0, width, height);
      if (x > 0) context.drawImage(left, 0, 0, x * left.videoWidth / width, left.videoHeight, 0, 0, x, height);
      context.fillStyle = "rgba(255,255,255,.8)";
      context.fillRect(x - 1, 0, 2, height);
    }
    canvas.dataset.frame = state.frame;
    canvas.dataset.border = state.border.toFixed(3);
    tell();
  }

  function drawDifference(left, right, width, height) {
    context.drawImage(left, 0, 0, width, height);
    const a = context.getImageData(0, 0, width, height);
    context.drawImage(right, 0, 0, width, height);
    const b = context.getImageData(0, 0, width, height).data;
    for (let i = 0; i < b.length; i++) if (i % 4 !== 3) a.data[i] = 128 + 4 * (b[i] - a.data[i]);
    context.putImageData(a, 0, 0);
  }

  function tell() {
    $("number").value = state.frame;
    $("frame").value = state.frame;
    $("wipe").value = Math.round(1000 * state.border);
    const facts = [state.left, state.right].map((id) => {
      const s = streamOf(id);
      if (s.codec === "source") return "source";
      return `${label(s)}: ` + Object.entries(s.metrics).map(([k, v]) => `${k} ${v}`).join(", ");
    });
    $("facts").textContent = `left: ${facts[0]}\nright: ${facts[1]}`;
    strip($("quality"), "perFrame", "LPIPS of each frame");
    strip($("bits"), "bits", "bits of each frame");
  }

  // A small plot over frames, of the two streams that are shown, with the current frame marked.
  function strip(svg, field, title) {
    const width = 1000, height = 90, count = clip().frames;
    const lines = [state.left, state.right].map(streamOf)
      .map((s) => ({ color: s.color, points: (s[field] || []).map((v, i) => (Array.isArray(v) ? v : [i, v])) }))
      .filter((l) => l.points.length);
    const top = Math.max(1e-9, ...lines.flatMap((l) => l.points.map((p) => p[1])));
    const x = (i) => ((i + 0.5) / count) * width, y = (v) => height - 4 - (v / top) * (height - 8);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.previousElementSibling.textContent = lines.length ? `${title}, up to ${+top.toPrecision(3)}` : "";
    svg.innerHTML =
      lines.map((l) => `<polyline fill="none" stroke="${l.color}" stroke-width="2" vector-effect="non-scaling-stroke" points="${l.points.map((p) => `${x(p[0])},${y(p[1])}`).join(" ")}"/>`).join("") +
      `<line x1="${x(state.frame)}" x2="${x(state.frame)}" y1="0" y2="${height}" stroke="currentColor" vector-effect="non-scaling-stroke"/>`;
    svg.style.display = lines.length ? "" : "none";
  }

  function zoom() {
    const factor = +$("zoom").value;
    canvas.style.width = factor ? `${factor * clip().width / (factor === 1 ? devicePixelRatio : 1)}px` : "100%";
    canvas.classList.toggle("large", factor > 1);
  }

  function step(by) {
    const count = clip().frames;
    state.frame = (state.frame + by + count) % count;
    return show();
  }

  async function play() {
    state.playing = !state.playing;
    $("play").textContent = state.playing ? "pause" : "play";
    while (state.playing) {
      const due = performance.now() + 1000 / fps();
      await step(1);
      await new Promise((r) => setTimeout(r, Math.max(0, due - performance.now())));
    }
  }

  function moveBorder(event) {
    const box = canvas.getBoundingClientRect();
    state.border = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    show();
  }

  $("clip").replaceChildren(...names.map((n) => option(n, n)));
  $("clip").addEventListener("change", (e) => { state.clip = e.target.value; fillStreams(); zoom(); show(); });
  for (const side of ["left", "right"]) $(side).addEventListener("change", (e) => { state[side] = e.target.value; show(); });
  $("mode").addEventListener("change", show);
  $("zoom").addEventListener("change", zoom);
  $("frame").addEventListener("input", (e) => { state.frame = +e.target.value; show(); });
  $("wipe").addEventListener("input", (e) => { state.border = e.target.value / 1000; show(); });
  $("play").addEventListener("click", play);
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); moveBorder(e); });
  canvas.addEventListener("pointermove", (e) => { if (e.buttons) moveBorder(e); });
  document.addEventListener("keydown", (e) => {
    if (["SELECT", "INPUT", "BUTTON"].includes(e.target.tagName)) return;
    if (e.key === "ArrowRight") step(1);
    else if (e.key === "ArrowLeft") step(-1);
    else if (e.key === " ") play();
    else if (e.key === "d") { $("mode").value = $("mode").value === "wipe" ? "difference" : "wipe"; show(); }
    else return;
    e.preventDefault();
  });
  fillStreams(); zoom(); show();
})();
