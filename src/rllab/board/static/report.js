/* The charts of a report: all their data are in the page. */
"use strict";

const embedded = JSON.parse(document.getElementById("data").textContent);
startCharts(async () => embedded.charts, async () => embedded.exchange, 0);
