"""The look of the HTML pages: system fonts, light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2330; --dim: #667085; --line: #e3e7ee; --panel: #f6f8fb;
  --once: #2e9e6b; --split: #c98a10; --each: #4a74d8; --elementwise: #b9c3d6; --bad: #c0392b }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161d; --ink: #e4e8ef; --dim: #98a3b5; --line: #2a3240; --panel: #1a202a;
    --once: #4cc38a; --split: #e0b04a; --each: #7c9ef0; --elementwise: #4d5a70; --bad: #ff8577 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 17px; margin: 36px 0 8px } h3 { font-size: 15px; margin: 16px 0 4px }
p { margin: 6px 0 } .lead { font-size: 17px } .dim { color: var(--dim); font-size: 13px }
.good { color: var(--once) } .bad { color: var(--bad); font-weight: 600 }
code { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere }
.scroll { overflow-x: auto; margin: 8px 0 }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th { text-align: left; font-weight: 600; font-size: 12.5px; color: var(--dim); white-space: nowrap }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top }
th.n, td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.where { color: var(--dim); white-space: nowrap }
.chips { margin: 3px 0 2px }
.chip { display: inline-block; font-size: 12px; line-height: 1.4; padding: 0 7px; margin: 1px 2px 1px 0;
  border: 1px solid var(--kind); border-left-width: 5px; border-radius: 4px; background: var(--panel) }
.chip.once { --kind: var(--once) } .chip.split { --kind: var(--split) } .chip.each { --kind: var(--each) }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 2px 0 8px }
.key.once { background: var(--once) } .key.each { background: var(--each) }
.key.elementwise { background: var(--elementwise) }
rect.once { fill: var(--once) } rect.each { fill: var(--each) } rect.elementwise { fill: var(--elementwise) }
details { margin-top: 36px } summary { cursor: pointer; font-size: 17px; font-weight: 600 }
@media (max-width: 640px) { main { padding: 16px 14px 48px } body { font-size: 14px }
  td:first-child { min-width: 11em } }
@media print { details > * { display: block } }
"""
