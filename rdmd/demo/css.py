"""The page's style sheet."""

CSS = """
:root { color-scheme: light; --ink: #1b1b1b; --soft: #5a5f66; --line: #dfe2e6; --accent: #0b3c6f; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.6rem; margin: 0; color: var(--accent); }
h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.give { display: flex; flex-wrap: wrap; gap: 1rem; align-items: stretch; margin: 1rem 0 .5rem; }
.drop { flex: 1 1 16rem; min-width: 0; max-width: 100%; padding: 1rem;
  border: 2px dashed var(--accent); border-radius: 8px; cursor: pointer; }
.drop.over { background: #eef3f9; }
.drop input { display: block; margin-top: .5rem; width: 100%; font: inherit; }
.samples { flex: 1 1 16rem; }
.samples div { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .4rem; }
button { padding: 3px; border: 2px solid var(--line); border-radius: 6px; background: #fff; cursor: pointer;
  font: inherit; color: inherit; }
button:hover { border-color: var(--soft); }
button[aria-pressed=true] { border-color: var(--accent); }
:focus-visible { outline: 3px solid #d9730d; outline-offset: 2px; }
.samples img { display: block; width: 3rem; height: 3rem; }
#said { min-height: 1.5em; }
#said.wrong { color: #9b1c1c; font-weight: 600; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; aspect-ratio: 1; background: #f1f2f4; border-radius: 4px; }
img.small { image-rendering: pixelated; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; max-width: 34rem; }
.slider { max-width: 34rem; margin-top: .75rem; }
.slider label { font-weight: 600; }
.slider input { display: block; width: 100%; height: 2rem; margin: .25rem 0; accent-color: var(--accent); }
.ends { display: flex; justify-content: space-between; }
output { font-variant-numeric: tabular-nums; }
.all { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .75rem; }
.all > * { display: grid; align-content: start; padding: 5px; text-align: left; }
.all figcaption { font-variant-numeric: tabular-nums; line-height: 1.35; margin-top: .25rem; }
.all b { color: var(--ink); }
.all i { font-style: normal; }
[aria-busy=true] img { opacity: .5; }
@media (max-width: 30rem) {
  .pair { gap: .5rem; }
  .all { grid-template-columns: 1fr 1fr; gap: .4rem; }
}
"""
