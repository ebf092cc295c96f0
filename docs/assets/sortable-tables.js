// A click on the title of a column sorts a table of data; a second click turns the order round.
const number = (text) => parseFloat(text.replace(/[,%]/g, ""));

function sortRows(table, column, down) {
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [number(text(a)), number(text(b))];
    return isNaN(x) || isNaN(y) ? text(a).localeCompare(text(b)) : x - y;
  };
  body.append(...[...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
}

for (const table of document.querySelectorAll(".sortable table")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const down = cell.ariaSort === "ascending";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      cell.ariaSort = down ? "descending" : "ascending";
      sortRows(table, column, down);
    });
  });
}
