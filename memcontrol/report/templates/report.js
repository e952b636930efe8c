// Shows a mask where one points at it, and puts two side by side; without this the page tells the same, in one order.
const MOST = 2;
const tip = document.getElementById("tip");
const pair = document.getElementById("pair");
const told = document.getElementById("told");
const links = [...document.querySelectorAll("a[data-trial], path[data-title]")];
const cardOf = (trial) => document.getElementById(`mask-${trial}`);
const nameOf = (trial) => cardOf(trial).querySelector(".trial strong").textContent;
const element = (name, text, className) => {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  if (className) made.className = className;
  return made;
};
document.documentElement.classList.add("scripted");

// What is shown at a point: a mask, its first scores and some of its images.
function fillTip(link) {
  const card = link.dataset.trial === undefined ? null : cardOf(link.dataset.trial);
  if (!card) return tip.replaceChildren(element("p", link.dataset.title));
  const scores = document.createElement("dl");
  for (const row of card.querySelectorAll("table.scores tr[data-objective]")) {
    const [name, value] = [row.cells[0].firstChild, row.cells[1]];
    const interval = value.querySelector(".second").textContent;
    const text = value.firstChild.textContent.trim() + (interval ? ` (${interval})` : "");
    scores.append(element("dt", name.textContent.trim()), element("dd", text));
  }
  tip.replaceChildren(card.querySelector(".brief").cloneNode(true), scores);
  const picture = card.querySelector(".samples img");
  if (picture) {
    const frame = element("div", "", "thumbnails");
    const copy = document.createElement("img");
    copy.src = picture.src;
    copy.alt = "";
    frame.append(copy);
    tip.append(frame);
  }
}

function showTip(link) {
  fillTip(link);
  tip.hidden = false;
  const [at, own] = [link.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = at.right + own.width < innerWidth ? at.right : at.left - own.width;
  const top = at.top - own.height > 8 ? at.top - own.height : at.bottom + 4;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - own.width - 8))}px`;
  tip.style.top = `${Math.max(8, Math.min(top, innerHeight - own.height - 8))}px`;
}

const hideTip = () => { tip.hidden = true; };

// What is side by side; the slots say which.
const pinned = () => (pair ? [...pair.children].map((slot) => slot.dataset.trial) : []);

function makeSlot(trial) {
  const slot = element("section", "", "slot");
  slot.dataset.trial = trial;
  slot.setAttribute("aria-label", nameOf(trial));
  slot.append(...[...cardOf(trial).childNodes].map((node) => node.cloneNode(true)));
  return slot;
}

function addButton(slot) {
  const button = element("button", "Take away");
  button.type = "button";
  button.setAttribute("aria-label", `Take away: ${nameOf(slot.dataset.trial)}`);
  button.addEventListener("click", () => unpin(slot.dataset.trial));
  slot.prepend(button);
}

function markPinned(words) {
  const shown = pinned();
  for (const link of links) link.classList.toggle("pinned", shown.includes(link.dataset.trial));
  if (words) told.textContent = words;
}

function pin(trial) {
  if (pinned().includes(trial)) return unpin(trial);
  while (pair.children.length >= MOST) pair.firstElementChild.remove();
  const slot = makeSlot(trial);
  addButton(slot);
  pair.append(slot);
  markPinned(`Side by side: ${pinned().map(nameOf).join(" and ")}`);
}

function unpin(trial) {
  const slot = [...pair.children].find((each) => each.dataset.trial === trial);
  slot?.remove();
  markPinned(`Taken away: ${nameOf(trial)}`);
}

for (const link of links) {
  for (const name of ["pointerenter", "focus"]) link.addEventListener(name, () => showTip(link));
  for (const name of ["pointerleave", "blur"]) link.addEventListener(name, hideTip);
  link.querySelector?.("title")?.remove();
  if (link.dataset.trial === undefined || !cardOf(link.dataset.trial)) continue;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    hideTip();
    pin(link.dataset.trial);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (!tip.hidden) return hideTip();
  const last = pinned().at(-1);
  if (last !== undefined) unpin(last);
});
addEventListener("scroll", hideTip, { passive: true });
if (pair) {
  for (const slot of pair.children) addButton(slot);
  markPinned();
}
