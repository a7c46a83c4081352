"use strict";
// Unpacks the library of figures, draws them, which lie in the page as JSON, and copies the methods.
(() => {
  const narrow = window.matchMedia("screen and (max-width: 760px)");

  // Where labels at the ends of lines would take half of the screen, a legend below does their work.
  const fitted = (figure) => {
    const layout = structuredClone(figure.layout);
    const labels = (layout.annotations || []).some((one) => one.name === "label");
    if (!narrow.matches || !labels) return layout;
    layout.annotations = layout.annotations.filter((one) => one.name !== "label");
    for (const one of layout.annotations) {
      one.text = one.text.replace(": <b>", "<br><b>");
      one.align = one.xanchor;
    }
    layout.showlegend = true;
    layout.legend = { orientation: "h", y: -0.22, yanchor: "top", font: { size: 12 } };
    layout.margin.r = 10;
    layout.margin.l = 52;
    layout.height += 110;
    return layout;
  };

  const draw = () => {
    for (const plot of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(document.getElementById(`${plot.id}-data`).textContent);
      Plotly.react(plot, figure.data, fitted(figure), {
        displaylogo: false,
        responsive: true,
        modeBarButtons: [["toImage"]],
        toImageButtonOptions: { format: "svg", filename: plot.id },
      });
    }
  };

  const copy = async (button) => {
    const text = document.getElementById(button.dataset.copies).innerText;
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copies));
      window.getSelection().removeAllRanges();
      window.getSelection().addRange(range);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = said; }, 2500);
  };

  // Runs the library that the page carries. Its policy lets no script in but those that stand there.
  const unpack = async () => {
    const packed = document.getElementById("plotly").textContent;
    const bytes = Uint8Array.from(atob(packed), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const library = document.createElement("script");
    library.textContent = await new Response(stream).text();
    document.head.append(library);
  };

  const show = async () => {
    try {
      await unpack();
    } catch (error) {
      for (const plot of document.querySelectorAll(".plot")) {
        plot.textContent = `This figure needs a browser of 2023 or newer (${error.message}).`;
        plot.style.minHeight = "0";
      }
      return;
    }
    draw();
    narrow.addEventListener("change", draw);
    // Paper is narrower than most screens, and a figure does not shrink by itself.
    window.addEventListener("beforeprint", () => {
      for (const plot of document.querySelectorAll(".plot")) {
        Plotly.relayout(plot, { width: plot.closest(".pair") ? 340 : 680 });
      }
    });
    window.addEventListener("afterprint", draw);
  };

  show();
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", () => copy(button));
  }
})();
