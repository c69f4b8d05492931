"""How the page looks: one style sheet, for light and dark, for a desk's screen and a phone's."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f4f6f9; --text: #1c2430; --soft: #5b6778;
  --line: #d4dbe4; --good: #14713d; --bad: #b3261e; --open: #96600a; --first: #1f6feb; --second: #c2570c;
  --third: #7c3aed; --fourth: #0f766e; --grey: #8a97a8; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --panel: #1b212a; --text: #e4e9f0;
  --soft: #9aa7b8; --line: #333d4a; --good: #58c98a; --bad: #ff7b72; --open: #e3b341; --first: #6cb0ff;
  --second: #ff9e5e; --third: #b794ff; --fourth: #4fd1c0; --grey: #76839a; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--text);
  background: var(--ground); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; } p { margin: .3rem 0; }
.note, .soft { color: var(--soft); } .note { font-size: 13px; max-width: 60rem; }
.pass, .gain { color: var(--good); } .fail, .loss { color: var(--bad); } .inconclusive { color: var(--open); }
.pass, .fail, .inconclusive { font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  align-items: start; } .cards.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
dl { display: grid; grid-template-columns: fit-content(45%) 1fr; gap: 0 .8rem; margin: .4rem 0; font-size: 13px; }
dt { color: var(--soft); } dd { margin: 0; }
ul { list-style: none; margin: .4rem 0; padding: 0; font-size: 13px; } li { margin: .35rem 0; }
.row { display: grid; grid-template-columns: minmax(8rem, 15rem) minmax(8rem, 1fr) minmax(9rem, 18rem);
  gap: 0 .8rem; align-items: center; font-size: 12.5px; line-height: 1.35; padding: 3px 0;
  border-top: 1px solid var(--line); }
.track { position: relative; display: block; } .lane { position: relative; display: block; height: 9px; }
.lane i { position: absolute; top: 1px; bottom: 1px; border-radius: 2px; min-width: 2px; }
.lane .mark { width: 2px; min-width: 0; top: -1px; bottom: -1px; background: var(--text); }
.lane .thin { top: 3px; bottom: 3px; border-radius: 0; background: var(--text); }
.first { background: var(--first); } .second { background: var(--second); }
.third { background: var(--third); } .fourth { background: var(--fourth); }
.neutral { background: var(--grey); } .up { background: var(--good); } .down { background: var(--bad); }
.dropped { opacity: .45; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .9em; }
.key.mark { width: 2px; background: var(--text); } .key.thin { height: 2px; background: var(--text); }
.scroll { overflow-x: auto; margin-top: 1rem; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); } td:nth-child(2) { white-space: normal; min-width: 12rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--soft); }
svg .label { fill: var(--text); paint-order: stroke; stroke: var(--panel); stroke-width: 3px; }
.axis, .grid { stroke: var(--line); } .front { fill: none;
  stroke: var(--good); stroke-width: 1.5; stroke-dasharray: 5 3; }
.kept { fill: var(--first); stroke: var(--first); } .open { fill: var(--ground); stroke: var(--first); }
.float { fill: var(--grey); stroke: var(--grey); } .final { fill: var(--second); stroke: var(--second); }
@media (max-width: 42rem) { .row { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
  .row .track { grid-column: 1 / -1; grid-row: 2; } .row > :last-child { text-align: right; } }
"""
