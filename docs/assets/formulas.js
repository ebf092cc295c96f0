// Formulas by MathJax, whose files lie beside this script, on the pages that have formulas.
const folder = new URL("mathjax", document.currentScript.src).href;
window.MathJax = {
  tex: {inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]]},
  options: {
    ignoreHtmlClass: ".*|",
    processHtmlClass: "arithmatex",
    enableMenu: false,
    menuOptions: {settings: {enrich: false, speech: false, braille: false, assistiveMml: true}},
  },
  loader: {paths: {mathjax: folder}},
};
if (document.querySelector(".arithmatex")) {
  const script = document.createElement("script");
  script.src = `${folder}/tex-svg.js`;
  document.head.append(script);
}
