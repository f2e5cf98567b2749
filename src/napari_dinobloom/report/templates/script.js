"use strict";
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
document.querySelectorAll(".frame").forEach((frame) => {
  frame.addEventListener("dblclick", () => frame.parentElement.classList.toggle("wide"));
});
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => entries.forEach((e) => {
  const link = links.get(e.target.id);
  if (link) link.classList.toggle("here", e.isIntersecting);
}), { rootMargin: "-20% 0px -75% 0px" });
document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
