"""The page's style sheet."""

CSS = """
:root { color-scheme: light; --ink: #1b1b1b; --soft: #5a5f66; --line: #dfe2e6; --accent: #0b3c6f; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; }
h1 { font-size: 1.8rem; margin: 0 0 .5rem; color: var(--accent); }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .75rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; }
.stated { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem;
  margin-top: 1rem; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; }
.card p { margin: 0; }
.card .name { color: var(--soft); font-size: .85rem; }
.card .which { font-weight: 600; }
.card ul { margin: .35rem 0 0; padding: 0; list-style: none; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
tbody th, thead th:first-child { text-align: left; position: sticky; left: 0; background: #fff;
  font-weight: 400; }
tr.front th, tr.front td { font-weight: 600; }
tr.reference th, tr.reference td { color: var(--soft); }
table.plain td, table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts { font-size: .9rem; }
table.facts th { vertical-align: top; color: var(--soft); padding-left: 0; }
figure { margin: .5rem 0; }
img { display: block; max-width: 100%; height: auto; }
.hint { color: var(--soft); font-size: .9rem; }
.plot { position: relative; width: max-content; max-width: 100%; }
.mark { position: absolute; width: 1.3rem; height: 1.3rem; margin: -.65rem 0 0 -.65rem; padding: 0; border: 0;
  border-radius: 50%; background: transparent; cursor: help; }
.mark:hover, .mark:focus { outline: 2px solid var(--accent); }
.note { display: none; position: absolute; z-index: 2; max-width: 45%; padding: .5rem .75rem; pointer-events: none;
  border: 1px solid var(--ink); border-radius: 6px; background: #fff; font-size: .85rem; line-height: 1.35; }
.note p { margin: 0 0 .25rem; font-weight: 600; }
.note ul { margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.mark:hover + .note, .mark:focus + .note { display: block; }
.mark:hover + .note { z-index: 3; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { font-weight: 600; }
dd { margin: 0; }
pre { background: #f5f6f8; border-radius: 6px; padding: .75rem 1rem; overflow-x: auto; }
@media (max-width: 40rem) {
  main { padding: 1rem .9rem 2rem; }
  h1 { font-size: 1.45rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; }
  figure img { max-width: none; width: 44rem; }
  .plot { max-width: none; }
}
@media print {
  :root, body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  @page { margin: 14mm 12mm; }
  .scroll { overflow: visible; }
  .hint, .mark, .note { display: none !important; }
  table, table.facts { font-size: 8.5px; }
  th, td { padding: .15rem .3rem; white-space: normal; }
  thead { display: table-header-group; }
  tbody th, thead th:first-child { position: static; }
  h2, h3, p:has(+ figure), p:has(+ .scroll), p:has(+ h3) { break-after: avoid; }
  p, figure, .scroll, .card, tr, pre { break-inside: avoid; }
  figure img { max-height: 20cm; width: auto; }
  .plot { width: 15cm; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
"""
