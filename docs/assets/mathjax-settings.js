// MathJax reads this before it starts; all of its files lie beside it.
const mathjaxFolder = new URL("mathjax", document.currentScript.src).href;
window.MathJax = {
  tex: {inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]], processEscapes: true},
  options: {
    ignoreHtmlClass: ".*|",
    processHtmlClass: "arithmatex",
    enableMenu: false,
    menuOptions: {settings: {enrich: false, speech: false, braille: false, assistiveMml: true}},
  },
  loader: {paths: {mathjax: mathjaxFolder}},
};
