// "It answers here": words of a passage, marked with the keys or the mouse. Places are counted in characters of the text.
const characters = (text) => [...text].length;

export function showMark(node, text, label) {
  if (label?.start == null) { node.textContent = text; return; }
  const letters = [...text], mark = document.createElement("mark");
  mark.textContent = letters.slice(label.start, label.end).join("");
  node.replaceChildren(letters.slice(0, label.start).join(""), mark, letters.slice(label.end).join(""));
}

export function markOf(node) { // what the mouse has selected in it
  const chosen = getSelection();
  if (!chosen.rangeCount || chosen.isCollapsed) return null;
  const range = chosen.getRangeAt(0);
  if (!node.contains(range.startContainer) || !node.contains(range.endContainer)) return null;
  const before = range.cloneRange();
  before.selectNodeContents(node);
  before.setEnd(range.startContainer, range.startOffset);
  const start = characters(before.toString()), end = start + characters(range.toString());
  return end > start ? { start, end } : null;
}

export class Marking {
  // `done` is called with {start, end}, with null to remove the mark, or with nothing.
  #parts = []; #words = []; #cursor = 0; #anchor = 0; #done; #forward;

  constructor(node, text, label, done) {
    this.#done = done;
    this.#forward = getComputedStyle(node).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    let place = 0;
    node.replaceChildren(...[...new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)].map((part) => {
      const span = document.createElement("span"), start = place;
      span.textContent = part.segment;
      place += characters(part.segment);
      this.#parts.push({ span, start, end: place });
      if (part.isWordLike) {
        span.className = "word";
        this.#words.push(this.#parts.at(-1));
      }
      return span;
    }));
    if (label?.start != null) {
      const inside = this.#words.map((word, at) => [word, at]).filter(([w]) => w.start < label.end && w.end > label.start);
      if (inside.length) [this.#anchor, this.#cursor] = [inside[0][1], inside.at(-1)[1]];
    }
    this.#draw();
  }

  key(event) {
    event.preventDefault();
    const { key } = event;
    if (key === "Escape") return this.#done(undefined);
    if (key === "Delete" || key === "Backspace") return this.#done(null);
    if (key === "Enter" && this.#words.length) {
      const [first, last] = this.#ends();
      return this.#done({ start: this.#words[first].start, end: this.#words[last].end });
    }
    const to = this.#to(key);
    if (to === null) return;
    this.#cursor = Math.min(Math.max(to, 0), this.#words.length - 1);
    if (!event.shiftKey) this.#anchor = this.#cursor;
    this.#draw();
  }

  #to(key) {
    if (key === "Home") return 0;
    if (key === "End") return this.#words.length - 1;
    if (key === "ArrowLeft" || key === "ArrowRight") return this.#cursor + (key === this.#forward ? 1 : -1);
    if (key !== "ArrowUp" && key !== "ArrowDown") return null;
    const boxes = this.#words.map((word) => word.span.getBoundingClientRect()), now = boxes[this.#cursor];
    const beyond = boxes.map((box, at) => ({ box, at })).filter(({ box }) => key === "ArrowDown" ? box.top >= now.bottom - 2 : box.bottom <= now.top + 2);
    const line = beyond.length ? (key === "ArrowDown" ? beyond[0] : beyond.at(-1)).box.top : null;
    const near = beyond.filter(({ box }) => Math.abs(box.top - line) < 2);
    near.sort((a, b) => Math.abs(a.box.left - now.left) - Math.abs(b.box.left - now.left));
    return near[0]?.at ?? null;
  }

  #ends() { return [Math.min(this.#anchor, this.#cursor), Math.max(this.#anchor, this.#cursor)]; }

  #draw() {
    const [first, last] = this.#ends();
    const from = this.#words[first]?.start, to = this.#words[last]?.end;
    for (const { span, start, end } of this.#parts) span.classList.toggle("in", start >= from && end <= to);
    this.#words.forEach(({ span }, at) => span.classList.toggle("cursor", at === this.#cursor));
    this.#words[this.#cursor]?.span.scrollIntoView({ block: "nearest" });
  }
}
