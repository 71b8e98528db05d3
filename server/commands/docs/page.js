// The search box: what does not have every word is hidden, and with it the headings that have nothing left.
const box = document.querySelector("input");
const parts = [...document.querySelectorAll("main article")];
const links = new Map([...document.querySelectorAll("nav li a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a.parentElement]));
const sections = [...document.querySelectorAll("main section")];
const groups = [...document.querySelectorAll("nav div")];
const none = document.querySelector("#none");

function filter() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (element) => words.every((word) => element.textContent.toLowerCase().includes(word));
  let found = 0;
  for (const part of parts) {
    part.hidden = !has(part);
    found += !part.hidden;
    const link = links.get(part.id);
    if (link) link.hidden = part.hidden;
  }
  for (const section of sections) {
    const own = [...section.querySelectorAll("article")];
    section.hidden = words.length > 0 && (own.length ? own.every((part) => part.hidden) : !has(section));
    found += !own.length && !section.hidden;
    const link = links.get(section.id);
    if (link) link.hidden = section.hidden;
  }
  for (const group of groups) group.hidden = [...group.querySelectorAll("li")].every((item) => item.hidden);
  none.hidden = found > 0;
}

// On narrow screens the contents are folded away, and again once somebody has gone somewhere from them.
const contents = document.querySelector("nav details");
const narrow = matchMedia("(max-width: 50rem)");
const fold = () => { contents.open = !narrow.matches; };
narrow.addEventListener("change", fold);
contents.addEventListener("click", (event) => { if (event.target.closest("a")) fold(); });
fold();

box.addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== box) {
    event.preventDefault();
    box.focus();
  } else if (event.key === "Escape" && document.activeElement === box) {
    box.value = "";
    filter();
  }
});
filter();
